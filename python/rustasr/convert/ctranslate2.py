"""Reader of CTranslate2's `model.bin` (the faster-whisper models), Whisper only.

Layout and names after CTranslate2 4.8.1: python/ctranslate2/specs/model_spec.py (`_serialize`),
whisper_spec.py and src/models/model.cc (`Model::load`). Little endian, nothing aligned:

    u32 binary_version   string "WhisperSpec"   u32 revision   u32 n_variables
    per variable: string name, u8 rank, u32 dim[rank], u8 dtype, u32 n_bytes, data
                  (before v4: u8 item size, u32 count instead of dtype and n_bytes)
    u32 n_aliases; per alias: string name, string target                             (>= v3)

int8 and int16 weights are dequantised: value / scale, one scale per output row (int8) or one in all (int16).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.binary import MAX_RANK, Cursor, MappedFile
from rustasr.convert.common import ALL_ROWS, Checkpoint, SourceTensor
from rustasr.convert.encoding import bf16_floats
from rustasr.errors import ModelFileError, UnsupportedModelError

SPEC_NAME = "WhisperSpec"
MAX_VERSION = 6
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "<u2"}  # 5 is bfloat16
_NAMES = {0: "f32", 1: "i8", 2: "i16", 3: "i32", 4: "f16", 5: "bf16"}
_BFLOAT16 = 5
_OLD_ITEM_SIZES = {4: 0, 2: 2, 1: 1}  # before v4 only the item size was stored
_MAX_VARIABLES = 1 << 16


@dataclass(frozen=True)
class Variable:
    """One stored variable: row-major shape, CTranslate2's dtype code, position of its data."""

    shape: tuple[int, ...]
    dtype: int
    offset: int


