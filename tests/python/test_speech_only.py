"""What a detector heard, how sure it was, and the flags that text gets where nobody may have spoken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.speech_only import Speech, doubted, find_speech
from rustasr.types import Segment, Word
from rustasr.vad import SileroVad, Span


class Graded:
    """A detector with what it says."""

    def __init__(self, *graded: tuple[Span, float]) -> None:
        self.found = list(graded)

    def speech(self, blocks: Iterable[Any]) -> list[Span]:
        return [span for span, _ in self.graded(blocks)]

    def graded(self, blocks: Iterable[Any]) -> list[tuple[Span, float]]:
        return self.found


def test_what_a_detector_is_never_sure_of_is_in_doubt() -> None:
    vad = Graded((Span(0, 16000), 0.999), (Span(32000, 40000), 0.9))
    speech = find_speech(vad, [np.zeros(48000, np.float32)])
    assert speech == Speech((Span(0, 16000), Span(32000, 40000)), 48000, (Span(32000, 40000),))
    assert speech.sure.spans == (Span(0, 16000),)
    cut = speech.within([(8000, 36000)])
    assert cut.spans == (Span(8000, 16000), Span(32000, 36000))
    assert cut.sure.spans == (Span(8000, 16000),)


def test_a_detector_without_probabilities_is_believed() -> None:
    class Plain:
        def speech(self, blocks: Iterable[Any]) -> list[Span]:
            return [Span(0, 16000)]

    assert find_speech(Plain(), [np.zeros(16000, np.float32)]).doubtful == ()


def test_silero_grades_its_spans_by_the_highest_probability_in_them() -> None:
    track = [0.1] * 10 + [0.6] * 15 + [0.1] * 10 + [0.7] * 9 + [0.99] * 2 + [0.7] * 9 + [0.1] * 9
    vad = SileroVad(lambda blocks: [*map(float, track)] if sum(len(b) for b in blocks) else [])
    graded = vad.graded([np.zeros(64 * 512, np.float32)])
    assert [round(highest, 3) for _, highest in graded] == [0.6, 0.99]
    assert vad.speech([np.zeros(64 * 512, np.float32)]) == [span for span, _ in graded]


def segment(*times: tuple[float, float], flags: tuple[str, ...] = ()) -> Segment:
    words = tuple(Word(start, end, f"w{n}", 0.9) for n, (start, end) in enumerate(times))
    return Segment(times[0][0], times[-1][1], " ".join(w.text for w in words), words, flags=flags)


def test_words_far_from_sure_speech_stand_by_themselves_with_a_flag() -> None:
    talk = segment((1.0, 1.4), (1.5, 2.0), (5.3, 6.2), flags=("low_confidence",))
    near, far = doubted([talk], [(0.8, 2.1)])
    assert (near.text, near.flags) == ("w0 w1", ("low_confidence",))
    assert (far.text, far.flags) == ("w2", ("low_confidence", "no_speech"))
    assert (far.start, far.end) == (5.3, 6.2)


def test_segments_without_word_times_are_judged_as_a_whole() -> None:
    near, far = Segment(1.0, 9.0, "near", None), Segment(4.0, 9.0, "far", None)
    assert [s.flags for s in doubted([near, far], [(0.0, 2.0)])] == [(), ("no_speech",)]
    assert [s.flags for s in doubted([near], [])] == [("no_speech",)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3)), max_size=12),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 5)), max_size=5),
)
def test_no_word_is_lost_and_flags_are_where_no_speech_is(
    words: list[tuple[float, float]], speech: list[tuple[float, float]]
) -> None:
    sure, end = list[tuple[float, float]](), 0.0
    for gap, length in speech:
        sure.append((end + gap, end + gap + length))
        end = sure[-1][1]
    given_words = sorted((start, start + length) for start, length in words)
    found = list(doubted([segment(*given_words)] if given_words else [], sure))
    assert [(w.start, w.end) for s in found for w in s.words or ()] == given_words
    for part in found:
        for word in part.words or ():
            near = any(low <= word.end + 0.5 and high >= word.start - 0.5 for low, high in sure)
            assert near == ("no_speech" not in part.flags)
