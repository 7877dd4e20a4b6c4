"""Text that repeats itself as a decoder in a loop does: one rule for every family.

People repeat themselves too ("no, no, no"), so a pattern has to come many times in a row before it is a loop:
REPEATS times and LEAST_WORDS words in all, or REPEATS equal segments, or LETTERS letters of one word.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rustasr.types import Segment

REPETITION = "repetition"  # the flag
REPEATS = 4
LEAST_WORDS = 8
LONGEST_PATTERN = 40  # words
# A word of scripts that have no spaces is one character.
_WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]|\w+(?:['’]\w+)*")
_LETTERS = re.compile(r"([^\W\d_]{1,8}?)\1{9,}")  # ten times in one word


def words_of(text: str) -> list[str]:
    """The words that are compared: lower case, without punctuation."""
    return _WORD.findall(text.lower())


def loops(words: Sequence[str]) -> list[tuple[int, int]]:
    """The stretches (first, end) of `words` that one repeated pattern fills, rising and apart."""
    number = {word: n for n, word in enumerate(dict.fromkeys(words))}
    ids = np.array([number[word] for word in words], np.int64)
    inside = np.zeros(len(words), bool)
    for period in range(1, min(LONGEST_PATTERN, len(words) // REPEATS) + 1):
        least = max(LEAST_WORDS, REPEATS * period)
        same = np.concatenate([[False], ids[period:] == ids[:-period], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1])
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if last - first + period >= least:
                inside[first : last + period] = True
    for n in np.flatnonzero([_LETTERS.search(word) is not None for word in words]):
        inside[n] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.view(np.int8), [0]])))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def repeats(text: str) -> bool:
    """Whether a text holds a loop."""
    return bool(loops(words_of(text)))


def flagged(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The segments, with the flag "repetition" on those that are part of a loop, be it one over many."""
    segments = list(segments)
    own = [words_of(segment.text) for segment in segments]
    owner = [n for n, words in enumerate(own) for _ in words]
    looping = {
        owner[n] for first, end in loops([w for words in own for w in words]) for n in range(first, end)
    }
    looping |= _equal_runs(own)
    return tuple(with_flag(s, REPETITION) if n in looping else s for n, s in enumerate(segments))


def _equal_runs(texts: Sequence[Sequence[str]]) -> set[int]:
    """The members of runs of equal texts."""
    found, first = set[int](), 0
    for n in range(1, len(texts) + 1):
        if n < len(texts) and texts[n] == texts[first]:
            continue
        if n - first >= REPEATS and texts[first]:
            found.update(range(first, n))
        first = n
    return found


def with_flag(segment: Segment, flag: str) -> Segment:
    """The segment with one flag more."""
    return segment if flag in segment.flags else replace(segment, flags=(*segment.flags, flag))


def compression_ratio(text: str) -> float:
    """UTF-8 bytes over zlib-compressed bytes: high when the text repeats itself."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))


__all__ = ["REPETITION", "compression_ratio", "flagged", "loops", "repeats", "with_flag", "words_of"]
