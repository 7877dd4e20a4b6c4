"""The error rate of the benchmarks: its counts are jiwer's, its normaliser does what it says."""

from __future__ import annotations

import jiwer
import pytest
import wer
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from("a b c d e".split()), min_size=1, max_size=12)


@given(WORDS, WORDS)
def test_counts_equal_jiwer(reference: list[str], hypothesis: list[str]) -> None:
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    ours = wer.word_errors(" ".join(reference), " ".join(hypothesis))
    assert ours.words == len(reference)
    assert ours.rate == pytest.approx(theirs.wer)
    assert ours.insertions - ours.deletions == theirs.insertions - theirs.deletions


def test_counts_add_up_over_clips() -> None:
    total = wer.word_errors("a b c", "a x c") + wer.word_errors("d", "d e")
    assert (total.words, total.substitutions, total.insertions, total.deletions) == (4, 1, 1, 0)
    assert total.rate == 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't — STOP!", ["dont", "stop"]),
        ("Ёлка, ещё", ["елка", "еще"]),
        ("70% of R&D", ["70", "percent", "of", "r", "and", "d"]),
        ("[music] <noise> (really) yes", ["really", "yes"]),
        ("ｆｕｌｌ　width", ["full", "width"]),
        ("i.e. well-known", ["i", "e", "well", "known"]),
        ("", []),
    ],
)
def test_normaliser(text: str, words: list[str]) -> None:
    assert wer.normalize(text) == words


def test_an_empty_reference() -> None:
    assert wer.word_errors("", "").rate == 0
    assert wer.word_errors("", "word").rate == 1
