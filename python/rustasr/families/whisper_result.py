"""Drafts to the segments that a caller sees: times in order, words, confidence, doubts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rustasr.alignment import Ends, settle
from rustasr.repetition import flagged
from rustasr.types import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rustasr.families.whisper_words import Draft
    from rustasr.tokenizer import WhisperTokenizer


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
        return flagged(self.segments)

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


__all__ = ["Collector"]
