"""GigaAM: Russian speech to text, plain (v3_ctc, v3_rnnt) or with case and punctuation (v3_e2e_*).

The steps are those of `families.conformer`; the network is `csrc/models/gigaam.cpp`. Words, times and the
length of windows follow github.com/salute-developers/GigaAM (timestamps_utils.py, vad_utils.py, model.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr.audio import SAMPLE_RATE
from rustasr.families.conformer import Conformer, ConformerOptions, Heard, TimedWord
from rustasr.pieces import SPACE

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class GigaamOptions(ConformerOptions):
    """Options of a GigaAM transcription: `ConformerOptions`; `language` may only be Russian.

    `window_seconds` is 22 by default and at most 25, the official limit.
    """


class Gigaam(Conformer):
    """A GigaAM model that is ready to transcribe (`rustasr.load_model` makes it)."""

    model_type = "gigaam"
    architecture = "gigaam"
    family_languages = ("ru",)
    options_class = GigaamOptions
    # vad_utils.py segment_audio_file: max_duration 22, min_duration 15
    window_seconds = 22.0
    shortest_window = 15.0

    def frame_seconds(self, n_samples: int, n_frames: int) -> float:
        """The window's length over its frames, so not quite 0.04 (timestamps_utils.py)."""
        return n_samples / SAMPLE_RATE / max(1, n_frames)

    def text(self, tokens: Sequence[int]) -> str:
        """Pieces joined; nothing is cleaned up."""
        return self.pieces.text(tokens)

    def words(self, heard: Heard) -> list[TimedWord]:
        """A piece that begins with a space mark, or is a space, closes the word before it."""
        words, word = list[TimedWord](), TimedWord("", 0, 0)
        for i, (token, frame) in enumerate(zip(heard.tokens, heard.frames, strict=True)):
            if self.pieces.is_silent(token):
                continue
            piece = self.pieces.pieces[token]
            if piece.startswith((SPACE, " ")):
                words.append(word)
                word = TimedWord("", frame, frame)
            if piece == " ":
                continue
            if not word.places:
                word.start = frame
            word.text += self.pieces.text([token]) if piece.startswith(SPACE) else piece
            word.places.append(i)
            word.end = frame + 1
        return [word for word in (*words, word) if word.text]


__all__ = ["Gigaam", "GigaamOptions"]
