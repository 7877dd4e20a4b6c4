"""Damaged and hostile torch archives for test_malformed_sources.py: name -> writer of one bad file."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tiny_whisper import Checkpoint
from whisper_writers import (
    Call,
    Pickle,
    Stored,
    openai_pickle,
    torch_tensor,
    write_openai_pt,
    write_torch_zip,
)

Writer = Callable[[Path, Checkpoint], Any]
HOOKS = Call("collections", "OrderedDict")


class Harm:
    """Unpickling this makes a directory beside the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def dims(made: Checkpoint, **changes: Any) -> dict[str, Any]:
    return {name: getattr(made.dims, name) for name in made.dims.__dataclass_fields__} | changes


def raw(build: Callable[[Path, Checkpoint], bytes]) -> Writer:
    """An archive whose data.pkl is these bytes."""
    return lambda path, made: write_torch_zip(path, build(path, made), [np.zeros(4, np.float32)])


def opcodes(data: bytes) -> Writer:
    return raw(lambda path, made: b"\x80\x02" + data)


def root(build: Callable[[Checkpoint], Any]) -> Writer:
    """An archive whose root is what `build` returns."""
    return raw(lambda path, made: Pickle().add(build(made)).done())


def one_tensor(
    shape: Any = (4,),
    strides: Any = (1,),
    offset: Any = 0,
    stored: Any = None,
    name: str = "_rebuild_tensor_v2",
) -> Writer:
    """A checkpoint whose only tensor is odd; its storage "0" has four floats."""

    def build(made: Checkpoint) -> Any:
        storage = Stored("FloatStorage", "0", 4) if stored is None else stored
        call = Call("torch._utils", name, storage, offset, shape, strides, False, HOOKS)
        return {"dims": dims(made), "model_state_dict": {"encoder.conv1.weight": call}}

    return root(build)


def edited(change: Callable[[bytes], bytes]) -> Writer:
    """A good archive with its bytes changed."""

    def write(path: Path, made: Checkpoint) -> None:
        write_openai_pt(path, made)
        path.write_bytes(change(path.read_bytes()))

    return write


def _state(made: Checkpoint, change: Callable[[dict[str, Any]], Any]) -> Any:
    state = {name: torch_tensor(value, "0") for name, value in made.tensors.items()}
    change(state)
    return {"dims": dims(made), "model_state_dict": state}


