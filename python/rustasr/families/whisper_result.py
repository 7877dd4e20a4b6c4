"""Drafts to the segments that a caller sees: times in order, words, confidence, doubts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from rustasr.alignment import Ends, settle
from rustasr.types import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rustasr.families.whisper_words import Draft
    from rustasr.tokenizer import WhisperTokenizer

REPEATS = 4  # so many equal segments in a row are a loop of the decoder, not speech


class Collector:
    """Gathers the segments of one recording; `duration` (s) bounds their times."""

    def __init__(self, tokenizer: WhisperTokenizer, *, word_timestamps: bool = False) -> None:
        self.segments: list[Segment] = []
        self.duration = math.inf
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._word_timestamps = word_timestamps
        self._ends = Ends()

    def add(self, drafts: Sequence[Draft]) -> None:
        """Take the next drafts; their times are put in order in place."""
        settle(drafts, self.duration, self._ends)
        for draft in drafts:
            self._tokens += draft.tokens
            self.segments.append(self._segment(draft))

    @property
    def text(self) -> str:
        """All text, decoded at once: a character may be spread over two segments."""
        return self._tokenizer.text(self._tokens).strip()

    def finished(self) -> tuple[Segment, ...]:
        """The segments, with loops across segments flagged."""
        return flag_loops(self.segments)

    def _segment(self, draft: Draft) -> Segment:
        decoding = draft.decoding
        words = tuple(Word(word.start, word.end, word.text.strip(), word.probability) for word in draft.words)
        return Segment(
            start=draft.start,
            end=draft.end,
            text=draft.text.strip(),
            words=words if self._word_timestamps else None,
            confidence=math.exp(min(0.0, decoding.avg_logprob)),
            tokens=tuple(draft.tokens),
            temperature=decoding.temperature,
            avg_logprob=decoding.avg_logprob,
            compression_ratio=decoding.compression_ratio,
            no_speech_prob=decoding.no_speech_prob,
            flags=decoding.flags,
        )


def flag_loops(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Flag runs of equal segments with "repetition"."""
    flagged, first = list(segments), 0
    for i in range(1, len(flagged) + 1):
        if i < len(flagged) and _plain(flagged[i]) == _plain(flagged[first]):
            continue
        if i - first >= REPEATS:
            for j in range(first, i):
                flagged[j] = _with_flag(flagged[j], "repetition")
        first = i
    return tuple(flagged)


def _with_flag(segment: Segment, flag: str) -> Segment:
    return segment if flag in segment.flags else replace(segment, flags=(*segment.flags, flag))


def _plain(segment: Segment) -> str:
    return "".join(character for character in segment.text.lower() if character.isalnum())


__all__ = ["Collector", "flag_loops"]
