"""Cluster mode: voices are told apart, however the recording is cut and in whatever order it is looked at."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.audio import ArraySource
from rustasr.diarization import DiarizationOptions, clustering, find_turns, read_rttm
from rustasr.diarization.clustering import SpeakerCount, centroids
from rustasr.diarization.encoder import HOP, WINDOW, Embedded, embed, gain_to, windows_of
from rustasr.diarization.labelling import label
from rustasr.diarization.turns import joined, speakers_of
from rustasr.errors import OptionError
from rustasr.progress import Progress
from rustasr.types import Turn
from rustasr.vad import Span
from speakers import RATE, Known, LevelEncoder, LevelVad, Replay, error_rate, recording

GOLDENS = Path(__file__).parent.parent / "data/goldens/speakers"


def golden(name: str) -> Any:
    return np.load(GOLDENS / f"{name}.npz")


def turns_of(samples: Any, *, encoder: Any = None, vad: Any = None, **options: Any) -> list[Turn]:
    found = find_turns(samples, vad or LevelVad(), encoder or LevelEncoder(), DiarizationOptions(**options))
    assert found.mode == "cluster"
    return list(found.turns)


# --- real vectors


@pytest.mark.parametrize(
    ("name", "options", "n_speakers"),
    [
        ("meeting_en_3spk_mono", {}, 3),
        ("meeting_en_3spk_mono", {"num_speakers": 3}, 3),
        ("meeting_en_3spk_mono", {"min_speakers": 2, "max_speakers": 6}, 3),
        ("en_call_lj_jfk_mono", {"num_speakers": 2}, 2),
        ("en_call_lj_jfk_mono", {"max_speakers": 2}, 2),
    ],
)
def test_real_voices_are_told_apart(name: str, options: dict[str, Any], n_speakers: int) -> None:
    stored = golden(name)
    replay = Replay(stored)
    found = turns_of(np.zeros(int(stored["n_samples"]), np.float32), encoder=replay, vad=replay, **options)
    assert replay.place == len(stored["vectors"])
    assert speakers_of(found) == [f"speaker_{i}" for i in range(n_speakers)]
    (reference,) = read_rttm(str(stored["rttm"])).values()
    assert error_rate(reference, found, stored["n_samples"] / RATE) <= 0.08


def test_a_side_of_a_call_with_two_readers_is_two_voices() -> None:
    """The right side of this call is cut together from two recordings: three voices are the truth."""
    replay = Replay(golden("en_call_lj_jfk_mono"))
    found = turns_of(np.zeros(int(replay.golden["n_samples"]), np.float32), encoder=replay, vad=replay)
    assert len(speakers_of(found)) == 3
    kennedy = {turn.speaker for turn in found if 10.5 < turn.start < 21.5}
    reader = {turn.speaker for turn in found if 24 < turn.start < 31}
    assert len(kennedy) == len(reader) == 1
    assert kennedy != reader


# --- any voices

conversations = st.lists(
    st.tuples(st.integers(0, 3), st.integers(30, 70), st.integers(3, 12)), min_size=1, max_size=9
)


@settings(deadline=None, max_examples=40)
@given(conversations, st.integers(1000, 200_000), st.randoms(use_true_random=False))
def test_every_turn_is_found_whatever_the_order(
    parts: list[tuple[int, int, int]], block: int, shuffler: Any
) -> None:
    sounds = [(voice, length / 10) for voice, length, _ in parts]
    pauses = [(None, pause / 10) for _, _, pause in parts]
    samples = recording(*(part for both in zip(sounds, pauses, strict=True) for part in both))
    found = turns_of(samples, max_pause_s=0.0)
    now, wanted = 0.0, list[Turn]()
    for voice, length, pause in parts:
        wanted.append(Turn(now / 10, (now + length) / 10, str(voice)))
        now += length + pause
    assert [(turn.start, turn.end) for turn in found] == [
        pytest.approx((turn.start, turn.end), abs=1e-4) for turn in wanted
    ]
    names = [turn.speaker for turn in wanted]
    order = {name: f"speaker_{i}" for i, name in enumerate(dict.fromkeys(names))}
    assert [turn.speaker for turn in found] == [order[name] for name in names]

    class Shuffled(LevelVad):
        def speech(self, blocks: Any) -> list[Span]:
            spans = super().speech(blocks)
            shuffler.shuffle(spans)
            return spans

    class Cut(ArraySource):
        def blocks(self, block_s: float) -> Any:
            return super().blocks(block / RATE)

    assert turns_of(Cut(samples), vad=Shuffled(), max_pause_s=0.0) == found


def test_a_change_inside_speech_is_found() -> None:
    found = turns_of(recording((0, 6.0), (1, 7.0), (0, 5.0)))
    assert [turn.speaker for turn in found] == ["speaker_0", "speaker_1", "speaker_0"]
    assert [turn.end for turn in found] == [pytest.approx(end, abs=0.4) for end in (6.0, 13.0, 18.0)]


def test_pauses_are_bridged_where_nobody_else_speaks() -> None:
    samples = recording((0, 4.0), (None, 0.4), (0, 4.0), (None, 0.6), (0, 4.0), (None, 0.2), (1, 4.0))
    assert [(t.start, t.end) for t in turns_of(samples)] == [(0, 8.4), (9.0, 13.0), (13.2, 17.2)]
    assert len(turns_of(samples, max_pause_s=0)) == 4
    assert [turn.end for turn in turns_of(samples, max_pause_s=1)] == [13.0, 17.2]


@pytest.mark.parametrize(
    ("options", "n_speakers"),
    [
        ({}, 3),
        ({"num_speakers": 1}, 1),
        ({"num_speakers": 2}, 2),
        ({"num_speakers": 3}, 3),
        ({"num_speakers": 5}, 5),
        ({"max_speakers": 2}, 2),
        ({"min_speakers": 4}, 4),
        ({"min_speakers": 2, "max_speakers": 5}, 3),
    ],
)
def test_the_number_that_is_asked_for_is_found(options: dict[str, int], n_speakers: int) -> None:
    samples = recording(*[part for voice in (0, 1, 2, 3, 4, 0) for part in ((voice, 4.0), (None, 1.0))])

    class Sisters(LevelEncoder):
        """Voice 3 is much like voice 0, and 4 like 1: three voices at first hearing."""

        def embed(self, pieces: Any) -> Any:
            likeness = np.eye(self.n_voices)
            likeness[3, 0] = likeness[4, 1] = 2.0  # cosine 0.89
            return super().embed(pieces) @ likeness

    assert len(speakers_of(turns_of(samples, encoder=Sisters(), **options))) == n_speakers


def test_more_speakers_than_windows_are_as_many_as_windows() -> None:
    assert len(speakers_of(turns_of(recording((0, 1.0), (None, 1.0), (1, 1.0)), num_speakers=9))) == 2


def test_names_are_given_in_order_of_first_speech() -> None:
    samples = recording((2, 4.0), (None, 1.0), (0, 4.0), (None, 1.0), (1, 4.0))
    found = turns_of(samples, speaker_names=("Ann", "Bob"))
    assert [turn.speaker for turn in found] == ["Ann", "Bob", "speaker_2"]


def test_a_short_voice_is_dissolved_unless_it_is_all_there_is() -> None:
    samples = recording((0, 8.0), (None, 1.0), (1, 1.0), (None, 1.0), (0, 8.0))
    assert len(speakers_of(turns_of(samples))) == 1
    assert len(turns_of(recording((1, 0.3)))) == 1


def test_no_speech_has_no_speakers() -> None:
    assert turns_of(np.zeros(RATE, np.float32)) == []


def test_overlaps_have_a_second_speaker() -> None:
    samples = recording((0, 5.0), (None, 1.0), (1, 5.0))
    overlap = [Span(2 * RATE, 3 * RATE)]
    found = find_turns(samples, LevelVad(), LevelEncoder(), overlap=Known(overlap))
    assert found.turns == (
        Turn(0.0, 5.0, "speaker_0"),
        Turn(2.0, 3.0, "speaker_1"),
        Turn(6.0, 11.0, "speaker_1"),
    )
    assert found.leading == (Turn(0.0, 5.0, "speaker_0"), Turn(6.0, 11.0, "speaker_1"))


def test_where_nobody_speaks_or_one_voice_there_is_no_overlap() -> None:
    samples = recording((0, 5.0), (None, 1.0), (1, 5.0))
    quiet = Known([Span(round(5.2 * RATE), round(5.8 * RATE))])
    found = find_turns(samples, LevelVad(), LevelEncoder(), overlap=quiet)
    assert len(found.turns) == 2 and found.leading == ()
    monologue = recording((0, 5.0))
    found = find_turns(monologue, LevelVad(), LevelEncoder(), overlap=lambda: pytest.fail("not needed"))
    assert len(found.turns) == 1


def test_overlaps_across_segments_and_turns_are_cut_to_them() -> None:
    samples = recording((0, 4.0), (1, 4.0), (None, 1.0), (0, 4.0))
    everywhere = Known([Span(0, len(samples))])
    found = find_turns(samples, LevelVad(), LevelEncoder(), overlap=everywhere)
    spoken = [(turn.start, turn.end) for turn in found.turns]
    assert all(0 <= start < end <= 13.0 and not (start < 8.5 < end) for start, end in spoken)
    seconds = {
        name: sum(t.end - t.start for t in found.turns if t.speaker == name) for name in found.speakers
    }
    assert all(abs(value - 12.0) < 0.05 for value in seconds.values())
    assert sum(turn.end - turn.start for turn in found.leading) == pytest.approx(12.0, abs=0.05)


def test_progress_of_finding_turns_rises_to_the_end() -> None:
    for samples in (recording((0, 5.0)), recording((0, 5.0), (None, 1.0), (1, 5.0))):
        for overlap in (None, Known([])):
            heard: list[Progress] = []
            find_turns(samples, LevelVad(), LevelEncoder(), overlap=overlap, progress=heard.append)
            fractions = [now.fraction for now in heard]
            assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_long_recordings_are_thinned_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = recording(*[part for i in range(12) for part in ((i % 3, 5.0), (None, 0.7))])
    whole = turns_of(samples)
    monkeypatch.setattr(clustering, "MOST_WINDOWS", 10)
    assert turns_of(samples) == whole


def test_without_an_encoder_the_message_says_what_is_missing() -> None:
    with pytest.raises(OptionError, match="needs a speaker encoder, found none"):
        find_turns(recording((0, 3.0)), LevelVad())


def test_without_scipy_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(OptionError, match=r"scipy.*rustasr\[diarize\]"):
        turns_of(recording((0, 3.0)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_speakers": 0}, "expected 1 to 100, found 0"),
        ({"num_speakers": 2, "max_speakers": 3}, "exactly, or its limits"),
        ({"min_speakers": 3, "max_speakers": 2}, "at most 2, found 3"),
        ({"speaker_mode": "stereo"}, "expected one of auto, channel, cluster"),
        ({"speaker_names": "Ann"}, "speaker_names: expected names"),
        ({"speaker_names": ("Ann", " Ann")}, "expected different names"),
        ({"right_speaker_names": ("",)}, "none of them empty"),
        ({"left_name": "system"}, "left_name and right_name: expected different names"),
        ({"max_pause_s": -1}, "max_pause_s"),
        ({"right_num_speakers": 1.5}, "right_num_speakers"),
    ],
)
def test_options_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DiarizationOptions(**wrong)


# --- the steps


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_windows_cover_their_segment(start: int, length: int) -> None:
    segment = Span(start, start + length)
    windows = windows_of(segment)
    assert windows[0].start == segment.start
    assert windows[-1].end == segment.end
    assert all(window.length == min(length, WINDOW) for window in windows)
    steps = [b.start - a.start for a, b in itertools.pairwise(windows)]
    assert all(step == HOP for step in steps[:-1])
    assert all(0 < step <= HOP for step in steps[-1:])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 60_000)), max_size=4),
    st.integers(1000, 90_000),
)
def test_the_encoder_gets_the_samples_of_each_window(gaps: list[tuple[int, int]], block: int) -> None:
    segments, now = list[Span](), 0
    for gap, length in gaps:
        segments.append(Span(now + gap, now + gap + length))
        now += gap + length
    samples = np.arange(now + 5, dtype=np.float32)
    encoder = LevelEncoder()
    found = embed([samples[at : at + block] for at in range(0, len(samples), block)], segments, encoder)
    assert len(found.windows) == len(found.segments) == len(encoder.pieces) == len(found.vectors)
    for window, piece in zip(found.windows, encoder.pieces, strict=True):
        assert np.array_equal(piece, samples[window.start : window.end])


def speech_level_db(pieces: list[np.ndarray[Any, Any]]) -> float:
    return float(10 * np.log10(np.mean(np.square(np.concatenate(pieces), dtype=np.float64))))


@pytest.mark.parametrize("factor", [0.01, 1.0, 3.0])
def test_an_encoder_to_which_loudness_matters_hears_one_level(factor: float) -> None:
    """Of the speech, not of the silence around it; voices of a recording keep their distance in loudness."""

    class Listener(LevelEncoder):
        level_db = -30.0

    spoken = [(0, 3.0), (None, 20.0), (1, 1.5), (None, 1.0), (0, 3.0)]
    samples = factor * recording(*spoken)
    encoder, progress = Listener(), list[float]()
    find_turns(
        ArraySource(samples, RATE), LevelVad(), encoder, progress=lambda p: progress.append(p.fraction or 0)
    )
    heard = [piece for piece in encoder.pieces if len(piece) == WINDOW]
    loudness = sorted({round(float(piece[0]), 6) for piece in heard})
    assert loudness[-1] == pytest.approx(2 * loudness[0], rel=1e-4)
    speech = np.concatenate([np.full(round(s * RATE), v + 1.0) for v, s in spoken if v is not None])
    assert loudness[0] == pytest.approx(10 ** (-30 / 20) / np.sqrt(np.mean(speech**2)), rel=1e-4)
    assert progress == sorted(progress) and progress[-1] == 1
    plain = LevelEncoder()
    find_turns(ArraySource(samples, RATE), LevelVad(), plain)
    assert {float(piece[0]) for piece in plain.pieces} <= {float(x) for x in samples}


@pytest.mark.parametrize("block", [1000, 16_000, 1_000_000])
def test_the_gain_is_that_of_the_speech(block: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, 700_000).astype(np.float32)
    segments = [Span(5, 400_000), Span(400_100, 400_101), Span(500_000, 600_000)]
    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    speech = np.concatenate([samples[s.start : s.end] for s in segments])
    assert speech_level_db([gain_to(-30, blocks, segments) * speech]) == pytest.approx(-30, abs=1e-6)
    assert gain_to(-30, blocks, []) == 1
    assert gain_to(-30, [np.zeros(999, np.float32)], [Span(0, 999)]) == 1


def test_a_recording_that_is_too_short_and_a_wrong_number_of_vectors_are_errors() -> None:
    with pytest.raises(ValueError, match="expected 100 samples or more, found 50"):
        embed([np.zeros(50, np.float32)], [Span(0, 100)], LevelEncoder())

    class Lazy(LevelEncoder):
        def embed(self, pieces: Any) -> Any:
            return super().embed(pieces)[:-1]

    with pytest.raises(ValueError, match="expected 1 vectors from levels, found 0"):
        embed([np.zeros(100, np.float32)], [Span(0, 100)], Lazy())


def embedded(rows: list[list[float]], spans: list[tuple[float, float]]) -> Embedded:
    vectors = np.array(rows, float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    windows = [Span(round(a * RATE), round(b * RATE)) for a, b in spans]
    return Embedded(windows, [0] * len(rows), vectors)


def test_clusters_stay_apart_above_the_distance_and_alike_centroids_merge() -> None:
    def n_found(cosine: float, cut: float, merge: float) -> int:
        other = [cosine, (1 - cosine**2) ** 0.5]
        encoder = LevelEncoder()
        encoder.cut_distance, encoder.merge_cosine = cut, merge
        spans = [(t, t + 1.5) for t in range(8)]
        return len(centroids(embedded([[1, 0]] * 4 + [other] * 4, spans), encoder, SpeakerCount()))

    assert n_found(0.5, cut=0.45, merge=0.9) == 2
    assert n_found(0.5, cut=0.55, merge=0.9) == 1
    assert n_found(0.5, cut=0.45, merge=0.4) == 1


def test_a_brief_likeness_to_another_voice_changes_nothing() -> None:
    rows = [[1.0, 0.0]] * 3 + [[0.6, 0.7]] + [[1.0, 0.0]] * 3  # one window a little nearer to the other
    windows = [(i * 0.75, i * 0.75 + 1.5) for i in range(7)]
    segment = Span(0, 6 * RATE)
    found = label(embedded(rows, windows), np.eye(2), [segment]).leading
    assert found == [(segment, 0)]
    rows[3] = [0.0, 1.0]
    assert [speaker for _, speaker in label(embedded(rows, windows), np.eye(2), [segment]).leading] == [
        0,
        1,
        0,
    ]


def test_a_change_must_be_worth_its_cost() -> None:
    windows = [(i * 0.75, i * 0.75 + 1.5) for i in range(7)]
    hesitant = [[1.0, 0.95] if i % 2 else [0.95, 1.0] for i in range(7)]
    assert len(label(embedded(hesitant, windows), np.eye(2), [Span(0, 6 * RATE)]).leading) == 1


def test_a_turn_that_is_too_short_goes_to_its_longer_neighbour() -> None:
    windows, segment = [(0, 1), (1, 1.24), (1.24, 3.2)], Span(0, round(3.2 * RATE))
    found = label(embedded([[1, 0, 0], [0, 1, 0], [0, 0, 1]], windows), np.eye(3), [segment]).leading
    assert found == [(Span(0, RATE), 0), (Span(RATE, segment.end), 2)]
    windows[1:] = [(1, 1.25), (1.25, 3.2)]
    found = label(embedded([[1, 0, 0], [0, 1, 0], [0, 0, 1]], windows), np.eye(3), [segment]).leading
    assert [speaker for _, speaker in found] == [0, 1, 2]


def test_turns_join_only_where_nobody_else_speaks() -> None:
    turns = [Turn(0, 2, "a"), Turn(2.1, 2.4, "b"), Turn(2.5, 4, "a"), Turn(4.2, 5, "a"), Turn(4.9, 6, "b")]
    assert joined(turns, 0.5) == [
        Turn(0, 2, "a"),
        Turn(2.1, 2.4, "b"),
        Turn(2.5, 5, "a"),
        Turn(4.9, 6, "b"),
    ]
    assert joined([Turn(1, 3, "a"), Turn(0, 2, "a")]) == [Turn(0, 3, "a")]
