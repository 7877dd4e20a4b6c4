"""A GGUF file as a source: typed metadata and tensors that stay on disk until they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Field, Metadata, OutputTensor
from rustasr.convert.encoding import dequantize_rows
from rustasr.errors import ModelFileError, UnsupportedModelError

_KINDS = {
    "UINT8": "u8", "INT8": "i8", "UINT16": "u16", "INT16": "i16", "UINT32": "u32", "INT32": "i32",
    "UINT64": "u64", "INT64": "i64", "FLOAT32": "f32", "FLOAT64": "f64", "BOOL": "bool", "STRING": "str",
}  # fmt: skip


@dataclass(frozen=True)
class GgufInput:
    """The whole of a GGUF: architecture, metadata with types, tensors in file order."""

    path: Path
    architecture: str
    metadata: Metadata
    tensors: list[OutputTensor]


def open_gguf(path: Path) -> GgufInput:
    """Opens a rustasr GGUF. ModelFileError when it is damaged, UnsupportedModelError when it is another's."""
    _validate(path)
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        metadata = {
            name: _field(name, field) for name, field in reader.fields.items() if not name.startswith("GGUF.")
        }
        tensors = [_tensor(path, tensor) for tensor in reader.tensors]
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError, UnicodeError) as error:
        raise ModelFileError(f"{path}: damaged GGUF: {error}") from error
    if "rustasr.format_version" not in metadata or "general.architecture" not in metadata:
        raise UnsupportedModelError(
            f"{path}: a GGUF of another program (no rustasr.format_version): convert the original checkpoint"
        )
    return GgufInput(path, str(metadata["general.architecture"].value), metadata, tensors)


def _validate(path: Path) -> None:
    """The compiled reader checks every count, length and offset; the gguf package trusts them."""
    try:
        from rustasr import _core
    except ImportError:
        return
    _core.GgufFile(str(path))


def _field(name: str, field: Any) -> Field:
    kinds = [kind.name for kind in field.types]
    if kinds == ["ARRAY"]:  # empty: the package keeps the element type only among the raw parts
        import gguf

        kinds.append(gguf.GGUFValueType(int(field.parts[3][0])).name)
    value = field.contents()
    if len(kinds) == 1:
        return Field(_KINDS[kinds[0]], value)
    if len(kinds) != 2 or kinds[0] != "ARRAY":
        raise ValueError(f"key {name!r} holds nested arrays")
    return Field(f"arr_{_KINDS[kinds[1]]}", list(value))


def _tensor(path: Path, tensor: Any) -> OutputTensor:
    kind = str(tensor.tensor_type.name).lower()
    shape = tuple(int(extent) for extent in reversed(tensor.shape))
    n_rows, n_bytes, offset = (
        int(np.prod(shape[:-1], dtype=np.int64)),
        int(tensor.n_bytes),
        int(tensor.data_offset),
    )

    def raw() -> NDArray[np.uint8]:
        # Read, not mapped: the resident size stays that of one tensor.
        packed: NDArray[np.uint8] = np.fromfile(path, np.uint8, n_bytes, offset=offset)
        if packed.size != n_bytes:
            raise ModelFileError(
                f"{path}: tensor {tensor.name!r} is cut off: truncated, fetch or make it again"
            )
        return packed.reshape(n_rows, -1)

    def build() -> NDArray[Any]:
        if kind == "f16":
            return raw().view("<f2").reshape(shape)
        return dequantize_rows(raw(), kind, shape[-1]).reshape(shape)

    return OutputTensor(tensor.name, shape, build, kind, raw)
