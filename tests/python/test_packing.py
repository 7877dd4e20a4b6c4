"""Speech alone: nothing of it is lost or read twice, and every word goes back to where it was said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.audio import SAMPLE_RATE, ArraySource, open_audio
from rustasr.packing import GAP_S, MARGIN_S, PackedSource
from rustasr.types import Segment, Token, TranscriptionResult, Word
from rustasr.vad import Span

Array = np.ndarray[Any, Any]
SCALE = 1024  # each sample tells its place, from 1: place / SCALE, exact and within the range of samples
GAP, MARGIN = round(GAP_S * SAMPLE_RATE), round(MARGIN_S * SAMPLE_RATE)


def seconds(*spans: tuple[float, float]) -> list[Span]:
    return [Span(round(a * SAMPLE_RATE), round(b * SAMPLE_RATE)) for a, b in spans]


def packed(speech: list[Span], length_s: float = 60.0, block_s: float = 10.0) -> PackedSource:
    class Cut(ArraySource):
        def blocks(self, _: float) -> Any:
            return super().blocks(block_s)

    return PackedSource(
        Cut(np.arange(1, round(length_s * SAMPLE_RATE) + 1, dtype=np.float32) / SCALE), speech
    )


speech_spans = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 80)), max_size=6).map(
    lambda pairs: seconds(*((start / 10, (start + length) / 10) for start, length in pairs))
)


@settings(deadline=None, max_examples=60)
@given(speech_spans, st.floats(0.3, 70), st.floats(0.2, 70))
def test_speech_comes_out_once_and_in_order(speech: list[Span], block_s: float, out_s: float) -> None:
    source = packed(speech, 57.0, block_s)
    blocks = list(source.blocks(out_s))
    assert all(len(block) == round(out_s * SAMPLE_RATE) for block in blocks[:-1])
    samples = np.concatenate(blocks) if blocks else np.zeros(0)
    numbers = (samples[samples > 0] * SCALE).astype(int) - 1
    assert len(numbers) < 2 or np.diff(numbers).min() > 0
    wanted = np.zeros(57 * SAMPLE_RATE, bool)
    for span in speech:
        wanted[max(0, span.start - MARGIN) : span.end + MARGIN] = True
    assert wanted[numbers].sum() == wanted.sum(), "all speech, with its margin"
    heard = np.zeros(57 * SAMPLE_RATE, bool)
    for span in source.regions:
        heard[span.start : span.end] = True
    assert np.array_equal(np.flatnonzero(heard), numbers)
    assert (samples == 0).sum() == GAP * len(source.regions)


@settings(deadline=None, max_examples=60)
@given(speech_spans.filter(bool), st.data())
def test_a_moment_of_speech_comes_back_to_itself(speech: list[Span], data: st.DataObject) -> None:
    source = packed(speech)
    samples = np.concatenate(list(source.blocks(100.0)))
    heard = np.flatnonzero(samples)
    place = int(heard[data.draw(st.integers(0, len(heard) - 1))])
    start, end = place / SAMPLE_RATE, (place + 1) / SAMPLE_RATE
    (segment,) = source.segment(Segment(start, end, "a", (Word(start, end, "a", 1.0),)), 60.0)
    assert segment.start * SAMPLE_RATE == pytest.approx(samples[place] * SCALE - 1, abs=0.05)
    (bare,) = source.segment(Segment(start, end, "a"), 60.0)
    assert (bare.start, bare.end) == (segment.start, segment.end)


@settings(deadline=None, max_examples=100)
@given(
    speech_spans.filter(bool),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=12),
)
def test_words_are_kept_rise_and_lie_in_speech(speech: list[Span], steps: list[tuple[int, int, int]]) -> None:
    source = packed(speech)
    now, words = 0.0, list[Word]()
    for pause, length, _ in steps:
        words.append(Word(now + pause / 10, now + (pause + length) / 10, f"w{len(words)}", 1.0))
        now = words[-1].end
    text = " ".join(word.text for word in words)
    result = TranscriptionResult(text, (Segment(0.0, now, text, tuple(words)),), "en", now, 1.0, "m")
    restored = source.restored(result, 60.0)
    assert [word.text for word in restored.words] == [word.text for word in words]
    assert " ".join(segment.text for segment in restored.segments) == text
    now = 0.0
    regions = [(a / SAMPLE_RATE, min(b / SAMPLE_RATE, 60.0)) for a, b in source.regions]
    for segment in restored.segments:
        for word in segment.words or ():
            assert now <= word.start <= word.end
            assert any(a - 1e-6 <= word.start <= word.end <= b + 1e-6 for a, b in regions)
            now = word.end
        assert segment.start <= segment.end


def test_a_segment_over_a_gap_is_split_at_its_words() -> None:
    source = packed(seconds((10, 12), (40, 43)))  # packed: 0 to 2.4 s and 2.9 to 6.3 s
    words = (Word(0.4, 1.0, "one", 0.9), Word(1.2, 2.6, "two", 0.7), Word(2.5, 3.5, "three", 0.5))
    tokens = (Token(7, "one", 0.4, 1.0, 1.0), Token(8, "three", 2.9, 3.4, 1.0))
    segment = Segment(0.2, 3.6, " one  two three.", words, timed_tokens=tokens, tokens=(7, 8))
    first, second = source.segment(segment, 60.0)
    assert (first.text, first.start, first.end) == ("one  two", 10.0, 12.2)
    assert (second.text, second.start, second.end) == ("three.", 39.8, 40.5)
    assert [(w.start, w.end) for w in (*(first.words or ()), *(second.words or ()))] == [
        (10.2, 10.8),
        (11.0, 12.2),
        (39.8, 40.4),
    ]
    assert (first.tokens, second.tokens) == ((7,), (8,))
    assert first.confidence == pytest.approx(0.8)


def test_a_segment_without_words_goes_from_its_first_region_to_its_last() -> None:
    source = packed(seconds((10, 12), (40, 43)))
    assert [(s.start, s.end) for s in source.segment(Segment(1.0, 4.0, "a"), 60.0)] == [(10.8, 40.9)]
    assert [(s.start, s.end) for s in source.segment(Segment(2.6, 4.0, "a"), 60.0)] == [(39.8, 40.9)]
    assert [(s.start, s.end) for s in source.segment(Segment(1.0, 2.7, "a"), 60.0)] == [(10.8, 12.2)]
    assert [(s.start, s.end) for s in source.segment(Segment(2.5, 2.6, "a"), 60.0)] == [(12.2, 12.2)]


def test_near_regions_keep_the_silence_between_them() -> None:
    assert packed(seconds((1, 2), (3.3, 4), (9, 9.5))).regions == seconds((0.8, 4.2), (8.8, 9.7))


def test_times_stay_in_the_recording() -> None:
    source = packed(seconds((58, 60)))
    assert len(np.concatenate(list(source.blocks(10.0)))) == round(2.2 * SAMPLE_RATE) + GAP
    (segment,) = source.segment(Segment(0.0, 9.0, "a", (Word(1.0, 9.0, "a", 1.0),)), 60.0)
    assert (segment.start, segment.end) == (57.8, 60.0)


def test_it_is_an_audio_source() -> None:
    source = packed(seconds((1, 2)))
    assert open_audio(source) is source
    assert source.duration == pytest.approx(1.4 + GAP_S)
