"""What deserves a second look, and what of it is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rustasr.audio import SAMPLE_RATE
from rustasr.second_look import HEARD_AGAIN, LONGEST_S, Stretch, second_look, stretches
from rustasr.segments import joined
from rustasr.types import Coverage, Segment, Token, TranscriptionResult, Word


def result(*segments: Segment, gaps: tuple[tuple[float, float], ...] = ()) -> TranscriptionResult:
    text = " ".join(segment.text for segment in segments)
    coverage = Coverage(100.0, 50.0, gaps) if gaps else None
    return TranscriptionResult(text, segments, "en", 60.0, 1.0, "m", coverage=coverage)


def loop(start: float, end: float, text: str = "la la la la la la la la") -> Segment:
    return Segment(start, end, text, flags=("repetition",))


class Listener:
    """Answers attempts in turn; remembers what it was given. Every sample tells its place (s)."""

    def __init__(self, *answers: list[Segment]) -> None:
        self.answers = list(answers)
        self.heard: list[tuple[float, float, float]] = []  # silence in front, first and last second

    def __call__(self, stretch: Stretch, samples: Any) -> TranscriptionResult:
        sound = samples[samples > 0]
        lead = (len(samples) - len(sound)) / SAMPLE_RATE
        self.heard.append((round(lead, 3), round(float(sound[0]), 2), round(float(sound[-1]), 2)))
        return result(*self.answers.pop(0))


def blocks() -> list[Any]:
    place = (np.arange(60 * SAMPLE_RATE, dtype=np.float64) + 1) / SAMPLE_RATE
    return np.array_split(place.astype(np.float32), 7)


def test_gaps_and_loops_are_looked_at_in_the_order_of_time() -> None:
    found = stretches(
        result(
            Segment(0, 1, "a"), loop(20, 25), loop(25, 30), Segment(30, 31, "b"), loop(40, 41), gaps=((5, 8),)
        )
    )
    assert found == [Stretch(5, 8), Stretch(20, 30, 1, 3), Stretch(40, 41, 4, 5)]
    assert stretches(result(Segment(0, 1, "a"))) == []
    assert stretches(result(loop(20, 25), gaps=((5, 8),)), loops=False) == [Stretch(5, 8)]


def test_long_stretches_are_cut() -> None:
    assert [s.end - s.start for s in stretches(result(gaps=((0.0, 900.0),)))] == [300.0] * 3
    found = stretches(result(*(loop(60.0 * n, 60.0 * n + 60) for n in range(12))))
    assert all(stretch.end - stretch.start <= LONGEST_S for stretch in found)
    assert [(stretch.first, stretch.last) for stretch in found] == [(0, 5), (5, 10), (10, 12)]


def test_text_in_a_gap_is_taken_with_the_recordings_times() -> None:
    words = (Word(0.1, 0.6, "new", 0.9), Word(0.7, 3.9, "text", 0.9))
    new = Segment(0.0, 3.9, "new text", words, timed_tokens=(Token(1, "new", 0.1, 0.6, 1.0),))
    listener = Listener([new])
    before = result(Segment(0, 4, "first"), Segment(20, 24, "last"), gaps=((10.0, 13.0),))
    found = second_look(before, blocks(), listener)
    assert listener.heard == [(0.0, 9.8, 13.2)]
    assert found.text == "first new text last"
    assert [s.start for s in found.segments] == [0, 10.0, 20]
    middle = found.segments[1]
    assert middle.flags == (HEARD_AGAIN,)
    assert [(w.start, w.end) for w in middle.words or ()] == [(10.0, 10.4), (10.5, 13.0)]
    assert middle.timed_tokens == (Token(1, "new", 10.0, 10.4, 1.0),)


def test_a_doubtful_answer_is_asked_again_behind_silence() -> None:
    doubtful = Segment(0, 1, "well", flags=("low_confidence",))
    listener = Listener([doubtful], [Segment(1.2, 2.0, "well")])
    found = second_look(result(gaps=((10.0, 13.0),)), blocks(), listener)
    assert listener.heard == [(0.0, 9.8, 13.2), (1.0, 9.8, 13.2)]
    assert [(s.start, s.end, s.text) for s in found.segments] == [(10.0, 10.8, "well")]


@pytest.mark.parametrize("flag", ["low_confidence", "no_speech", "repetition", "truncated"])
def test_what_is_no_better_changes_nothing(flag: str) -> None:
    doubtful = [Segment(0, 1, "well", flags=(flag,))]
    before = result(Segment(0, 4, "first"), loop(5, 9), gaps=((10.0, 13.0),))
    assert second_look(before, blocks(), Listener(doubtful, doubtful, doubtful, doubtful)) == before
    assert second_look(before, blocks(), Listener([], [], [], [])) == before


def test_a_loop_is_replaced_as_a_whole() -> None:
    listener = Listener([Segment(0.5, 4, "real words"), Segment(4, 9.9, "and more")])
    before = result(Segment(0, 5, "first"), loop(5, 10), loop(10, 14), Segment(14, 15, "last"))
    found = second_look(before, blocks(), listener)
    assert listener.heard == [(0.0, 5.0, 14.0)]
    assert found.text == "first real words and more last"
    assert [(s.start, s.end) for s in found.segments] == [(0, 5), (5.5, 9), (9, 14), (14, 15)]
    assert [s.flags for s in found.segments] == [(), (HEARD_AGAIN,), (HEARD_AGAIN,), ()]


def test_nothing_is_read_where_nothing_is_wrong() -> None:
    def never() -> Any:
        raise AssertionError("read")
        yield

    fine = result(Segment(0, 5, "first"))
    assert second_look(fine, never(), Listener()) is fine


def test_texts_are_joined_as_their_language_is_written() -> None:
    chinese = [Segment(0, 1, "你好", language="zh"), Segment(1, 2, "世界", language="zh")]
    assert joined([*chinese, Segment(2, 3, "yes", language="en")], "") == "你好世界 yes"
    assert joined(chinese[:1] * 2, "zh") == "你好你好"
    assert joined([], "en") == ""