def _members(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _short_storage(path: Path, made: Checkpoint) -> None:
    storages = [np.ascontiguousarray(value).reshape(-1)[:-1] for value in made.tensors.values()]
    write_torch_zip(path, openai_pickle(made), storages)


def _global_call(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(X\x04\0\0\0harmtR."


TORCH_CASES: dict[str, Writer] = {
    # hostile pickles
    "os.mkdir": raw(lambda path, made: pickle.dumps(Harm(path.parent / "harm"), protocol=2)),
    "os.mkdir protocol 4": raw(lambda path, made: pickle.dumps(Harm(path.parent / "harm"), protocol=4)),
    "os.mkdir protocol 0": raw(lambda path, made: pickle.dumps(Harm(path.parent / "harm"), protocol=0)),
    "os.mkdir among tensors": raw(
        lambda path, made: pickle.dumps({"model_state_dict": Harm(path.parent / "harm")}, protocol=2)
    ),
    "os.mkdir before stop": raw(
        lambda path, made: Pickle().add({}).data + pickle.dumps(Harm(path.parent / "harm"), protocol=2)[2:]
    ),
    "builtins.eval": opcodes(_global_call("builtins", "eval")),
    "torch.load": opcodes(_global_call("torch", "load")),
    "getattr": opcodes(_global_call("builtins", "getattr")),
    "INST": opcodes(b"(X\x04\0\0\0harmios\nmkdir\n."),
    "OBJ": opcodes(b"(cos\nmkdir\nX\x04\0\0\0harmo."),
    "NEWOBJ": opcodes(b"cos\nPathLike\n)\x81."),
    "NEWOBJ_EX": opcodes(b"cos\nPathLike\n)}\x92."),
    "BUILD on a global": opcodes(b"cos\nmkdir\n}b."),
    "EXT1": opcodes(b"\x82\x01."),
    "a nested STACK_GLOBAL": opcodes(b"\x8c\x02os\x8c\x05mkdir\x93X\x04\0\0\0harm\x85R."),
    "a global as data": opcodes(b"}X\x01\0\0\0acos\nmkdir\ns."),
    # damaged pickles
    "an empty pickle": raw(lambda path, made: b""),
    "only STOP": opcodes(b"."),
    "no STOP": opcodes(b"}"),
    "an unknown operation": opcodes(b"\xff."),
    "stack underflow": opcodes(b"R."),
    "a mark popped": opcodes(b"(."),
    "no mark": opcodes(b"}u."),
    "memo never set": opcodes(b"h\x05."),
    "memo of nothing": opcodes(b"q\x05."),
    "a memo index of 4 billion": opcodes(b"}r\xff\xff\xff\xff."),
    "text of 4 GB": opcodes(b"X\xff\xff\xff\xffab."),
    "bytes of 2^60": opcodes(b"\x8e" + struct.pack("<Q", 1 << 60) + b"."),
    "bytearray of 2^40": opcodes(b"\x96" + struct.pack("<Q", 1 << 40) + b"."),
    "a long of 2 GB": opcodes(b"\x8b\xff\xff\xff\x7f."),
    "text not UTF-8": opcodes(b"X\x02\0\0\0\xff\xfe."),
    "append to a dictionary": opcodes(b"}K\x01a."),
    "items of a list": opcodes(b"](K\x01K\x02u."),
    "an odd number of items": opcodes(b"}(K\x01u."),
    "a list as key": opcodes(b"}(]K\x02u."),
    "a key twice": opcodes(b"}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u."),
    "two million operations": opcodes(b"N0" * (1 << 20) + b"."),
    "nested a hundred thousand deep": opcodes(b"(" * 100_000 + b"t" * 100_000 + b"."),
    "a persistent id of a number": opcodes(b"K\x01Q."),
    # roots and dimensions
    "a list": opcodes(b"]."),
    "a number": opcodes(b"K\x07."),
    "no state": root(lambda made: {"dims": dims(made)}),
    "no dims": root(lambda made: {"model_state_dict": {}}),
    "dims a number": root(lambda made: {"dims": 3, "model_state_dict": {}}),
    "a dim missing": root(lambda made: {"dims": {"n_mels": 80}, "model_state_dict": {}}),
    "a dim negative": root(lambda made: {"dims": dims(made, n_vocab=-1), "model_state_dict": {}}),
    "a dim huge": root(lambda made: {"dims": dims(made, n_audio_layer=1 << 30), "model_state_dict": {}}),
    "a dim as text": root(lambda made: {"dims": dims(made, n_mels="80"), "model_state_dict": {}}),
    "a dim true": root(lambda made: {"dims": dims(made, n_text_head=True), "model_state_dict": {}}),
    "state a number": root(lambda made: {"dims": dims(made), "model_state_dict": 3}),
    "state empty": root(lambda made: {"dims": dims(made), "model_state_dict": {}}),
    "state by number": root(lambda made: {"dims": dims(made), "model_state_dict": {3: 4}}),
    "a tensor that is none": root(
        lambda made: _state(made, lambda state: state.update({"decoder.ln.bias": 3}))
    ),
    # tensors and storages
    "negative offset": one_tensor(offset=-1),
    "offset beyond": one_tensor(offset=4),
    "offset as text": one_tensor(offset="0"),
    "negative shape": one_tensor(shape=(-4,)),
    "shape beyond": one_tensor(shape=(5,)),
    "shape empty axis": one_tensor(shape=(0,)),
    "shape huge": one_tensor(shape=(1 << 30, 1 << 30), strides=(0, 0)),
    "shape and strides differ": one_tensor(shape=(2, 2), strides=(1,)),
    "negative stride": one_tensor(strides=(-1,)),
    "stride huge": one_tensor(strides=(1 << 30,)),
    "many axes": one_tensor(shape=(1,) * 60, strides=(1,) * 60),
    "no storage": one_tensor(stored=3),
    "storage of integers": one_tensor(stored=Stored("LongStorage", "0", 2)),
    "storage of another size": one_tensor(stored=Stored("FloatStorage", "0", 5)),
    "storage missing": one_tensor(stored=Stored("FloatStorage", "77", 4)),
    "storage leads outside": one_tensor(stored=Stored("FloatStorage", "../../x", 4)),
    "storage negative": one_tensor(stored=Stored("FloatStorage", "0", -4)),
    "another constructor": one_tensor(name="_rebuild_sparse_tensor"),
    "storages one value short": _short_storage,
    # the archive
    "legacy format": lambda path, made: path.write_bytes(
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\0" * 99
    ),
    "an empty zip": lambda path, made: _members(path, {}),
    "no pickle": lambda path, made: _members(path, {"archive/version": b"3"}),
    "two pickles": lambda path, made: _members(path, {"a/data.pkl": b"}.", "b/data.pkl": b"}."}),
    "a compressed pickle": lambda path, made: _members(
        path, {"archive/data.pkl": openai_pickle(made)}, zipfile.ZIP_DEFLATED
    ),
    "a pickle of 17 MB": lambda path, made: _members(path, {"archive/data.pkl": b"N" * (17 << 20)}),
    "big endian": lambda path, made: _members(path, {"a/data.pkl": b"}.", "a/byteorder": b"big"}),
    **{
        f"cut at {part}": edited(lambda data, part=part: data[: int(len(data) * part)])
        for part in (0.0001, 0.01, 0.5, 0.9, 0.99, 0.9999)
    },
    "central directory moved": edited(lambda data: data[:-6] + b"\xff\xff\xff\x7f" + data[-2:]),
    "entry header overwritten": edited(lambda data: data[: data.index(b"archive/data/3") - 30] + b"XXXX"
                                       + data[data.index(b"archive/data/3") - 26 :]),
    "checksum of the pickle": edited(lambda data: data.replace(b"model_state_dict", b"model_state_dicx", 1)),
}  # fmt: skip
