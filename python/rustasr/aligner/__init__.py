"""Forced alignment: when the words of a known text were said.

::

    text ─► units (words, ideographs) ─► prompt with two slots behind every unit ─► a class for every slot
         ─► milliseconds, put in order ─► Word(start, end, text)

`ForcedAligner` does it for a text, and for the result of any family (`transcribe(..., align=...)`).
"""

from __future__ import annotations

from rustasr.aligner.aligner import ForcedAligner, load_aligner
from rustasr.aligner.pieces import Piece

__all__ = ["ForcedAligner", "Piece", "load_aligner"]
