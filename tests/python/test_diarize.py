"""`diarize`: the words of a model go to the speakers, whichever way these were told apart."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.audio import ArraySource, StereoArray
from rustasr.diarization import DiarizationOptions, diarize
from rustasr.diarization.turns import joined
from rustasr.errors import Cancelled, OptionError
from rustasr.progress import Progress
from rustasr.types import TranscriptionResult, Turn
from speakers import RATE, LevelEncoder, LevelModel, LevelVad, recording

Array = np.ndarray[Any, Any]

TALK = ((None, 0.5), (0, 3.0), (None, 1.5), (1, 3.0), (None, 1.5), (0, 2.0), (None, 0.5))


def listen(audio: Any, model: LevelModel | None = None, **arguments: Any) -> TranscriptionResult:
    arguments = {"vad": LevelVad(), "encoder": LevelEncoder(), "overlap": None, **arguments}
    return diarize(model or LevelModel(), audio, **arguments)  # type: ignore[arg-type]


def stereo(left: Array, right: Array) -> StereoArray:
    return StereoArray(np.stack([left, right], axis=1).astype(np.float32))


def call(echo: float = 0.0) -> StereoArray:
    """Voice 0 on the left, voice 3 on the right, never at once; each leaks into the other channel."""
    left = recording((0, 3.0), (None, 3.4), (0, 2.0), (None, 2.4))
    right = recording((None, 3.2), (3, 3.0), (None, 2.4), (3, 2.2))
    return stereo(left + echo * right, right + echo * left)


def words_by_speaker(result: TranscriptionResult) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for segment in result.segments:
        found.setdefault(segment.speaker, set()).update(segment.text.split())
    return found


# --- by voice


def test_words_go_to_the_voice_that_says_them() -> None:
    result = listen(recording(*TALK))
    assert words_by_speaker(result) == {"speaker_0": {"v0"}, "speaker_1": {"v1"}}
    assert [s.speaker for s in result.segments] == ["speaker_0", "speaker_1", "speaker_0"]
    assert result.turns is not None and len(result.turns) == 3
    assert result.coverage is not None and result.coverage.share == 1.0
    assert result.duration == 12.0 and result.inference_seconds > 0


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(2.0, 5.0)), min_size=1, max_size=6),
    st.floats(1.3, 3.0),
)
def test_no_word_is_lost_or_doubled_whoever_speaks(turns: list[tuple[int, float]], pause: float) -> None:
    talk = recording(*(part for voice, s in turns for part in ((voice, s), (None, pause))))
    model, bare = LevelModel(), LevelModel()
    result = listen(talk, model)
    whole = bare.transcribe(ArraySource(talk), vad=LevelVad(), timestamps="word")
    assert [word.text for word in result.words] == [word.text for word in whole.words]
    assert [(w.start, w.end) for w in result.words] == [(w.start, w.end) for w in whole.words]
    assert " ".join(s.text for s in result.segments).split() == [word.text for word in whole.words]


def test_turns_that_are_known_are_taken_as_they_are() -> None:
    turns = [Turn(0.5, 3.5, "Ann"), Turn(5.0, 8.0, "Bob")]
    result = listen(recording(*TALK), turns=turns, vad=None, encoder=None)
    assert words_by_speaker(result) == {"Ann": {"v0"}, "Bob": {"v1"}}
    assert result.turns == tuple(turns)


def test_no_turns_at_all_are_refused() -> None:
    with pytest.raises(OptionError, match="found no turn"):
        listen(recording(*TALK), turns=[])


def test_the_model_hears_nothing_of_a_silent_recording() -> None:
    model = LevelModel()
    result = listen(np.zeros(5 * RATE, np.float32), model)
    assert (result.text, result.segments, result.turns, model.calls) == ("", (), (), [])
    assert result.duration == 5.0


def test_speakers_need_times() -> None:
    with pytest.raises(OptionError, match="speakers need times"):
        listen(recording(*TALK), timestamps="none")


# --- by channel


@pytest.mark.parametrize("echo", [0.0, 0.1])
def test_each_side_is_heard_alone_and_without_the_other(echo: float) -> None:
    model = LevelModel()
    result = listen(call(echo), model, encoder=None)
    assert words_by_speaker(result) == {"mic": {"v0"}, "system": {"v3"}}
    assert len(model.calls) == 2
    assert [s.speaker for s in result.segments] == ["mic", "system", "mic", "system"]
    starts = [segment.start for segment in result.segments]
    assert starts == sorted(starts)
    assert np.allclose(starts, [0.0, 3.2, 6.4, 8.6], atol=0.26)


def test_an_echo_would_be_heard_if_it_were_not_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    from rustasr.diarization import transcript

    monkeypatch.setattr(transcript, "_Side", lambda source, own, others: source)
    assert "echo" in words_by_speaker(listen(call(0.1)))["mic"]


def test_both_at_once_are_both_written_down() -> None:
    left = recording((0, 6.0), (None, 4.0))
    rng = np.random.default_rng(0)  # unlike the left, so that neither is an echo
    right = np.where(rng.random(len(left)) < 0.5, 1, -1).astype(np.float32) * recording((None, 3.0), (3, 7.0))
    result = listen(stereo(left, right))
    assert words_by_speaker(result) == {"mic": {"v0"}, "system": {"v3"}}
    starts = [segment.start for segment in result.segments]
    assert starts == sorted(starts)


def test_voices_on_the_right_are_told_apart() -> None:
    left = recording((0, 3.0), (None, 9.0))
    right = recording((None, 3.5), (2, 3.0), (None, 1.5), (5, 4.0))
    options = DiarizationOptions(right_speaker_names=("Ann", "Bob"), right_name="far")
    result = listen(stereo(left, right), options=options)
    assert words_by_speaker(result) == {"mic": {"v0"}, "far-Ann": {"v2"}, "far-Bob": {"v5"}}


# --- languages, and models without word times


def test_each_side_may_have_its_language() -> None:
    model = LevelModel()
    result = listen(call(), model, speaker_languages={"system": "de"}, language="en")
    assert [options["language"] for options in model.calls] == ["en", "de"]
    assert result.language == "de"  # the right one speaks longer


def test_speakers_of_different_languages_are_transcribed_apart() -> None:
    model = LevelModel()
    result = listen(recording(*TALK), model, speaker_languages={"speaker_1": "fr"})
    assert [options.get("language") for options in model.calls] == [None, "fr"]
    assert words_by_speaker(result) == {"speaker_0": {"v0"}, "speaker_1": {"v1"}}
    assert [s.speaker for s in result.segments] == ["speaker_0", "speaker_1", "speaker_0"]


def test_a_language_for_nobody_is_refused_before_anything_is_transcribed() -> None:
    model = LevelModel()
    with pytest.raises(OptionError, match=r"expected names of speakers \(mic.*found 'Bob'"):
        listen(call(), model, speaker_languages={"Bob": "de"})
    assert model.calls == []


def test_without_word_times_every_speaker_is_transcribed_alone() -> None:
    model = LevelModel(words_need_aligner=True)
    talk = recording((0, 3.0), (1, 3.0), (0, 2.0))  # no pause: a segment would run over all three
    result = listen(talk, model, turns=[Turn(0, 3, "A"), Turn(3, 6, "B"), Turn(6, 8, "A")])
    assert [options["timestamps"] for options in model.calls] == ["segment", "segment"]
    assert [s.speaker for s in result.segments].count("B") == 1
    assert any("gives no word times" in warning for warning in result.warnings)


def test_with_an_aligner_all_are_transcribed_together() -> None:
    model = LevelModel(words_need_aligner=True)
    result = listen(recording(*TALK), model, align="some-aligner")
    assert [options["timestamps"] for options in model.calls] == ["word"]
    assert result.warnings == ()


# --- progress and interruption


@pytest.mark.parametrize("audio", [recording(*TALK), call()], ids=["voices", "channels"])
def test_progress_rises_to_the_end(audio: Any) -> None:
    told: list[Progress] = []
    listen(audio, progress=told.append)
    shares = [progress.fraction for progress in told]
    assert None not in shares and len(shares) > 3
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(shares))  # type: ignore[operator]
    assert shares[-1] == pytest.approx(1.0)


def test_what_was_finished_before_a_cancel_is_kept() -> None:
    with pytest.raises(Cancelled) as stop:
        listen(call(), LevelModel(cancelled_in_call=2))
    assert stop.value.partial is not None
    assert words_by_speaker(stop.value.partial) == {"mic": {"v0"}, "system": {"v3"}}
    with pytest.raises(Cancelled) as stop:
        listen(call(), LevelModel(cancelled_in_call=1))
    assert stop.value.partial is not None
    assert words_by_speaker(stop.value.partial) == {"mic": {"v0"}}


def test_an_exception_of_the_callback_stops_the_search_for_turns() -> None:
    model = LevelModel()

    def stop(progress: Progress) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        listen(call(), model, progress=stop)
    assert model.calls == []


# --- turns


def spoken(turns: list[Turn], speaker: str) -> np.ndarray[Any, Any]:
    mask = np.zeros(2000, bool)
    for turn in turns:
        if turn.speaker == speaker:
            mask[round(turn.start * 10) : round(turn.end * 10)] = True
    return mask


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 200), st.sampled_from("abc")).map(
            lambda t: Turn(t[0] / 10, (t[0] + t[1]) / 10, t[2])
        ),
        max_size=10,
    ),
    st.integers(0, 30),
)
def test_joining_turns_only_bridges_short_pauses_of_one_speaker(turns: list[Turn], gap: int) -> None:
    made = joined(turns, gap / 10)
    assert made == sorted(made)
    for speaker in "abc":
        before, after = spoken(turns, speaker), spoken(made, speaker)
        assert not (before & ~after).any()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], after & ~before, [0]]).astype(int)))
        assert all(end - start <= gap for start, end in edges.reshape(-1, 2))
        others = np.any([spoken(turns, other) for other in "abc" if other != speaker], axis=0)
        assert not (after & ~before & others).any()
