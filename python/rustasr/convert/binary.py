"""A bounds-checked cursor over a memory-mapped little-endian file, or over a part of one."""

from __future__ import annotations

import io
import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import ModelFileError

MAX_RANK = 4


class MappedFile:
    """A file mapped read-only. Arrays made from it keep it alive; nothing is read until touched.

    `stream` is the open file where it has no path of its own; `path` then only names it in errors.
    """

    def __init__(self, path: Path, stream: BinaryIO | None = None) -> None:
        self.path: Path | str = path
        self.start = 0
        with open(path, "rb") if stream is None else stream as file:
            self.size = file.seek(0, io.SEEK_END)
            if self.size == 0:
                raise ModelFileError(f"{path}: the file is empty")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def part(self, start: int, size: int, name: str) -> MappedFile:
        """`size` bytes from `start` (inside this file) as a file of their own, called `name` in errors."""
        inner = object.__new__(MappedFile)
        inner.path, inner.start, inner.size, inner._map = name, self.start + start, size, self._map
        return inner

    def read(self, offset: int, n_bytes: int) -> bytes:
        """At most `n_bytes` from `offset` on; fewer at the end of the file."""
        begin = self.start + min(offset, self.size)
        return self._map[begin : min(begin + n_bytes, self.start + self.size)]

    def stream(self) -> BinaryIO:
        """A readable, seekable stream over the bytes, for the standard library's archive readers."""
        return cast(BinaryIO, _Stream(self))

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
        return np.frombuffer(self._map, dtype=dtype, count=count, offset=self.start + offset).reshape(shape)

    def _forget(self) -> None:
        """Gives back the pages that were read so far (they come again when touched): a conversion walks
        through the file once, and without this its resident size would grow to the file's."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class _Stream(io.RawIOBase):
    """The reading side of a MappedFile. A read never allocates more than there is."""

    def __init__(self, file: MappedFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._file.size - self._position)
        data = self._file.read(self._position, left if size is None or size < 0 else min(size, left))
        self._position += len(data)
        return data


class Cursor:
    """Reads a header field by field; each method names what it wanted when the file ends too early."""

    def __init__(self, file: MappedFile, offset: int = 0) -> None:
        self.file = file
        self.offset = offset

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes`."""
        self.skip(n_bytes, what)
        return self.file.read(self.offset - n_bytes, n_bytes)

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
