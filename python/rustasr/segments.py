"""Segments cut at words, and the text of many."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from rustasr.tokenizer import UNSPACED_LANGUAGES
from rustasr.types import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rustasr.types import Word


def split(segment: Segment, cuts: Sequence[int]) -> list[Segment]:
    """The segment cut before the words at `cuts`, which rise from 1. Its text is cut, not written anew;
    what the decoder said about the whole (tokens without times) goes with no part.
    """
    if not cuts or segment.words is None:
        return [segment]
    places = _places(segment)
    borders = list(itertools.pairwise([0, *cuts, len(segment.words)]))
    parts = list[Segment]()
    for first, last in borders:
        words = segment.words[first:last]
        text = " ".join(word.text.strip() for word in words)
        if places is not None:
            text = segment.text[places[first] if first else 0 : places[last] if last < len(places) else None]
        start = words[0].start if first else segment.start
        end = words[-1].end if last < len(segment.words) else segment.end
        parts.append(_part(segment, words, text.strip(), start, end))
    return parts


def _places(segment: Segment) -> list[int] | None:
    """Where in the segment's text each word begins; None where text and words disagree."""
    places, at = list[int](), 0
    for word in segment.words or ():
        at = segment.text.find(word.text.strip(), at)
        if at < 0:
            return None
        places.append(at)
        at += len(word.text.strip())
    return places


def _part(segment: Segment, words: Sequence[Word], text: str, start: float, end: float) -> Segment:
    timed = segment.timed_tokens
    if timed is not None:
        timed = tuple(token for token in timed if start <= (token.start + token.end) / 2 < end)
    return replace(
        segment,
        start=start,
        end=max(start, end),
        text=text,
        words=tuple(words),
        tokens=() if timed is None else tuple(token.id for token in timed),
        timed_tokens=timed,
        confidence=sum(word.confidence for word in words) / len(words),
    )


def joined(segments: Iterable[Segment], language: str) -> str:
    """The text of segments; those of languages that write no spaces between words follow each other."""
    text, before = "", ""
    for segment in segments:
        piece = segment.text.strip()
        if not piece:
            continue
        code = segment.language or language
        glued = not text or (before in UNSPACED_LANGUAGES and code in UNSPACED_LANGUAGES)
        text += piece if glued else f" {piece}"
        before = code
    return text


__all__ = ["joined", "split"]
