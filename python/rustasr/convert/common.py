"""What every converter shares: lazily read source tensors, the output plan, and the atomic GGUF writer.

A converter describes its output as metadata plus a list of `OutputTensor`; the writer lays the header out
from shapes alone and then asks for one tensor at a time, so memory stays near the largest tensor.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import reprlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.encoding import choose_type, encode_tensor, parse_overrides, tensor_bytes
from rustasr.errors import ModelFileError, OptionError
from rustasr.progress import FileProgress

FORMAT_VERSION = 1
ALL_ROWS = slice(None)


class ReadRows(Protocol):
    def __call__(self, rows: slice = ALL_ROWS) -> NDArray[Any]: ...


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of a checkpoint: row-major shape, `read(rows)` -> float16 or float32 array, type on disk."""

    name: str
    shape: tuple[int, ...]
    read: ReadRows
    dtype: str = "f32"

    def rows(self, start: int, stop: int, name: str) -> SourceTensor:
        """Rows [start, stop) as a tensor of its own (fused projections are split this way)."""
        read, shape = self.read, (stop - start, *self.shape[1:])
        return SourceTensor(name, shape, lambda rows=ALL_ROWS: read(slice(start, stop))[rows], self.dtype)

    def reshaped(self, shape: tuple[int, ...]) -> SourceTensor:
        """The same values with another shape of as many elements."""
        read = self.read
        return SourceTensor(self.name, shape, lambda rows=ALL_ROWS: read().reshape(shape)[rows], self.dtype)


Checkpoint = dict[str, SourceTensor]


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of the GGUF: row-major shape (ggml order reversed) and how to make it (float16/float32).

    `dtype` is the type it comes from; where the bytes of that type are at hand, `raw` gives them.
    """

    name: str
    shape: tuple[int, ...]
    build: Callable[[], NDArray[Any]]
    dtype: str = "f32"
    raw: Callable[[], NDArray[np.uint8]] | None = None

    def encoded(self, qtype: str) -> NDArray[np.uint8]:
        """The bytes in `qtype`; unchanged when it is that already."""
        if self.raw is not None and self.dtype == qtype:
            return self.raw()
        return encode_tensor(self.name, self.build(), qtype)


@dataclass(frozen=True)
class Field:
    """One metadata value with its GGUF type: str, u32, i32, f32, bool, arr_str, arr_i32."""

    kind: str
    value: Any


Metadata = dict[str, Field]


@dataclass(frozen=True)
class FamilyPlan:
    """What a family makes of a checkpoint: everything of the GGUF but its provenance and its type.

    `release` is the registry name of the published model that the checkpoint is, when it says so itself.
    """

    architecture: str
    tensors: Sequence[OutputTensor]
    fields: Metadata
    release: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did. Sizes in bytes; `fallbacks` lists "tensor: type" where `qtype` did not fit."""

    source: Path
    output: Path
    kind: str
    architecture: str
    name: str
    qtype: str
    tensors: tuple[OutputTensor, ...]
    source_bytes: int
    output_bytes: int
    source_sha256: str
    fallbacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxtuple, _REPR.maxstring = 2, 4, 4, 4, 80


def shown(value: object) -> str:
    """A value from a file for a message: short, whatever it is (lists of lists of lists grow fast)."""
    return _REPR.repr(value)[:200]


