"""The forced aligner on texts and on results: prompts, pieces of a recording, words, refusals.

The network is a script (`qwen3_script`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_script import ADDED, Call, core_model, no_core

import rustasr
from rustasr import aligner as aligner_module
from rustasr.aligner import ForcedAligner, Piece
from rustasr.aligner.pieces import PIECE_S, pack, samples_of
from rustasr.errors import OptionError, UnsupportedModelError
from rustasr.families.qwen3_asr import Qwen3Asr
from rustasr.progress import Progress
from rustasr.types import Segment, TranscriptionResult

RATE = 16000
__all__ = ["no_core"]


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def result_of(*segments: Segment, duration: float = 100.0, language: str = "en") -> TranscriptionResult:
    text = " ".join(segment.text for segment in segments)
    return TranscriptionResult(text, segments, language, duration, 1.0, "some")


def rising(call: Call) -> list[int]:
    """Every slot 80 ms after the one before it, from 0.8 s on."""
    return list(range(10, 500))


def aligner(script: Callable[[Call], Any] = rising) -> ForcedAligner:
    return ForcedAligner(core_model(script, "align"), name="scripted")


# --- pieces of a recording


def test_segments_are_packed_up_to_a_minute_and_cut_in_pauses() -> None:
    segments = [Segment(10.0 * i, 10.0 * i + 9.5, "x") for i in range(4)]
    segments += [Segment(45.0, 50.0, "y"), Segment(50.5, 58.0, "y"), Segment(58.0, 66.0, "z")]
    pieces = pack(segments, 70.0, "en")
    assert [(p.first, p.last) for p in pieces] == [(0, 4), (4, 7)]
    assert [(p.start, p.end) for p in pieces] == [(0.0, 40.0), (44.5, 66.5)]
    assert {p.language for p in pieces} == {"en"}


def test_segments_without_a_pause_get_a_little_sound_around_them() -> None:
    segments = [Segment(i * 20.0, (i + 1) * 20.0, "x") for i in range(6)]
    pieces = pack(segments, 120.0, "")
    assert [(p.first, p.last) for p in pieces] == [(0, 2), (2, 4), (4, 6)] or len(pieces) == 2
    for piece in pieces[1:]:
        assert piece.start == segments[piece.first].start - 0.2


def test_languages_do_not_share_a_piece() -> None:
    segments = [
        Segment(0, 5, "a", language="en"),
        Segment(5, 9, "b", language="en"),
        Segment(9, 14, "c", language="zh"),
        Segment(14, 19, "d"),
    ]
    pieces = pack(segments, 20.0, "de")
    assert [(p.first, p.last, p.language) for p in pieces] == [(0, 2, "en"), (2, 3, "zh"), (3, 4, "de")]


@settings(deadline=None)
@given(
    spans=st.lists(st.tuples(st.floats(0.1, 90), st.floats(0, 5)), min_size=1, max_size=30),
)
def test_pieces_cover_all_segments_in_order(spans: list[tuple[float, float]]) -> None:
    segments, now = [], 0.0
    for length, pause in spans:
        segments.append(Segment(now + pause, now + pause + length, "x"))
        now += pause + length
    pieces = pack(segments, now, "en")
    assert [p.first for p in pieces] == [0, *[p.last for p in pieces[:-1]]] and pieces[-1].last == len(spans)
    for piece in pieces:
        first, last = segments[piece.first], segments[piece.last - 1]
        assert 0 <= piece.start <= first.start and last.end <= piece.end + 1e-9 <= now + 2e-9
        assert piece.end - piece.start <= PIECE_S or piece.last == piece.first + 1


@settings(deadline=None, max_examples=30)
@given(st.integers(100, 40_000), st.lists(st.integers(0, 48_000), min_size=2, max_size=8))
def test_the_samples_of_pieces(block: int, marks: list[int]) -> None:
    samples = noise(3.0)
    marks = sorted(marks)
    pieces = [Piece(max(0, a - 3200) / RATE, b / RATE, 0, 0, "") for a, b in itertools.pairwise(marks)]
    blocks = (samples[i : i + block] for i in range(0, len(samples), block))
    for piece, found in zip(pieces, samples_of(blocks, pieces), strict=True):
        assert np.array_equal(found, samples[round(piece.start * RATE) : round(piece.end * RATE)])


# --- a text


@pytest.mark.usefixtures("no_core")
def test_words_of_a_text() -> None:
    model = aligner()
    words = model.align(noise(5), "Hello, well-known world!", "en")
    assert [(w.text, w.start, w.end) for w in words] == [
        ("Hello,", 0.8, 0.88),
        ("well-known", 0.96, 1.04),
        ("world!", 1.12, 1.2),
    ]
    assert {word.confidence for word in words} == {1.0}


@pytest.mark.usefixtures("no_core")
def test_the_prompt_is_sound_and_units_with_two_slots_each() -> None:
    prompts = []
    aligner(lambda call: prompts.append((list(call.prompt), call.options)) or [1] * 9).align(
        noise(1), "Hi, you", "en"
    )
    ids, slots = prompts[0]
    n_audio = 12
    pad, slot = [ADDED["audio_pad"]], [ADDED["timestamp"]] * 2
    assert ids == [
        ADDED["audio_start"], *pad * n_audio, ADDED["audio_end"], *b"Hi", *slot, *b"you", *slot,
    ]  # fmt: skip
    assert [ids[i] for i in slots] == slot * 2


@pytest.mark.usefixtures("no_core")
def test_times_are_put_in_order_and_stay_in_the_recording() -> None:
    words = aligner(lambda call: [10, 11, 90, 8, 12, 13]).align(noise(1), "a b c", "en")
    assert [(w.start, w.end) for w in words] == [(0.8, 0.88), (0.88, 0.96), (0.96, 1.0)]
    assert aligner(lambda call: [499] * 4).align(noise(1), "a b")[1].end == 1.0


@pytest.mark.usefixtures("no_core")
def test_a_text_without_words_has_none() -> None:
    model = aligner()
    assert model.align(noise(1), " … ") == ()
    assert model.core.sessions == []


@pytest.mark.usefixtures("no_core")
def test_what_an_aligner_refuses() -> None:
    model = aligner()
    assert model.supported_languages == ("en", "zh")
    with pytest.raises(OptionError, match=r"up to 40 s at once, found 41.0 s"):
        model.align(noise(41), "a")
    for language in ("sv", "klingon"):
        with pytest.raises(OptionError, match="aligns en, zh, found"):
            model.align(noise(1), "a", language)
    with pytest.raises(UnsupportedModelError, match="expected a forced aligner"):
        ForcedAligner(core_model(rising), name="x")


# --- a result


@pytest.mark.usefixtures("no_core")
def test_segments_get_words_and_their_times() -> None:
    segments = (
        Segment(10.0, 12.0, "One two.", confidence=0.5, flags=("estimated_times", "low_confidence")),
        Segment(12.0, 13.0, "…"),
        Segment(13.0, 15.0, "Three."),
        Segment(80.0, 85.0, "Four."),
    )
    told: list[float] = []
    model = aligner()
    found = model.align_result(
        noise(100), result_of(*segments), report=lambda done, so_far: told.append(done)
    )
    first, mute, third, fourth = found.segments
    assert first.words is not None and [w.text for w in first.words] == ["One", "two."]
    assert (first.start, first.end) == pytest.approx((9.5 + 0.8, 9.5 + 1.04))
    assert first.flags == ("low_confidence",) and {w.confidence for w in first.words} == {0.5}
    assert (mute.words, mute.start, mute.end) == ((), 12.0, 13.0)
    assert third.start == pytest.approx(9.5 + 1.12)
    assert fourth.start == pytest.approx(79.5 + 0.8)
    assert told == [15.5, 85.5]
    assert len(model.core.sessions) == 1 and found.text == "One two. … Three. Four."


@pytest.mark.usefixtures("no_core")
def test_what_cannot_be_aligned_keeps_its_times() -> None:
    segments = (
        Segment(0.0, 5.0, "Hej.", language="sv", flags=("estimated_times",)),
        Segment(5.0, 60.0, "Very long."),
        Segment(60.0, 65.0, "Good."),
    )
    found = aligner().align_result(noise(100), result_of(*segments))
    assert [s.words is None for s in found.segments] == [True, True, False]
    assert found.segments[0].flags == ("estimated_times", "unaligned")
    assert (found.segments[1].start, found.segments[1].end) == (5.0, 60.0)
    assert len(found.warnings) == 2
    assert "'sv'" in found.warnings[1] and "more than 40 s" in found.warnings[0]


@pytest.mark.usefixtures("no_core")
def test_words_of_neighbouring_pieces_do_not_overlap() -> None:
    segments = [Segment(i * 20.0, (i + 1) * 20.0, f"word{i}") for i in range(6)]
    late = aligner(lambda call: [400 + 33 * (n // 2) for n in range(4)])
    found = late.align_result(noise(120), result_of(*segments, duration=120.0))
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= 120.0 and len(times) == 12


# --- with a family


def asr(answer: str = "language English<asr_text>One two. Three.") -> Qwen3Asr:
    return Qwen3Asr(core_model(lambda call: answer), name="scripted")


@pytest.mark.usefixtures("no_core")
def test_a_family_with_an_aligner_gives_words() -> None:
    told: list[Progress] = []
    result = asr().transcribe(
        noise(50), window_seconds=20.0, timestamps="word", align=aligner(), progress=told.append
    )
    assert [word.text for word in result.words] == ["One", "two.", "Three."] * len(result.segments[::2])
    assert all("estimated_times" not in segment.flags for segment in result.segments)
    starts = [word.start for word in result.words]
    assert starts == sorted(starts) and starts[0] == 0.8
    done = [progress.done_s for progress in told]
    assert done == sorted(done) and done[-1] == pytest.approx(50.0) and max(done[:-3]) <= 50 * 0.76


@pytest.mark.usefixtures("no_core")
def test_windows_are_aligned_in_their_own_language() -> None:
    answers = iter(["language Swedish<asr_text>Hej då.", "language Chinese<asr_text>你好。"])
    model = Qwen3Asr(core_model(lambda call: next(answers)), name="scripted")
    result = model.transcribe(noise(40), window_seconds=20.0, align=aligner())
    swedish, chinese = result.segments
    assert swedish.words is None and "unaligned" in swedish.flags
    assert [word.text for word in chinese.words or ()] == ["你", "好。"]


@pytest.mark.usefixtures("no_core")
def test_an_aligner_is_loaded_once_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Any, ...]] = []

    def load(*arguments: Any) -> ForcedAligner:
        loaded.append(arguments)
        return aligner()

    monkeypatch.setattr(aligner_module, "load_aligner", load)
    model = asr()
    for _ in range(2):
        assert model.transcribe(noise(3), align="some.gguf").words
    assert loaded == [("some.gguf", "CPU", 1)]


def test_names_are_public() -> None:
    for name in ("ForcedAligner", "PartialText", "QwenOptions", "load_aligner"):
        assert getattr(rustasr, name).__name__ == name and name in rustasr.__all__
