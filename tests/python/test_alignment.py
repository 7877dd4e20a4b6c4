"""Words from token times: the rules one by one, and what must hold whatever the model said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.alignment import (
    Ends,
    WordTiming,
    assign_words,
    merge_punctuation,
    settle,
    shorten_sentence_ends,
    typical_duration,
    word_timings,
)
from rustasr.families.whisper_options import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS


@dataclass
class Piece:
    start: float
    end: float
    words: list[WordTiming] = field(default_factory=list)


def word(text: str, start: float, end: float, probability: float = 0.9) -> WordTiming:
    return WordTiming(text, [len(text)], start, end, probability)


def assign(
    segments: list[Piece], words: list[WordTiming], counts: list[int], offset: float = 0.0, last: float = 0.0
) -> float:
    return assign_words(
        segments,
        counts,
        words,
        offset=offset,
        last_speech=last,
        prepended=PREPEND_PUNCTUATIONS,
        appended=APPEND_PUNCTUATIONS,
    )


# --- one rule at a time -----------------------------------------------------------------------------------


def test_a_word_spans_its_tokens_and_takes_their_mean_probability() -> None:
    found = word_timings([(" one", [1, 2]), (" two", [3])], [0.5, 1.0, 0.25], [0.0, 0.2, 0.4, 0.9])
    assert found == [WordTiming(" one", [1, 2], 0.0, 0.4, 0.75), WordTiming(" two", [3], 0.4, 0.9, 0.25)]


@pytest.mark.parametrize(("n_probabilities", "n_times"), [(2, 4), (3, 3), (4, 4), (3, 5)])
def test_counts_that_disagree_are_refused(n_probabilities: int, n_times: int) -> None:
    with pytest.raises(ValueError, match="expected 3 probabilities and 4 times"):
        word_timings([(" one", [1, 2]), (" two", [3])], [0.5] * n_probabilities, [0.0] * n_times)


def test_the_typical_duration_leaves_empty_words_out_and_has_a_ceiling() -> None:
    assert typical_duration([]) == 0.0
    assert typical_duration([word("a", 1, 1)]) == 0.0
    assert typical_duration([word("a", 0, 0.2), word("b", 1, 1), word("c", 1, 1.4)]) == pytest.approx(0.3)
    assert typical_duration([word("a", 0, 5)]) == 0.7


def test_a_pause_does_not_belong_to_the_full_stop_nor_to_the_word_after_it() -> None:
    words = [word(" yes", 0, 0.4), word(".", 0.4, 3.0), word(" So", 3.0, 9.0), word(" long", 9.0, 12.0)]
    shorten_sentence_ends(words, 0.8)
    assert [w.start for w in words] == pytest.approx([0, 0.4, 8.2, 9.0])
    assert [w.end for w in words] == pytest.approx([0.4, 1.2, 9.0, 12.0])


def test_punctuation_joins_its_word_and_the_word_keeps_its_times() -> None:
    words = [
        word(' "', 0, 0.1),
        word(" Yes", 0.1, 0.5),
        word(",", 0.5, 0.6),
        word('"', 0.6, 0.7),
        word(" he", 0.7, 1.0),
    ]
    merge_punctuation(words, PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS)
    assert [w.text for w in words] == ["", ' " Yes,"', "", "", " he"]
    assert (words[1].start, words[1].end) == (0.1, 0.5)
    assert words[1].tokens == [2, 4, 1, 1]


def test_an_opening_mark_without_a_space_stays_with_the_word_before() -> None:
    words = [word(" well", 0, 0.4), word("-", 0.4, 0.5), word("known", 0.5, 0.9)]
    merge_punctuation(words, PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS)
    assert [w.text for w in words] == [" well", "-", "known"]


def test_words_go_to_the_segment_that_holds_their_tokens() -> None:
    segments = [Piece(10.0, 11.0), Piece(11.0, 12.0)]
    words = [word(" a", 0.0, 0.3), word(" b", 0.3, 0.6), word(" c", 1.2, 1.5)]
    last = assign(segments, words, [2, 1], offset=10.0, last=10.0)
    assert [[w.text for w in s.words] for s in segments] == [[" a", " b"], [" c"]]
    assert [(s.start, s.end) for s in segments] == [(10.0, 10.6), (11.2, 11.5)]
    assert last == 11.5


def test_the_first_words_after_a_pause_do_not_stretch_over_it() -> None:
    # Median 0.3, so the longest credible word is 0.6 s.
    words = [word(" a", 0.0, 8.0), word(" b", 8.0, 8.3), word(" c", 8.3, 8.6), word(" d", 8.6, 8.9)]
    segment = Piece(0.0, 9.0)
    assign([segment], words, [4])
    assert (segment.words[0].start, segment.words[0].end) == (pytest.approx(7.4), 8.0)


def test_two_long_words_after_a_pause_share_a_boundary() -> None:
    words = [
        word(" a", 0.0, 4.0),
        word(" b", 4.0, 9.0),
        word(" c", 9.0, 9.3),
        word(" d", 9.3, 9.6),
        word(" e", 9.6, 9.9),
    ]
    segment = Piece(0.0, 10.0)
    assign([segment], words, [5])
    first, second = segment.words[:2]
    assert first.end == second.start == pytest.approx(9.0 - 0.6)
    assert first.start == pytest.approx(9.0 - 1.2)


def test_a_word_that_reaches_far_over_the_segment_is_cut_by_it() -> None:
    words = [word(" a", 0.0, 1.0), word(" b", 1.0, 1.3), word(" c", 1.3, 5.0)]
    segment = Piece(0.8, 1.6)
    assign([segment], words, [3], last=0.5)
    typical = 0.7
    assert segment.start == 0.8
    assert segment.words[0].start == pytest.approx(min(1.0 - typical, 0.8))
    assert segment.end == 1.6
    assert segment.words[-1].end == pytest.approx(1.3 + typical)


def test_times_are_rounded_to_hundredths_of_the_recording() -> None:
    segment = Piece(0.0, 1.0)
    assign([segment], [word(" a", 0.017, 0.333)], [1], offset=100.0, last=100.0)
    assert (segment.words[0].start, segment.words[0].end) == (100.02, 100.33)


def test_settling_leaves_good_times_alone() -> None:
    segments = [Piece(0.5, 1.25, [word("a", 0.4, 0.75), word("b", 0.75, 1.25)]), Piece(1.25, 2.0)]
    wanted = [replace(s, words=[replace(w) for w in s.words]) for s in segments]
    ends = Ends()
    settle(segments, 2.0, ends)
    assert segments == wanted
    assert ends == Ends(2.0, 1.25)


def test_settling_ends_at_the_end_of_the_recording() -> None:
    segments = [Piece(0.0, 3.0), Piece(3.0, 4.0)]
    settle(segments, 2.925, Ends())
    assert [(s.start, s.end) for s in segments] == [(0.0, 2.925), (2.925, 2.925)]


# --- what always holds ------------------------------------------------------------------------------------

SECONDS = st.floats(-5.0, 40.0, allow_nan=False)
WORDS = st.sampled_from([" a", " word", ".", ",", ' "', '"', "-", " (", ")", "ing", " ", "?", "語", "。", ""])


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[tuple[str, list[int]]], list[float], list[float]]:
    """Words with their tokens, a probability for each token, and rising times."""
    words = draw(st.lists(st.tuples(WORDS, st.integers(1, 3)), max_size=12))
    tokens = iter(range(1000))
    pieces = [(text, [next(tokens) for _ in range(n)]) for text, n in words]
    count = sum(n for _, n in words)
    times = sorted(draw(st.lists(st.integers(0, 1500), min_size=count + 1, max_size=count + 1)))
    probabilities = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    return pieces, probabilities, [t / 50 for t in times]


@given(windows(), st.data())
def test_every_token_of_a_window_is_in_one_word(
    window: tuple[list[tuple[str, list[int]]], list[float], list[float]], data: st.DataObject
) -> None:
    pieces, probabilities, times = window
    words = word_timings(pieces, probabilities, times)
    cut = data.draw(st.integers(0, len(pieces)))
    counts = [sum(len(tokens) for _, tokens in part) for part in (pieces[:cut], pieces[cut:])]
    segments = [Piece(0.0, 15.0), Piece(15.0, 30.0)]
    offset = data.draw(st.floats(0, 1000))
    assign(segments, words, counts, offset=offset, last=data.draw(st.floats(0, 1000)))

    text = "".join(w.text for s in segments for w in s.words)
    assert sorted(text) == sorted("".join(text for text, _ in pieces))
    kept = [token for s in segments for w in s.words for token in w.tokens]
    assert kept == [token for w in words if w.text for token in w.tokens]
    for segment in segments:
        for one in segment.words:
            assert 0.0 <= one.probability <= 1.0


@given(
    st.lists(st.tuples(SECONDS, SECONDS, st.lists(st.tuples(SECONDS, SECONDS), max_size=4)), max_size=6),
    st.floats(0.0, 35.0),
    st.floats(0.0, 5.0),
)
def test_settled_times_never_overlap_nor_leave_the_recording(
    spans: list[tuple[float, float, list[tuple[float, float]]]], duration: float, after: float
) -> None:
    segments = [Piece(start, end, [word("w", s, e) for s, e in inner]) for start, end, inner in spans]
    ends = Ends(min(after, duration), min(after, duration))
    rows = [(ends.segment, segments), (ends.word, [w for s in segments for w in s.words])]
    settle(segments, duration, ends)
    for at, row in rows:
        for span in row:
            assert at <= span.start <= span.end <= duration
            at = span.end
    assert ends.segment == (segments[-1].end if segments else min(after, duration))


@given(windows())
def test_merging_punctuation_loses_no_text_and_no_token(
    window: tuple[list[tuple[str, list[int]]], list[float], list[float]],
) -> None:
    words = word_timings(*window)
    tokens = [token for w in words for token in w.tokens]
    text = "".join(w.text for w in words)
    merge_punctuation(words, PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS)
    assert "".join(w.text for w in words) == text
    assert [token for w in words for token in w.tokens] == tokens
