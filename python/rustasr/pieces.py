"""Piece tables: the characters or SentencePiece pieces of a CTC or transducer model, by id.

The table travels in the GGUF (`tokenizer.*`). Turning ids into text needs nothing else; turning text into
ids (for hotwords) follows SentencePiece's two models: merges in the order they were learnt (BPE) or the
likeliest segmentation by the scores of the pieces (unigram). github.com/google/sentencepiece; Kudo
and Richardson 2018, arXiv:1808.06226.
"""

from __future__ import annotations

import unicodedata
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rustasr.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SPACE = "▁"  # U+2581, how SentencePiece writes the space before a word
UNKNOWN_TEXT = " ⁇ "  # what SentencePiece decodes an unknown piece to
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # sentencepiece_model.proto, Type
KINDS = ("characters", "sentencepiece")


class PieceTable:
    """Pieces by id. `kind` is "characters" (a piece is its own text) or "sentencepiece"."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self.kind = str(metadata.get("tokenizer.kind"))
        if self.kind not in KINDS:
            raise ModelFileError(
                f"metadata key tokenizer.kind: expected one of {', '.join(KINDS)}, found {self.kind!r}"
            )
        self.pieces = tuple(str(piece) for piece in _array(metadata, "tokenizer.pieces"))
        self.types = tuple(int(kind) for kind in _array(metadata, "tokenizer.piece_types"))
        if len(self.types) != len(self.pieces):
            raise ModelFileError(
                f"metadata key tokenizer.piece_types: expected {len(self.pieces)} values, one per piece, "
                f"found {len(self.types)}"
            )
        self._scores = metadata.get("tokenizer.scores")
        self._model = metadata.get("tokenizer.model_type")

    def __len__(self) -> int:
        return len(self.pieces)

    def is_silent(self, token: int) -> bool:
        """Whether the piece is no text: control pieces, and those written like <...>."""
        piece = self.pieces[token]
        return self.types[token] in (CONTROL, UNUSED) or (
            self.types[token] not in (UNKNOWN, BYTE)
            and len(piece) > 2
            and piece[0] == "<"
            and piece[-1] == ">"
        )

    def text(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, as SentencePiece decodes it: without the space before the first word."""
        tokens = [token for token in tokens if not self.is_silent(token)]
        if self.kind == "characters":
            return "".join(self.pieces[token] for token in tokens)
        parts, pending = list[str](), bytearray()
        for token in tokens:
            if self.types[token] == BYTE:
                pending.append(int(self.pieces[token][3:5], 16))  # <0xE2>
                continue
            _flush(parts, pending)
            is_unknown = self.types[token] == UNKNOWN
            parts.append(UNKNOWN_TEXT if is_unknown else self.pieces[token].replace(SPACE, " "))
        _flush(parts, pending)
        return "".join(parts).removeprefix(" ")

    @cached_property
    def punctuation(self) -> frozenset[str]:
        """Characters of category P* in pieces that are not special and do not begin a word (NeMo
        parts/utils/tokenizer_utils.py).
        """
        special = ("<", "[")
        return frozenset(
            character
            for piece in self.pieces
            if not piece.startswith((SPACE, "##"))
            and not (len(piece) > 1 and piece.startswith(special) and piece.endswith((">", "]")))
            for character in piece
            if unicodedata.category(character).startswith("P")
        )

    def encode(self, text: str) -> list[int] | None:
        """Ids of `text` as the training tokenizer would cut it; None where a character has no piece."""
        if self.kind == "characters":
            units = list(text)
        else:
            text = SPACE + SPACE.join(text.split())
            units = self._merged(text) if self._model == "bpe" else self._likeliest(text)
        ids = [self._by_piece.get(unit) for unit in units]
        return None if not ids or None in ids else [token for token in ids if token is not None]

    @cached_property
    def _by_piece(self) -> dict[str, int]:
        usable = (NORMAL, USER_DEFINED)
        return {piece: i for i, piece in enumerate(self.pieces) if self.types[i] in usable}

    def _score(self, piece: str) -> float | None:
        """How good a piece is; the pieces of a BPE are in the order of their merges, the best first."""
        token = self._by_piece.get(piece)
        if token is None:
            return None
        if self._model == "bpe":
            return -float(token)
        scores: Any = self._scores
        if scores is None:
            raise ModelFileError(
                "metadata key tokenizer.scores: expected the scores of the pieces, which hotwords need, "
                "found none; convert the model again"
            )
        return float(scores[token])

    def _merged(self, text: str) -> list[str]:
        """BPE: join the neighbours whose union is the best piece, leftmost of equals, while there is one."""
        units = list(text)
        while len(units) > 1:
            scored = [
                (-score, i)
                for i in range(len(units) - 1)
                if (score := self._score(units[i] + units[i + 1])) is not None
            ]
            if not scored:
                break
            _, i = min(scored)
            units[i : i + 2] = [units[i] + units[i + 1]]
        return units

    def _likeliest(self, text: str) -> list[str]:
        """Unigram: the segmentation with the greatest sum of scores; [] where there is none."""
        best: list[tuple[float, int]] = [(0.0, 0)] + [(-float("inf"), 0)] * len(text)
        for end in range(1, len(text) + 1):
            for start in range(end):
                score = self._score(text[start:end])
                if score is not None and best[start][0] + score > best[end][0]:
                    best[end] = (best[start][0] + score, start)
        units, end = list[str](), len(text)
        while end > 0 and best[end][0] > -float("inf"):
            start = best[end][1]
            units.append(text[start:end])
            end = start
        return units[::-1] if end == 0 else []


def _flush(parts: list[str], pending: bytearray) -> None:
    if pending:
        parts.append(pending.decode("utf-8", errors="replace"))
        pending.clear()


def _array(metadata: Mapping[str, object], key: str) -> list[Any]:
    value = metadata.get(key)
    if not isinstance(value, (list, tuple)):
        raise ModelFileError(f"metadata key {key}: expected an array, found {value!r:.60}")
    return list(value)


__all__ = ["SPACE", "PieceTable"]
