"""Files in the format of torch before 1.6, written from torch/serialization.py's description: _legacy_save.

Five pickles in a row, then the storages in the order of the fifth: the number of elements, the elements.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from whisper_writers import Pickle, Stored

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
Array = np.ndarray[Any, Any]


class LegacyPickle(Pickle):
    """As torch wrote it before 1.6: a storage also says of what other one it is a part."""

    def __init__(self, part_of: Any = None) -> None:
        super().__init__()
        self.part_of = part_of

    def add(self, value: Any) -> Pickle:
        if not isinstance(value, Stored):
            return super().add(value)
        self.data += b"(X\x07\0\0\0storagectorch\n" + value.kind.encode() + b"\n"
        self.add(value.key).add("cuda:0").add(value.count).add(self.part_of)
        self.data += b"tQ"
        return self


def legacy_bytes(content: bytes, storages: dict[str, Array], **others: Any) -> bytes:
    """A whole file around the pickle of the object. `others`: `version`, `machine` and `keys`, where they are
    not the usual ones, and as bytes where they are no usual pickles."""
    parts = {"version": VERSION, "machine": MACHINE, "keys": list(storages), **others}
    pickles = {
        name: part if isinstance(part, bytes) else pickle.dumps(part, protocol=2)
        for name, part in parts.items()
    }
    head = [pickle.dumps(MAGIC, protocol=2), pickles["version"], pickles["machine"], content, pickles["keys"]]
    data = [struct.pack("<q", value.size) + value.tobytes() for value in storages.values()]
    return b"".join([*head, *data])


def write_legacy(path: Path, root: Any, storages: dict[str, Array], **others: Any) -> Path:
    """A file that holds `root`, whose tensors lie in `storages`."""
    path.write_bytes(legacy_bytes(LegacyPickle().add(root).done(), storages, **others))
    return path
