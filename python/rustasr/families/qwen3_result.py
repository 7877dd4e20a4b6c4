"""Answers to the segments that a caller sees: sentences, their share of the window's time, doubts."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr.aligner.pieces import Piece
from rustasr.families.qwen3_text import Answer, code_of, parse
from rustasr.families.qwen3_windows import SpeechClock
from rustasr.tokenizer import UNSPACED_LANGUAGES
from rustasr.types import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rustasr.families.qwen3_decode import Heard
    from rustasr.families.qwen3_options import QwenOptions
    from rustasr.families.qwen3_text import QwenTokenizer

ESTIMATED = "estimated_times"  # flag of segments whose times are shared out, not heard
# An answer opens with the language that is heard, or with "None" where nobody speaks: a model that was less
# sure of this has more likely made up what follows. The small checkpoint of the tests is 0.85 to 1 sure of
# the recordings that it knows, and 0.04 to 0.79 of noise and music about which it tells something.
SURE_OPENING = 0.8
# A sentence ends with its marks and what closes behind them; full-width marks need no space after them.
_SENTENCE_END = re.compile(r"(?:[.?!…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』”’）】]*)")


@dataclass(frozen=True, slots=True)
class _Token:
    """A token of the text with the place of its first character in it."""

    id: int
    place: int
    logprob: float


class Collector:
    """Gathers what the windows of one recording say. `forced` is the model's name of a forced language."""

    def __init__(self, tokenizer: QwenTokenizer, options: QwenOptions, forced: str | None) -> None:
        self.segments: list[Segment] = []
        self.pieces: list[Piece] = []  # the windows, for an aligner
        self._texts: list[tuple[str, str]] = []  # (text, language code)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tokenizer = tokenizer
        self._options = options
        self._forced = forced

    def add(self, heard: Heard) -> str:
        """Take a window's answer; returns its text."""
        answer = parse(self._tokenizer.decode(heard.tokens), self._forced)
        code = code_of(answer.language)
        if not answer.text:
            return ""
        self._seconds[code] += heard.window.duration
        self._texts.append((answer.text, code))
        first = len(self.segments)
        self.segments += self._segments(heard, answer, code)
        window = heard.window
        self.pieces.append(
            Piece(window.offset, window.offset + window.duration, first, len(self.segments), code)
        )
        return answer.text

    @property
    def text(self) -> str:
        """All text. Windows are joined by a space, unless both are in a language that has none.

        The official code joins them by nothing at all, which glues words together.
        """
        joined, before = "", ""
        for text, code in self._texts:
            glued = not joined or (before in UNSPACED_LANGUAGES and code in UNSPACED_LANGUAGES)
            joined += text if glued else f" {text}"
            before = code
        return joined

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that were heard, that of the longest stretch first; "" is left out."""
        return sorted((code for code in self._seconds if code), key=lambda code: -self._seconds[code])

    def _segments(self, heard: Heard, answer: Answer, code: str) -> Iterator[Segment]:
        tokens = self._text_tokens(heard, answer)
        clock = SpeechClock(heard.window)
        timed = self._options.timestamps != "none"
        for first, last in sentences(answer.text) if timed else [(0, len(answer.text))]:
            own = [token for token in tokens if first <= token.place < last]
            mean = _mean([token.logprob for token in own] or list(heard.logprobs))
            window = heard.window
            start, end = (window.offset, window.offset + window.duration)
            if timed:
                start, end = clock.span(first / len(answer.text), last / len(answer.text))
            yield Segment(
                start=round(start, 3),
                end=round(end, 3),
                text=answer.text[first:last].strip(),
                confidence=math.exp(min(0.0, mean)),
                tokens=tuple(token.id for token in own),
                temperature=heard.temperature,
                avg_logprob=mean,
                flags=_flags(heard, answer, timed, unsure=self._is_unsure(heard)),
                language=code or None,
            )

    def _is_unsure(self, heard: Heard) -> bool:
        """Whether the model may have heard no language at all; with a forced one it says nothing of it."""
        if self._forced is not None:
            return False
        opening = heard.logprobs[: self._tokenizer.text_tokens(heard.tokens, forced=False).start]
        return not opening or math.exp(sum(opening)) < SURE_OPENING

    def _text_tokens(self, heard: Heard, answer: Answer) -> list[_Token]:
        """The text's tokens and where they stand in it; none when it was repaired and differs from them."""
        places = self._tokenizer.text_tokens(heard.tokens, forced=self._forced is not None)
        pieces = self._tokenizer.split_on_characters([heard.tokens[i] for i in places])
        written = "".join(text for text, _ in pieces)
        if written.strip() != answer.text:
            return []
        at, tokens = len(written.lstrip()) - len(written), list[_Token]()
        index = places.start
        for text, ids in pieces:
            for token in ids:
                tokens.append(_Token(token, max(0, at), heard.logprobs[index]))
                index += 1
            at += len(text)
        return tokens


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end; together they are the text."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    ends = [end for end in ends if text[end:].strip()] + [len(text)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _flags(heard: Heard, answer: Answer, timed: bool, *, unsure: bool) -> tuple[str, ...]:
    doubts = (
        ("repetition", heard.doubted or answer.repaired),
        ("low_confidence", unsure),
        ("truncated", heard.finish == "length"),
        (ESTIMATED, timed),
    )
    return tuple(name for name, holds in doubts if holds)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


__all__ = ["ESTIMATED", "Collector", "sentences"]