class ModelBin:
    """The parsed directory of a model.bin; data stays mapped until a tensor is read."""

    def __init__(self, path: Path) -> None:
        self.file = MappedFile(path)
        cursor = Cursor(self.file)
        self.version = cursor.bounded(
            cursor.u32("binary version"), 1, MAX_VERSION, "CTranslate2 binary version"
        )
        if self.version >= 2:
            spec = _string(cursor, "specification name")
            if spec != SPEC_NAME:
                raise UnsupportedModelError(f"{path}: a CTranslate2 {spec!r} model, expected {SPEC_NAME!r}")
            self.revision = cursor.u32("specification revision")
        count = cursor.bounded(cursor.u32("number of variables"), 1, _MAX_VARIABLES, "number of variables")
        self.variables: dict[str, Variable] = {}
        for index in range(count):
            name, variable = self._read_variable(cursor, f"variable {index} of {count}")
            if name in self.variables:
                raise ModelFileError(f"{path}: variable {name!r} appears twice")
            self.variables[name] = variable
        self.aliases = self._read_aliases(cursor) if self.version >= 3 else {}
        if cursor.offset != self.file.size:
            raise ModelFileError(f"{path}: {self.file.size - cursor.offset} bytes follow the last field")

    def _read_variable(self, cursor: Cursor, what: str) -> tuple[str, Variable]:
        name = _string(cursor, f"name of {what}")
        what = f"variable {name!r}"
        rank = cursor.bounded(cursor.u8(f"rank of {what}"), 0, MAX_RANK, f"rank of {what}")
        shape = tuple(cursor.u32(f"shape of {what}") for _ in range(rank))
        code = cursor.u8(f"type of {what}")
        size = cursor.u32(f"size of {what}")
        if self.version < 4:
            if code not in _OLD_ITEM_SIZES:
                raise ModelFileError(f"{cursor.file.path}: {what} has item size {code}, expected 4, 2 or 1")
            size, code = size * code, _OLD_ITEM_SIZES[code]
        if code not in _DTYPES:
            raise ModelFileError(
                f"{cursor.file.path}: {what} has type {code}, expected one of {sorted(_DTYPES)}"
            )
        elements = 1
        for extent in shape:
            elements *= extent
        # n_bytes is 32 bits wide: it is the shape that must agree with it, never the other way round.
        if elements * np.dtype(_DTYPES[code]).itemsize != size:
            raise ModelFileError(
                f"{cursor.file.path}: {what} of shape {list(shape)} has {size} bytes of data"
            )
        return name, Variable(shape, code, cursor.skip(size, f"data of {what}"))

    def _read_aliases(self, cursor: Cursor) -> dict[str, str]:
        count = cursor.bounded(cursor.u32("number of aliases"), 0, _MAX_VARIABLES, "number of aliases")
        aliases: dict[str, str] = {}
        for index in range(count):
            alias, target = _string(cursor, f"alias {index}"), _string(cursor, f"target of alias {index}")
            if target not in self.variables:
                raise ModelFileError(
                    f"{cursor.file.path}: alias {alias!r} points at {target!r}, which is not there"
                )
            if alias in aliases or alias in self.variables:
                raise ModelFileError(f"{cursor.file.path}: alias {alias!r} is already a variable or an alias")
            aliases[alias] = target
        return aliases

    def scalar(self, name: str) -> int:
        """A rank-0 attribute as an integer."""
        variable = self.variables.get(name)
        if variable is None or variable.shape != ():
            raise ModelFileError(f"{self.file.path}: attribute {name!r} is missing, expected a scalar")
        return int(self._raw(name)[()])

    def _raw(self, name: str) -> NDArray[Any]:
        variable = self.variables[name]
        return self.file.array(variable.offset, variable.shape, _DTYPES[variable.dtype], f"variable {name!r}")

    def tensor(self, name: str) -> SourceTensor:
        """A weight as floating point; int8 and int16 are scaled on reading."""
        name = self.aliases.get(name, name)
        if name not in self.variables:
            raise ModelFileError(f"{self.file.path}: variable {name!r} is missing")
        variable = self.variables[name]
        if variable.dtype in (1, 2, 3) and f"{name}_scale" not in self.variables:
            raise ModelFileError(
                f"{self.file.path}: {name!r} holds integers but {name + '_scale'!r} is missing"
            )
        if f"{name}_zero" in self.variables:
            raise UnsupportedModelError(
                f"{self.file.path}: {name!r} is AWQ-quantised, expected float, int8 or int16"
            )

        def read(rows: slice = ALL_ROWS) -> NDArray[Any]:
            values = self._raw(name)[rows]
            if variable.dtype == _BFLOAT16:
                return bf16_floats(values)
            return self._scaled(name, values, rows) if variable.dtype in (1, 2, 3) else values

        return SourceTensor(name, variable.shape, read, _NAMES[variable.dtype])

    def _scaled(self, name: str, values: NDArray[Any], rows: slice) -> NDArray[np.float32]:
        scale = self._raw(f"{name}_scale").astype(np.float32).reshape(-1)
        n_rows = self.variables[name].shape[0]
        if scale.size not in (1, n_rows):
            raise ModelFileError(
                f"{self.file.path}: {name + '_scale'!r} has {scale.size} values, expected {n_rows}"
            )
        if not (np.isfinite(scale) & (scale != 0)).all():
            raise ModelFileError(f"{self.file.path}: {name + '_scale'!r} holds zeros or is not finite")
        per_row = scale[rows] if scale.size == n_rows else scale
        return values.astype(np.float32) / per_row.reshape(-1, *[1] * (values.ndim - 1))

    def weights(self) -> list[str]:
        """Names of the variables that are weights: not scalars, not scales."""
        return [
            name
            for name, variable in self.variables.items()
            if variable.shape and not name.endswith("_scale")
        ]


