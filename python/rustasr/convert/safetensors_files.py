"""Reader of safetensors files, one or several shards.

Written here because the `safetensors` package gives NumPy no bfloat16, and because each array stays a view
of the mapped file. Format: https://github.com/huggingface/safetensors#format: u64 header length, JSON header
{name: {dtype, shape, data_offsets: [begin, end]}}, then the data, which the entries cover without holes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.binary import MAX_RANK, Cursor, MappedFile
from rustasr.convert.common import ALL_ROWS, Checkpoint, SourceTensor
from rustasr.convert.encoding import bf16_floats
from rustasr.errors import ModelFileError, UnsupportedModelError

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I64": "<i8"}
_MAX_HEADER_BYTES = 16 << 20


def read_safetensors(files: tuple[Path, ...]) -> Checkpoint:
    """All tensors of all shards; a name in two shards is a ModelFileError."""
    tensors: Checkpoint = {}
    for path in files:
        for name, tensor in _read_file(path).items():
            if name in tensors:
                raise ModelFileError(f"{path}: tensor {name!r} is in another shard too")
            tensors[name] = tensor
    return tensors


def _read_file(path: Path) -> Checkpoint:
    file = MappedFile(path)
    cursor = Cursor(file)
    length = int.from_bytes(cursor.take(8, "header length"), "little")
    cursor.bounded(length, 2, _MAX_HEADER_BYTES, "header length")
    try:
        header = json.loads(cursor.take(length, "header").decode("utf-8"), object_pairs_hook=_unique)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{path}: the header is a {type(header).__name__}, expected an object")
    header.pop("__metadata__", None)
    tensors = {name: _entry(file, cursor.offset, name, entry) for name, entry in header.items()}
    _check_coverage(file, cursor.offset, header)
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelFileError(f"the header has {twice!r} twice")
    return result


def _entry(file: MappedFile, base: int, name: str, entry: Any) -> SourceTensor:
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    shape: Any = fields.get("shape")
    offsets: Any = fields.get("data_offsets")
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ModelFileError(
            f"{file.path}: header entry {name!r:.80} lacks a proper dtype, shape or data_offsets"
        )
    if len(shape) > MAX_RANK:
        raise ModelFileError(
            f"{file.path}: tensor {name!r} has {len(shape)} axes, expected at most {MAX_RANK}"
        )
    if dtype not in _DTYPES:
        raise UnsupportedModelError(
            f"{file.path}: tensor {name!r} is {dtype}, expected one of {', '.join(_DTYPES)}"
        )
    count = 1
    for extent in shape:
        count *= extent
    begin, end = offsets
    if end - begin != count * np.dtype(_DTYPES[dtype]).itemsize:
        raise ModelFileError(f"{file.path}: tensor {name!r} {dtype} {shape} has {end - begin} bytes of data")
    file.array(base + begin, (end - begin,), "<u1", f"tensor {name!r}")

    def read(rows: slice = ALL_ROWS) -> NDArray[Any]:
        values = file.array(base + begin, tuple(shape), _DTYPES[dtype], f"tensor {name!r}")[rows]
        if dtype == "BF16":
            return bf16_floats(values)
        return values.astype(np.float32) if dtype == "F64" else values

    return SourceTensor(name, tuple(shape), read, dtype.lower())


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 62 for number in value)


def _check_coverage(file: MappedFile, base: int, header: dict[str, Any]) -> None:
    """Entries neither overlap nor leave bytes between or after them."""
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != position:
            raise ModelFileError(
                f"{file.path}: tensor {name!r} begins at byte {begin} of the data, expected {position}"
            )
        position = end
    if base + position != file.size:
        raise ModelFileError(f"{file.path}: data ends at byte {base + position}, the file at {file.size}")
