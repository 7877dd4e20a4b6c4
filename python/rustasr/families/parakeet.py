"""Parakeet: TDT 0.6B v3 (25 languages) and v2 (English), and the CTC and RNN-T models of the same kind.

The steps are those of `families.conformer`; the network is `csrc/models/parakeet.cpp`. Text, words and
segments follow NeMo 3.0.0 (parts/submodules/rnnt_decoding.py, parts/utils/timestamp_utils.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rustasr.families.conformer import Conformer, ConformerOptions, Heard, TimedWord
from rustasr.families.parakeet_languages import ALPHABETS, tokens_outside
from rustasr.pieces import SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class ParakeetOptions(ConformerOptions):
    """Options of a Parakeet transcription: `ConformerOptions`.

    `language` locks the writing: only letters of that language's alphabet are written. The models take no
    language as input and name none, so it cannot make them hear another language than the spoken one.
    `window_seconds` is 40 by default.
    """


class Parakeet(Conformer):
    """A Parakeet model that is ready to transcribe (`rustasr.load_model` makes it)."""

    model_type = "parakeet"
    architecture = "parakeet"
    family_languages = tuple(ALPHABETS)
    options_class = ParakeetOptions
    # Utterances of up to 40 s were trained on (NeMo's fast-conformer recipes: train_ds.max_duration).
    window_seconds = 40.0
    shortest_window = 25.0

    def frame_seconds(self, n_samples: int, n_frames: int) -> float:  # noqa: ARG002 - the family's signature
        """Mel frames a frame stands for times their hop: 8 x 0.01 s."""
        return self._frame_s

    @cached_property
    def _frame_s(self) -> float:
        values: Any = self.metadata
        hop_s = values["frontend.hop_length"] / values["frontend.sample_rate"]
        return float(values["conformer.subsampling_factor"] * hop_s)

    def text(self, tokens: Sequence[int]) -> str:
        """Pieces joined, without the space that some stand before punctuation (one each)."""
        return self._before_punctuation.sub(r"\1", self.pieces.text(tokens))

    @cached_property
    def _before_punctuation(self) -> re.Pattern[str]:
        marks = "".join(re.escape(mark) for mark in sorted(self.pieces.punctuation))
        return re.compile(rf"\s([{marks}])" if marks else r"(?!)()")

    def suppressed(self, language: str | None) -> list[int]:
        """Pieces with letters that the language does not write."""
        return [] if language is None else tokens_outside(self.pieces, language)

    def token_spans(self, heard: Heard) -> list[tuple[int, int]]:
        """As emitted, but punctuation lasts no time: it lies where the token before it ends."""
        spans = list[tuple[int, int]]()
        is_tdt = self.metadata.get("head.type") == "tdt"
        for token, frame, duration in zip(heard.tokens, heard.frames, heard.durations, strict=True):
            is_mark = is_tdt and spans and self.pieces.text([token]) in self.pieces.punctuation
            spans.append((spans[-1][1], spans[-1][1]) if is_mark else (frame, frame + duration))
        return spans

    def words(self, heard: Heard) -> list[TimedWord]:
        """Words from tokens: `get_words_offsets` of NeMo for BPE pieces."""
        texts = [self.pieces.text([token]) for token in heard.tokens]
        spans = self.token_spans(heard)
        words, word = list[TimedWord](), TimedWord("", 0, 0)
        for i, token in enumerate(heard.tokens):
            if self.pieces.is_silent(token):
                continue
            text, (start, end) = texts[i], spans[i]
            is_mark = text in self.pieces.punctuation
            if self._begins_word(i, heard.tokens, texts):
                if word.places:
                    words.append(word)
                word = TimedWord("", start, end)
            elif is_mark and not word.places and words:
                words[-1].end = end
                words[-1].places.append(i)
                continue
            if not word.places:
                word.start = start
            word.places.append(i)
            word.end = end
        if word.places:
            words.append(word)
        for finished in words:
            finished.text = self.text([heard.tokens[i] for i in finished.places]).strip()
        if words:
            words[0].start = spans[words[0].places[0]][0]
        return [finished for finished in words if finished.text]

    def _begins_word(self, i: int, tokens: Sequence[int], texts: Sequence[str]) -> bool:
        """Whether a new word starts at token i: it has a space mark and is no punctuation. A lone mark
        counts only if what comes after the marks is no punctuation."""
        if texts[i] in self.pieces.punctuation or not self.pieces.pieces[tokens[i]].startswith(SPACE):
            return False
        if texts[i].strip():
            return True
        following = next((text for text in texts[i + 1 :] if text.strip()), "")
        return following not in self.pieces.punctuation or not following


__all__ = ["Parakeet", "ParakeetOptions"]
