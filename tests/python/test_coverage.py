"""Coverage: all speech is accounted for, with text or as a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.coverage import SLACK_S, coverage, with_coverage
from rustasr.types import Coverage, Segment, TranscriptionResult, Word


def segment(start: float, end: float, *words: tuple[float, float], text: str = "text") -> Segment:
    timed = tuple(Word(a, b, "word", 1.0) for a, b in words)
    return Segment(start, end, text, timed or None)


def test_words_cover_speech_and_pauses_between_them_do_not_count() -> None:
    found = coverage([(1.0, 4.0), (6.0, 9.0)], [segment(1, 4, (1.2, 1.8), (2.4, 3.8)), segment(6, 9)])
    assert found == Coverage(6.0, 6.0, ())
    assert found.share == 1.0


def test_speech_without_text_is_a_gap_when_it_is_long_enough() -> None:
    heard = [(0.0, 10.0), (20.0, 21.5), (30.0, 30.9)]
    found = coverage(heard, [segment(0, 10, (0, 3), (7, 10))])
    assert found.speech_seconds == pytest.approx(12.4)
    assert found.text_seconds == pytest.approx(7.0)
    assert found.gaps == ((3.5, 6.5), (20.0, 21.5))
    assert coverage(heard, [segment(0, 10)], shortest_gap_s=0.5).gaps == ((20.0, 21.5), (30.0, 30.9))


def test_empty_text_and_empty_words_cover_nothing() -> None:
    empty = Segment(0, 5, "  ", None)
    blank = Segment(5, 9, "x", (Word(5, 9, " ", 1.0), Word(8, 9, "x", 1.0)))
    assert coverage([(0, 9)], [empty, blank]).gaps == ((0, 7.5),)


def test_no_speech_is_wholly_covered() -> None:
    assert coverage([], [segment(0, 1)]) == Coverage(0, 0)
    assert coverage([], []).share == 1.0


def test_gaps_are_flagged_in_the_result() -> None:
    result = TranscriptionResult("text", (segment(0, 2),), "en", 60.0, 1.0, "m", warnings=("first",))
    covered = with_coverage(result, [(0.0, 2.0)])
    assert covered.coverage == Coverage(2.0, 2.0)
    assert covered.warnings == ("first",)
    flagged = with_coverage(result, [(0.0, 2.0), *((t, t + 1.5) for t in range(10, 52, 7))])
    assert flagged.coverage is not None
    assert len(flagged.coverage.gaps) == 6
    assert flagged.warnings == (
        "first",
        "9.0 s of speech have no text: 10.0 to 11.5, 17.0 to 18.5, 24.0 to 25.5, 31.0 to 32.5, "
        "38.0 to 39.5 s and 1 more",
    )


times = st.integers(0, 400).map(lambda tenths: tenths / 10)
spans = st.lists(st.tuples(times, times).map(lambda pair: (min(pair), max(pair))), max_size=8)


@given(spans, spans)
def test_every_moment_of_speech_has_text_or_has_none(
    heard: list[tuple[float, float]], written: list[tuple[float, float]]
) -> None:
    segments = [segment(start, end) for start, end in written]
    found = coverage(heard, segments, shortest_gap_s=0.0)

    def inside(moment: float, spans: list[tuple[float, float]], slack: float = 0.0) -> bool:
        return any(a - slack < moment < b + slack and a < b for a, b in spans)

    grid = [step / 10 + 0.05 for step in range(410)]
    in_speech = [moment for moment in grid if inside(moment, heard)]
    bare = [m for m in in_speech if not any(a - SLACK_S < m < b + SLACK_S for a, b in written)]
    assert found.speech_seconds == pytest.approx(len(in_speech) / 10, abs=1e-6)
    assert found.text_seconds == pytest.approx((len(in_speech) - len(bare)) / 10, abs=1e-6)
    assert [moment for moment in grid if inside(moment, list(found.gaps))] == bare
    assert all(a[1] < b[0] for a, b in zip(found.gaps, found.gaps[1:], strict=False))
