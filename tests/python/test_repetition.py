"""Loops are found whatever the family, language or length of the pattern; what people say is none."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.repetition import LEAST_WORDS, REPEATS, flagged, loops, repeats, words_of
from rustasr.types import Segment


@pytest.mark.parametrize(
    "text",
    [
        "I am. " * 4,
        "and then I'm going to go to the store " * 4,
        "No! " * 8,
        "so " + "ха-ха " * 4,
        "а" * 12,
        "ха" * 10,
        "谢谢大家" * 4,
        "ขอบคุณ" * 4,
    ],
)
def test_loops(text: str) -> None:
    assert repeats(text)
    assert repeats(f"at first there was sense {text} and at last again")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no, no, no, no, no, no, no",
        "thank you thank you thank you",
        "one two three one two three one two three",
        "a million is 1000000000000",
        "She sells sea shells by the sea shore. The shells she sells are sea shells.",
        "谢谢谢谢",
    ],
)
def test_what_people_say(text: str) -> None:
    assert not repeats(text)


@pytest.mark.shared
def test_no_transcript_of_real_speech_has_a_loop(shared_audio: Path) -> None:
    csv.field_size_limit(sys.maxsize // 2)
    with open(shared_audio / "MANIFEST.tsv", encoding="utf-8") as file:
        texts = [row["reference"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    texts += [path.read_text(encoding="utf-8") for path in sorted((shared_audio / "long").glob("*.txt"))]
    assert sum(len(words_of(text)) for text in texts) > 9000
    assert [text for text in texts if repeats(text)] == []


words = st.lists(st.sampled_from("abcdefgh"), max_size=12)


@given(words, st.lists(st.sampled_from("pqrst"), min_size=1, max_size=9), st.integers(4, 12), words)
def test_a_planted_loop_is_found_whole(
    before: list[str], pattern: list[str], n: int, after: list[str]
) -> None:
    planted = pattern * n
    found = loops([*before, *planted, *after])
    if len(planted) < max(LEAST_WORDS, REPEATS * len(pattern)):
        return
    first, end = len(before), len(before) + len(planted)
    assert any(a <= first and end <= b for a, b in found)
    assert all(not (a < first and b <= first) or repeats(" ".join(before)) for a, b in found)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60))
def test_words_that_differ_are_no_loop(numbers: list[int]) -> None:
    assert loops([f"w{n}" for n in numbers]) == []


def segments(*texts: str) -> list[Segment]:
    return [Segment(n, n + 1, text) for n, text in enumerate(texts)]


def test_a_loop_over_segments_is_flagged_in_all_of_them() -> None:
    found = flagged(segments("a b", "I said", "that I said", "that I said", "that I said that", "c"))
    assert [bool(s.flags) for s in found] == [False, True, True, True, True, False]
    found = flagged(segments("a", "Thank you.", "thank you", "Thank you!", "Thank you.", "b", "b", "b"))
    assert [s.flags for s in found] == [()] + [("repetition",)] * 4 + [()] * 3
    assert flagged([]) == ()
    assert flagged(segments("", "", "", "", "")) == tuple(segments("", "", "", "", ""))
