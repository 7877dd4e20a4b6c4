"""Reader of PyTorch checkpoints without torch, and without running anything that they contain.

A `torch.save` file is an uncompressed zip: `<root>/data.pkl`, a pickle whose tensors refer to storages, and
one `<root>/data/<key>` per storage (torch/serialization.py, torch/_utils.py). Python's unpickler would call
whatever a hostile pickle names; this one does not unpickle at all. It walks the opcodes (decoded by the
standard `pickletools`) with a small stack machine that knows plain containers, numbers, text, the few
constructors of tensors, OmegaConf's nodes and TorchScript's modules, and refuses the rest by name.

A file of torch before 1.6 is five pickles in a row (magic number, version, machine, the object, the keys of
its storages), and behind them the storages in the order of the keys: the number of elements in 8 bytes, the
elements.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.binary import MAX_RANK, MappedFile
from rustasr.convert.common import ALL_ROWS, SourceTensor, shown
from rustasr.convert.encoding import bf16_floats
from rustasr.convert.omegaconf_nodes import CLASSES, OmegaNode
from rustasr.errors import ModelFileError, UnsupportedModelError

LEGACY_HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's old magic number
ZIP_HEAD = b"PK\x03\x04"
_MAX_PICKLE_BYTES = 16 << 20
_MAX_OPERATIONS = 1 << 18  # the largest Whisper needs 40,000
_MAX_MODULE_DEPTH = 16
_LEGACY_VERSION = 1001
_LARGEST = 1 << 62  # of the numbers that place a tensor in its file
_STORAGES = {"HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "BFloat16Storage": "<u2",
             "LongStorage": "<i8"}  # fmt: skip
_NAMES = {"HalfStorage": "f16", "FloatStorage": "f32", "DoubleStorage": "f64", "BFloat16Storage": "bf16",
          "LongStorage": "i64"}  # fmt: skip


@dataclass(frozen=True)
class Global:
    """A name that the pickle mentions. It is never imported."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """A flat buffer in the archive: torch's storage type, key, number of elements."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TorchTensor:
    """A strided view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class ScriptModule:
    """A module of a TorchScript program (torch.jit.save) with its attributes; `kind` is its class. The code
    of that class lies beside the pickle and is not looked at."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)

    def contents(self, where: str, depth: int = 0) -> tuple[dict[str, TorchTensor], dict[str, Any]]:
        """(tensors that are not empty, by dotted name; the other attributes, nested as the modules are)."""
        if depth > _MAX_MODULE_DEPTH:
            raise ModelFileError(f"{where}: modules nested deeper than {_MAX_MODULE_DEPTH}: damaged")
        tensors: dict[str, TorchTensor] = {}
        settings: dict[str, Any] = {}
        for name, value in self.state.items():
            if isinstance(value, ScriptModule):
                inner, settings[name] = value.contents(where, depth + 1)
                tensors |= {f"{name}.{inside}": tensor for inside, tensor in inner.items()}
            elif not isinstance(value, TorchTensor):
                settings[name] = value
            elif 0 not in value.shape:
                tensors[name] = value
        return tensors, settings


class _Mark:
    """Pushed by MARK."""


