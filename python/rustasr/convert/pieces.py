"""The vocabulary of a CTC or transducer model: its pieces in id order and their kinds.

Ids become text by the table alone; its scores cut hotwords into pieces. A SentencePiece model file is a
protocol buffer (google/sentencepiece, sentencepiece_model.proto):

    ModelProto    { repeated SentencePiece pieces = 1; optional TrainerSpec trainer_spec = 2; ... }
    SentencePiece { optional string piece = 1; optional float score = 2; optional Type type = 3 [NORMAL]; }
    TrainerSpec   { optional ModelType model_type = 3 [UNIGRAM]; ... }       UNIGRAM = 1, BPE = 2

and its wire format (https://protobuf.dev/programming-guides/encoding) is read here: the sentencepiece
package does not tell user-defined pieces from normal ones.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustasr.convert.common import Field, Metadata, shown
from rustasr.errors import ModelFileError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MAX_PIECES = 1 << 17
_MAX_PIECE_BYTES = 1024
_MAX_MODEL_BYTES = 64 << 20
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_UNIGRAM, _BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Pieces:
    """`kind` is "sentencepiece" (`▁` marks a space) or "characters"; `types` are SentencePiece's.

    `model` says how text is cut into pieces: "bpe" by merging the pair whose piece has the lowest id (merges
    are listed in the order they were learnt), "unigram" by `scores`; "" where that is not known.
    """

    kind: str
    texts: tuple[str, ...]
    types: tuple[int, ...]
    where: str
    model: str = ""
    scores: tuple[float, ...] = ()

    def metadata(self) -> Metadata:
        """The keys of the GGUF."""
        fields = {
            "tokenizer.kind": Field("str", self.kind),
            "tokenizer.pieces": Field("arr_str", list(self.texts)),
            "tokenizer.piece_types": Field("arr_i32", list(self.types)),
        }
        if self.model:
            fields["tokenizer.model_type"] = Field("str", self.model)
        if self.model == "unigram":
            fields["tokenizer.scores"] = Field("arr_f32", list(self.scores))
        return fields

    def check_count(self, n_vocab: int, where: str) -> None:
        """As many pieces as the network's outputs have tokens, blank left out; else ModelFileError."""
        if len(self.texts) != n_vocab:
            raise ModelFileError(
                f"{self.where}: {len(self.texts)} pieces, but {where} has {n_vocab} tokens beside the blank: "
                "they do not belong together"
            )


def characters(vocabulary: Any, where: str) -> Pieces:
    """A list of characters, one per token."""
    if not isinstance(vocabulary, list) or not 0 < len(vocabulary) <= MAX_PIECES:
        raise ModelFileError(f"{where}: the vocabulary is no list of 1 to {MAX_PIECES} characters")
    for item in vocabulary:
        if not isinstance(item, str) or not 0 < len(item) <= _MAX_PIECE_BYTES:
            raise ModelFileError(f"{where}: the vocabulary holds {shown(item)}, expected a character")
    return Pieces("characters", tuple(vocabulary), (NORMAL,) * len(vocabulary), where)


def read_sentencepiece(path: Path) -> Pieces:
    """The table of a SentencePiece `.model` file on disk."""
    if path.stat().st_size > _MAX_MODEL_BYTES:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes is no SentencePiece model")
    return sentencepiece_model(path.read_bytes(), str(path))


def sentencepiece_model(data: bytes, where: str) -> Pieces:
    """The table of a SentencePiece model from its bytes."""
    texts: list[str] = []
    types: list[int] = []
    scores: list[float] = []
    model: int | bytes = _UNIGRAM
    for number, value in _fields(data, where):
        if number == 2 and isinstance(value, bytes):
            model = dict(_fields(value, where)).get(3, _UNIGRAM)
        if number != 1:
            continue
        if not isinstance(value, bytes) or len(texts) >= MAX_PIECES:
            raise ModelFileError(f"{where}: not a SentencePiece model (piece {len(texts)})")
        fields = dict(_fields(value, where))
        text, kind, score = fields.get(1, b""), fields.get(3, NORMAL), fields.get(2, bytes(4))
        if not isinstance(text, bytes) or kind not in (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE):
            raise ModelFileError(f"{where}: piece {len(texts)} has no text or type {shown(kind)}")
        texts.append(_text(text, len(texts), where))
        types.append(int(kind))
        if (
            not isinstance(score, bytes)
            or len(score) != 4
            or not math.isfinite(struct.unpack("<f", score)[0])
        ):
            raise ModelFileError(f"{where}: piece {len(texts) - 1} has a score that is no number")
        scores.append(struct.unpack("<f", score)[0])
    name = {_UNIGRAM: "unigram", _BPE: "bpe"}.get(model, "") if isinstance(model, int) else ""
    return _sentencepieces(texts, types, where, name, scores)