def _string(cursor: Cursor, what: str) -> str:
    """u16 length including a final NUL, bytes, NUL."""
    length = cursor.bounded(cursor.u16(f"length of {what}"), 1, 1024, f"length of {what}")
    raw = cursor.take(length, what)
    try:
        text = raw[:-1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{cursor.file.path}: {what} is not text: {raw[:40]!r}") from error
    if raw[-1] != 0 or "\0" in text:
        raise ModelFileError(f"{cursor.file.path}: {what} is not NUL-terminated: {raw[:40]!r}")
    return text


def looks_like(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a CTranslate2 model."""
    version = int.from_bytes(head[:4], "little")
    return len(head) >= 8 and 2 <= version <= 64 and b"Spec\0" in head[6:64]


_IN_LAYER = {
    "self_attention/layer_norm": "attn_ln",
    "self_attention/linear_1": "attn.out",
    "attention/layer_norm": "cross_attn_ln",
    "attention/linear_0": "cross_attn.query",
    "attention/linear_2": "cross_attn.out",
    "ffn/layer_norm": "mlp_ln",
    "ffn/linear_0": "mlp.0",
    "ffn/linear_1": "mlp.2",
}
_FUSED = {
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
}
_TOP = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/layer_norm": "decoder.ln",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
}
_KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def whisper_tensors(model: ModelBin) -> Checkpoint:
    """The weights under openai-whisper's names; fused projections split into views of their rows.

    The zero bias that CTranslate2 stores for the keys is checked and dropped.
    """
    tensors: Checkpoint = {}
    for name in model.weights():
        if name == "decoder/projection/weight":
            _check_tied(model)
            continue
        tensor = model.tensor(name)
        if name in _TOP:
            tensors[_TOP[name]] = tensor
            continue
        stem, _, kind = name.rpartition("/")
        if kind not in _KINDS:
            raise ModelFileError(f"{model.file.path}: unexpected variable {name!r}")
        if stem in _TOP:
            tensors[f"{_TOP[stem]}.{_KINDS[kind]}"] = tensor
        else:
            tensors.update(_layer_tensors(model, stem, _KINDS[kind], tensor))
    return tensors


def _check_tied(model: ModelBin) -> None:
    """A projection of its own must repeat the token embedding: Whisper's are tied."""
    projection, embedding = (
        model.tensor("decoder/projection/weight"),
        model.tensor("decoder/embeddings/weight"),
    )
    if projection.shape != embedding.shape or not np.array_equal(projection.read(), embedding.read()):
        raise UnsupportedModelError(
            f"{model.file.path}: the output projection is not tied to the token embedding"
        )


def _layer_tensors(model: ModelBin, stem: str, kind: str, tensor: SourceTensor) -> Checkpoint:
    """One variable of a layer as one tensor, or as two or three when it is a fused projection."""
    side, _, rest = stem.partition("/")
    layer, _, part = rest.partition("/")
    number = layer.removeprefix("layer_")
    if side not in ("encoder", "decoder") or not number.isdecimal() or not layer.startswith("layer_"):
        raise ModelFileError(f"{model.file.path}: unexpected variable {tensor.name!r}")
    prefix = f"{side}.blocks.{int(number)}"
    if part in _IN_LAYER:
        return {f"{prefix}.{_IN_LAYER[part]}.{kind}": tensor}
    if part not in _FUSED:
        raise ModelFileError(f"{model.file.path}: unexpected variable {tensor.name!r}")
    names = _FUSED[part]
    if tensor.shape[0] % len(names):
        raise ModelFileError(
            f"{model.file.path}: {tensor.name!r} has {tensor.shape[0]} rows, "
            f"expected a multiple of {len(names)}"
        )
    step = tensor.shape[0] // len(names)
    split = {}
    for index, name in enumerate(names):
        rows = tensor.rows(index * step, (index + 1) * step, f"{tensor.name}[{index}]")
        if kind == "bias" and name.endswith("key"):
            if np.any(rows.read()):
                raise UnsupportedModelError(
                    f"{model.file.path}: {tensor.name!r} gives the keys a bias, Whisper has none"
                )
        else:
            split[f"{prefix}.{name}.{kind}"] = rows
    return split


def head_counts(model: ModelBin, tensors: Checkpoint) -> tuple[int, int]:
    """Attention heads of encoder and decoder; older files lack them, and Whisper's heads are 64 wide."""
    counts = []
    for side in ("encoder", "decoder"):
        name = f"{side}/num_heads"
        if name in model.variables:
            counts.append(model.scalar(name))
        else:
            positions = tensors.get(f"{side}.positional_embedding")
            counts.append(positions.shape[-1] // 64 if positions is not None else 0)
    return counts[0], counts[1]
