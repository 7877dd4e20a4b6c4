"""A bounds-checked cursor over a memory-mapped little-endian file."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import ModelFileError

MAX_RANK = 4


class MappedFile:
    """A file mapped read-only. Arrays made from it keep it alive; nothing is read until touched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        if self.size == 0:
            raise ModelFileError(f"{path}: the file is empty")
        with open(path, "rb") as stream:
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, offset: int, shape: tuple[int, ...], dtype: str, what: str) -> NDArray[Any]:
        """A read-only view of `shape` at `offset`; ModelFileError when it does not lie inside the file."""
        count = 1
        for extent in shape:
            count *= extent
        n_bytes = count * np.dtype(dtype).itemsize
        if offset < 0 or offset + n_bytes > self.size:
            raise ModelFileError(
                f"{self.path}: {what} needs bytes {offset} to {offset + n_bytes}, the file has {self.size}: "
                "truncated or damaged, fetch it again"
            )
        self._forget()
        return np.frombuffer(self.data, dtype=dtype, count=count, offset=offset).reshape(shape)

    def _forget(self) -> None:
        """Gives back the pages that were read so far (they come again when touched): a conversion walks
        through the file once, and without this its resident size would grow to the file's."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED)


class Cursor:
    """Reads a header field by field; each method names what it wanted when the file ends too early."""

    def __init__(self, file: MappedFile, offset: int = 0) -> None:
        self.file = file
        self.offset = offset

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes`."""
        self.skip(n_bytes, what)
        return self.file.data[self.offset - n_bytes : self.offset]

    def skip(self, n_bytes: int, what: str) -> int:
        """Moves over `n_bytes` and returns where they start."""
        start = self.offset
        if n_bytes < 0 or start + n_bytes > self.file.size:
            raise ModelFileError(
                f"{self.file.path}: {what} needs {n_bytes} bytes at byte {start}, the file has "
                f"{self.file.size}: truncated or damaged, fetch it again"
            )
        self.offset = start + n_bytes
        return start

    def _number(self, code: str, what: str) -> int:
        size = struct.calcsize(code)
        return int(struct.unpack("<" + code, self.take(size, what))[0])

    def u8(self, what: str) -> int:
        return self._number("B", what)

    def u16(self, what: str) -> int:
        return self._number("H", what)

    def u32(self, what: str) -> int:
        return self._number("I", what)

    def i32(self, what: str) -> int:
        return self._number("i", what)

    def bounded(self, value: int, low: int, high: int, what: str) -> int:
        """`value` when low <= value <= high, else ModelFileError with the byte where it was read."""
        if not low <= value <= high:
            raise ModelFileError(
                f"{self.file.path}: {what} is {value} (before byte {self.offset}), expected {low} to {high}"
            )
        return value