def tokenizer_json(data: dict[str, Any], where: str) -> Pieces:
    """The same table from a `tokenizer.json` that was made from a SentencePiece model.

    There the user-defined pieces are added tokens; the blank, one behind the last piece, is left out.
    """
    model = data.get("model")
    if not isinstance(model, dict):
        raise ModelFileError(f"{where}: 'model' is missing: not a tokenizer.json")
    vocabulary = model.get("vocab")
    name, scores = "", list[float]()
    if isinstance(vocabulary, dict):  # BPE: {piece: id}
        texts, unknown = _in_id_order(vocabulary, where), vocabulary.get(str(model.get("unk_token")))
        name = "bpe"
    elif isinstance(vocabulary, list):  # Unigram: [[piece, score], ...]
        texts = [item[0] if isinstance(item, list) and item else None for item in vocabulary]
        unknown = model.get("unk_id")
        name, scores = "unigram", [_score(item) for item in vocabulary]
    else:
        raise ModelFileError(f"{where}: 'model.vocab' is missing: not a tokenizer.json of pieces")
    added = data.get("added_tokens")
    entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    whole = {entry.get("content") for entry in entries if isinstance(entry.get("content"), str)}
    types = []
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_PIECE_BYTES:
            raise ModelFileError(f"{where}: piece {index} is {shown(text)}, expected text")
        is_byte = model.get("byte_fallback") is True and _BYTE_PIECE.fullmatch(text) is not None
        types.append(
            UNKNOWN if index == unknown else BYTE if is_byte else USER_DEFINED if text in whole else NORMAL
        )
    return _sentencepieces([str(text) for text in texts], types, where, name, scores)


def _score(item: Any) -> float:
    value = item[1] if isinstance(item, list) and len(item) > 1 else 0.0
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _in_id_order(vocabulary: dict[str, Any], where: str) -> list[str | None]:
    texts: list[str | None] = [None] * len(vocabulary)
    for piece, index in vocabulary.items():
        if type(index) is not int or not 0 <= index < len(texts) or texts[index] is not None:
            raise ModelFileError(
                f"{where}: piece {shown(piece)} has id {shown(index)}, expected each of 0 to {len(texts) - 1}"
            )
        texts[index] = piece
    return texts


def _sentencepieces(
    texts: Sequence[str], types: Sequence[int], where: str, model: str, scores: Sequence[float]
) -> Pieces:
    if not 0 < len(texts) <= MAX_PIECES:
        raise ModelFileError(f"{where}: {len(texts)} pieces, expected 1 to {MAX_PIECES}")
    return Pieces("sentencepiece", tuple(texts), tuple(types), where, model, tuple(scores) if model else ())


def _text(raw: bytes, index: int, where: str) -> str:
    if not 0 < len(raw) <= _MAX_PIECE_BYTES:
        raise ModelFileError(f"{where}: piece {index} has {len(raw)} bytes of text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{where}: piece {index} is not UTF-8: {raw[:20]!r}") from error


def _fields(data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer message, in file order."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position, where)
        wire = key & 7
        if wire == _VARINT:
            value, position = _varint(data, position, where)
            yield key >> 3, value
            continue
        sizes = {_FIXED64: 8, _FIXED32: 4}
        if wire == _BYTES:
            size, position = _varint(data, position, where)
        elif wire in sizes:
            size = sizes[wire]
        else:
            raise ModelFileError(f"{where}: not a SentencePiece model (wire type {wire} at byte {position})")
        if position + size > len(data):
            raise ModelFileError(f"{where}: ends inside a field at byte {position}: truncated")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ModelFileError(f"{where}: not a SentencePiece model (bad number before byte {position})")