def check_tensors(
    tensors: Mapping[str, SourceTensor], expected: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """The checkpoint holds exactly the expected tensors with the expected shapes, else ModelFileError."""
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ModelFileError(f"{where}: {len(missing)} tensor(s) missing, the first is {missing[0]!r}")
    extra = [name for name in tensors if name not in expected]
    if extra:
        raise ModelFileError(f"{where}: {len(extra)} unexpected tensor(s), the first is {extra[0]!r}")
    for name, shape in expected.items():
        found = tensors[name].shape
        if found != shape:
            raise ModelFileError(f"{where}: tensor {name!r} has shape {list(found)}, expected {list(shape)}")
        if tensors[name].dtype == "i64":
            raise ModelFileError(f"{where}: tensor {name!r} holds whole numbers, expected floating point")


def file_sha256(path: Path, chunk: int = 1 << 20) -> str:
    """sha256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(chunk):
            digest.update(block)
    return digest.hexdigest()


def files_sha256(files: Sequence[Path]) -> str:
    """One file: its sha256. Several (shards): sha256 over the lines "sha256  name" in order of name."""
    if len(files) == 1:
        return file_sha256(files[0])
    lines = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(files, key=lambda path: path.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextlib.contextmanager
def atomic_path(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside `target`, renamed onto it when the block ends well, removed when it fails."""
    if target.is_dir():
        raise OptionError(f"output {target} is a directory: name a file")
    if not target.parent.is_dir():
        raise OptionError(f"output directory {target.parent} does not exist")
    if target.exists() and not overwrite:
        raise OptionError(f"output {target} exists: choose another name, or force overwriting")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_gguf(
    target: Path,
    architecture: str,
    metadata: Metadata,
    tensors: Sequence[OutputTensor],
    qtype: str,
    *,
    overrides: Sequence[tuple[str, str]] = (),
    overwrite: bool = True,
    progress: FileProgress | None = None,
) -> tuple[str, ...]:
    """Writes one GGUF, atomically, one tensor in memory at a time; returns the type fallbacks.

    Adds `rustasr.format_version`, `rustasr.qtype` and (only when there are any) `rustasr.fallbacks`.
    """
    patterns = parse_overrides(overrides)
    chosen = [choose_type(tensor.name, tensor.shape, qtype, patterns) for tensor in tensors]
    fallbacks = tuple(
        f"{tensor.name}: {fitting}"
        for tensor, (wanted, fitting) in zip(tensors, chosen, strict=True)
        if wanted != fitting
    )
    fields = dict(metadata)
    fields["rustasr.format_version"] = Field("u32", FORMAT_VERSION)
    fields["rustasr.qtype"] = Field("str", qtype)
    fields["rustasr.fallbacks"] = Field("arr_str", list(fallbacks))
    types = [fitting for _, fitting in chosen]
    with atomic_path(target, overwrite=overwrite) as path:
        _write(path, architecture, fields, tensors, types, progress)
    return fallbacks


def _write(
    path: Path,
    architecture: str,
    fields: Metadata,
    tensors: Sequence[OutputTensor],
    types: Sequence[str],
    progress: FileProgress | None,
) -> None:
    import gguf

    writer = _writer_class()(path, architecture)
    try:
        for key, entry in fields.items():
            if key != "general.architecture":  # the writer has put it first already
                _add_field(writer, key, entry)
        for tensor, kind in zip(tensors, types, strict=True):
            writer.add_tensor_info(
                tensor.name, tensor.shape, np.dtype(np.float32), tensor_bytes(tensor.shape, kind),
                raw_dtype=gguf.GGMLQuantizationType[kind.upper()],
            )  # fmt: skip
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        total = sum(tensor_bytes(tensor.shape, kind) for tensor, kind in zip(tensors, types, strict=True))
        done = 0
        for tensor, kind in zip(tensors, types, strict=True):
            packed = tensor.encoded(kind)
            writer.write_tensor_data(packed)
            done += packed.nbytes
            if progress is not None:
                progress(done, total, tensor.name)
    finally:
        writer.close()


def _add_field(writer: Any, key: str, entry: Field) -> None:
    from gguf import GGUFValueType as Type

    scalar = {
        "str": Type.STRING, "u32": Type.UINT32, "i32": Type.INT32, "u64": Type.UINT64, "i64": Type.INT64,
        "f32": Type.FLOAT32, "f64": Type.FLOAT64, "bool": Type.BOOL, "u8": Type.UINT8, "i8": Type.INT8,
        "u16": Type.UINT16, "i16": Type.INT16,
    }  # fmt: skip
    if entry.kind.startswith("arr_"):
        writer.add_key_value(key, list(entry.value), Type.ARRAY, sub_type=scalar[entry.kind[4:]])
    else:
        writer.add_key_value(key, entry.value, scalar[entry.kind])


def _writer_class() -> Any:
    """gguf.GGUFWriter, with the empty arrays that the format has and the package refuses."""
    import gguf

    class Writer(gguf.GGUFWriter):
        def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
            if vtype == gguf.GGUFValueType.ARRAY and len(val) == 0 and sub_type is not None:
                head = self._pack("I", vtype) if add_vtype else b""
                return head + self._pack("I", sub_type) + self._pack("Q", 0)
            return super()._pack_val(val, vtype, add_vtype, sub_type)

    return Writer