class TorchArchive:
    """A checkpoint: `root` is the object that was saved, with TorchTensor leaves."""

    def __init__(self, source: Path | MappedFile) -> None:
        self.file = source if isinstance(source, MappedFile) else MappedFile(source)
        self.path = path = self.file.path
        self._starts: dict[str, int] | None = None  # of the storages, by key; a zip is asked for each
        if self.file.read(0, len(LEGACY_HEAD)) == LEGACY_HEAD:
            self.root, self._starts = self._read_legacy()
            return
        try:
            with zipfile.ZipFile(self.file.stream()) as archive:
                self.entries = {entry.filename: entry for entry in archive.infolist()}
                pickle, self.prefix = self._read_pickle(archive)
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
            EOFError,
        ) as error:
            raise ModelFileError(f"{path}: not a complete torch archive: {error}") from error
        self.root = _Machine(pickle, f"{path}: data.pkl").run()

    def _read_pickle(self, archive: zipfile.ZipFile) -> tuple[bytes, str]:
        names = [name for name in self.entries if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(names) != 1:
            raise ModelFileError(
                f"{self.path}: a zip with {len(names)} data.pkl, expected one: not a torch file"
            )
        entry = self.entries[names[0]]
        if entry.file_size > _MAX_PICKLE_BYTES or entry.compress_type != zipfile.ZIP_STORED:
            raise ModelFileError(
                f"{self.path}: data.pkl of {entry.file_size} bytes, expected a few uncompressed KB"
            )
        prefix = names[0].removesuffix("data.pkl")
        order = self.entries.get(prefix + "byteorder")
        if order is not None and order.file_size <= 16 and archive.read(order).strip() != b"little":
            raise UnsupportedModelError(f"{self.path}: saved on a big-endian machine")
        return archive.read(entry), prefix

    def _read_legacy(self) -> tuple[Any, dict[str, int]]:
        """The object in a file of torch before 1.6, and where each of its storages begins."""
        version, offset = self._next_pickle(len(LEGACY_HEAD), "version")
        machine, offset = self._next_pickle(offset, "machine")
        if version.result != _LEGACY_VERSION or not isinstance(machine.result, dict):
            raise UnsupportedModelError(
                f"{self.path}: version {shown(version.result)} of the format before torch 1.6, expected "
                f"{_LEGACY_VERSION}; load it with torch and torch.save it again"
            )
        if machine.result.get("little_endian") is not True:
            raise UnsupportedModelError(f"{self.path}: saved on a big-endian machine")
        content, offset = self._next_pickle(offset, "object")
        listed, offset = self._next_pickle(offset, "keys of the storages")
        return content.result, self._storage_starts(content.storages, listed.result, offset)

    def _next_pickle(self, offset: int, what: str) -> tuple[_Machine, int]:
        """One of the pickles in a row, read, and where the next one begins."""
        machine = _Machine(self.file.read(offset, _MAX_PICKLE_BYTES), f"{self.path}: {what} (byte {offset})")
        machine.result = machine.run()
        machine.data = b""
        return machine, offset + machine.end

    def _storage_starts(self, storages: dict[str, Storage], listed: Any, offset: int) -> dict[str, int]:
        """The storages that lie behind each other from `offset` on, in the order `listed`."""
        keys = [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []
        if len(keys) != len(storages) or set(keys) != set(storages):
            raise ModelFileError(
                f"{self.path}: lists {len(keys)} storages (before byte {offset}), and its tensors lie in "
                f"{len(storages)}, not the same ones: damaged"
            )
        starts = {}
        for key in keys:
            storage = storages[key]
            count = int(self.file.array(offset, (1,), "<i8", f"the length of storage {key!r:.80}")[0])
            if count != storage.count:
                raise ModelFileError(
                    f"{self.path}: storage {key!r:.80} (byte {offset}) has {count} elements, its tensors say "
                    f"{storage.count}: damaged"
                )
            starts[key] = offset + 8
            offset += 8 + count * np.dtype(_STORAGES[storage.kind]).itemsize
            if offset > self.file.size:
                raise ModelFileError(
                    f"{self.path}: storage {key!r:.80} ends at byte {offset}, the file has {self.file.size}: "
                    "truncated or damaged, fetch it again"
                )
        return starts

    def tensor(self, name: str, value: Any) -> SourceTensor:
        """A leaf of `root` as a source tensor; its bounds are checked here, its data read later."""
        if not isinstance(value, TorchTensor):
            raise ModelFileError(f"{self.path}: {name!r} is {type(value).__name__}, expected a tensor")
        dtype = np.dtype(_STORAGES[value.storage.kind])
        start = self._data_offset(name, value.storage, dtype.itemsize)
        last = value.offset + sum((n - 1) * step for n, step in zip(value.shape, value.strides, strict=True))
        if 0 in value.shape or last >= value.storage.count:
            raise ModelFileError(
                f"{self.path}: {name!r} of shape {list(value.shape)} does not fit its storage "
                f"of {value.storage.count} elements"
            )

        def read(rows: slice = ALL_ROWS) -> NDArray[Any]:
            flat = self.file.array(start, (value.storage.count,), dtype.str, f"storage of {name!r}")
            # Before torch 1.6 storages lie at odd places, behind pickles of any length: then this is a copy.
            flat = np.require(flat, requirements="A")
            strides = tuple(step * dtype.itemsize for step in value.strides)
            view = np.lib.stride_tricks.as_strided(
                flat[value.offset :], value.shape, strides, writeable=False
            )
            if value.shape:
                view = view[rows]
            if value.storage.kind == "BFloat16Storage":
                return bf16_floats(np.ascontiguousarray(view))
            return view.astype(np.float32) if dtype == np.float64 else view

        return SourceTensor(name, value.shape, read, _NAMES[value.storage.kind])

    def _data_offset(self, name: str, storage: Storage, item_size: int) -> int:
        """Where the storage's bytes begin in the file (in a zip behind local header and names)."""
        if self._starts is not None:
            return self._starts[storage.key]
        entry = self.entries.get(f"{self.prefix}data/{storage.key}")
        if entry is None:
            raise ModelFileError(
                f"{self.path}: storage {storage.key!r} of {name!r} is missing from the archive"
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != storage.count * item_size:
            raise ModelFileError(
                f"{self.path}: storage {storage.key!r} of {name!r} has {entry.file_size} bytes, "
                f"expected {storage.count * item_size}, uncompressed"
            )
        header = bytes(self.file.array(entry.header_offset, (30,), "<u1", "a zip entry"))
        if header[:4] != ZIP_HEAD:
            raise ModelFileError(
                f"{self.path}: no zip entry at byte {entry.header_offset}: truncated or damaged"
            )
        n_name, n_extra = struct.unpack("<HH", header[26:30])
        start = int(entry.header_offset) + 30 + int(n_name) + int(n_extra)
        self.file.array(start, (entry.file_size,), "<u1", f"storage of {name!r}")
        return start


class _Machine:
    """Builds the pickled object from the opcodes that torch.save writes (protocols 2 to 5)."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}  # by key
        self.end = 0  # behind the last operation that was read
        self.result: Any = None

    def run(self) -> Any:
        for count, (name, argument) in enumerate(self._operations()):
            if count >= _MAX_OPERATIONS:
                raise ModelFileError(
                    f"{self.where}: more than {_MAX_OPERATIONS} operations: not a set of weights"
                )
            if name == "STOP":
                return self.pop()
            self.step(name, argument)
        raise ModelFileError(f"{self.where}: ends before STOP: truncated")

    def _operations(self) -> Iterator[tuple[str, Any]]:
        try:
            stream = io.BytesIO(self.data)
            for opcode, argument, _ in pickletools.genops(stream):
                self.end = stream.tell()
                yield opcode.name, argument
        except (ValueError, struct.error, IndexError, OverflowError, UnicodeError) as error:
            raise ModelFileError(f"{self.where}: damaged pickle: {error}") from error

    def fail(self, text: str) -> ModelFileError:
        return ModelFileError(f"{self.where}: damaged pickle: {text}")

    def pop(self) -> Any:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise self.fail("the stack is empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if isinstance(item, _Mark):
                return items[::-1]
            items.append(item)
        raise self.fail("no mark on the stack")

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UnsupportedModelError(
                f"{self.where}: uses pickle operation {name}, which plain weights do not need: refused"
            )

    def put(self, argument: Any) -> None:
        if not self.stack:
            raise self.fail("nothing to memoise")
        self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]

    def get(self, argument: Any) -> None:
        if int(argument) not in self.memo:
            raise self.fail(f"memo {argument} was never set")
        self.stack.append(self.memo[int(argument)])

    def short_tuple(self, count: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, list):
            raise self.fail("an item is appended to something that is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise self.fail("an item is set in something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise self.fail(f"a dictionary key is a {type(key).__name__}, expected text or a number")
            if key in target:
                raise self.fail(f"key {key!r:.80} appears twice")
            target[key] = value

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.fail("a global without a name")
        self.stack.append(Global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.named(module, name)

    def persistent(self, _: Any) -> None:
        """("storage", type, key, location, number of elements), and before torch 1.6 what other storage it is
        a part of: None."""
        value = self.pop()
        if isinstance(value, tuple) and len(value) == 6:
            if value[5] is not None:
                raise UnsupportedModelError(
                    f"{self.where}: a storage inside another one, as very old versions of torch wrote them; "
                    "load it with torch and torch.save it again"
                )
            value = value[:5]
        if not (isinstance(value, tuple) and len(value) == 5 and value[0] == "storage"):
            raise self.fail("a persistent id that is no storage")
        kind, key, count = value[1], value[2], value[4]
        if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in _STORAGES:
            name = f"{kind.module}.{kind.name}" if isinstance(kind, Global) else shown(kind)
            raise UnsupportedModelError(
                f"{self.where}: storage of type {name}, expected torch.{'/'.join(_STORAGES)}"
            )
        if not isinstance(key, str) or type(count) is not int or not 0 <= count < _LARGEST:
            raise self.fail("a storage without key or size")
        storage = Storage(kind.name, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise self.fail(f"storage {key!r:.80} has two types or sizes")
        self.stack.append(storage)

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise self.fail("a call of something that has no name")
        self.stack.append(self.construct(function, arguments))

    def construct(self, function: Global, arguments: tuple[Any, ...]) -> Any:
        """The few calls that make containers and tensors; every other one is refused by name."""
        name = f"{function.module}.{function.name}"
        if name == "collections.OrderedDict" and arguments in ((), ([],)):
            return {}
        if name == "collections.defaultdict" and len(arguments) == 1 and isinstance(arguments[0], Global):
            return {}
        if name == "torch.Size" and len(arguments) == 1 and isinstance(arguments[0], tuple):
            return arguments[0]
        if name == "torch.jit._pickle.build_intlist" and len(arguments) == 1:
            return arguments[0]
        if name == "torch._utils._rebuild_tensor_v2" and len(arguments) in (6, 7):
            return self.tensor(*arguments[:4])
        if name == "torch._utils._rebuild_parameter" and len(arguments) == 3:
            return arguments[0]
        raise UnsupportedModelError(
            f"{self.where}: asks to call {name} with {len(arguments)} arguments; a checkpoint of plain "
            "weights has no use for it, so it was not run. If you trust the file, load it with torch and "
            "save its state_dict"
        )

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
        whole = (
            isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_RANK
        )
        numbers = [offset, *shape, *strides] if whole else [None]
        if not isinstance(storage, Storage) or any(
            type(number) is not int or not 0 <= number < _LARGEST for number in numbers
        ):
            raise self.fail("a tensor with a bad storage, offset, shape or stride")
        return TorchTensor(storage, offset, shape, strides)

    def new_object(self, _: Any) -> None:
        """An object made without running its constructor: only OmegaConf's and the modules of TorchScript
        programs, as plain records."""
        arguments, kind = self.pop(), self.pop()
        name = f"{kind.module}.{kind.name}" if isinstance(kind, Global) else shown(kind)
        if isinstance(kind, Global) and name.startswith("__torch__.") and arguments == ():
            self.stack.append(ScriptModule(name))
            return
        if name not in CLASSES or arguments != ():
            raise UnsupportedModelError(
                f"{self.where}: asks for an object of {name}, which plain weights do not need: refused"
            )
        self.stack.append(OmegaNode(name))

    def build(self, _: Any) -> None:
        """State set on an object: the attributes of a record; torch hangs `_metadata` on its ordered
        dictionaries, where there is nothing to keep."""
        state = self.pop()
        if self.stack and isinstance(self.stack[-1], (OmegaNode, ScriptModule)) and isinstance(state, dict):
            self.stack[-1].state.update(state)
            return
        if not self.stack or not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise UnsupportedModelError(
                f"{self.where}: sets the state of an object that is no dictionary: refused"
            )


_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "INT", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_HANDLERS: dict[str, Any] = {
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "POP": lambda machine, _: machine.pop(),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine, argument: machine.named(*str(argument).split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "NEWOBJ": _Machine.new_object,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), _Machine.get),
}
