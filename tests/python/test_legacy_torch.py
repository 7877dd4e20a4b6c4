"""Checkpoints in the format of torch before 1.6: read as torch reads them, and refused when they are damaged.

`torch-legacy.pt` was written by torch 2.13::

    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    line = torch.linspace(-1, 1, 5)
    tensors = {"whole": whole, "view": whole[1:3, 2:5], "turned": whole.t(), "half": line.half(),
               "bf16": line.bfloat16(), "ints": torch.arange(3), "scalar": torch.tensor(2.5)}
    torch.save({"step": 7, "model_state": tensors}, "torch-legacy.pt", _use_new_zipfile_serialization=False)
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legacy_torch import MAGIC, LegacyPickle, legacy_bytes, write_legacy

from malformed_torch import TORCH_CASES
from refusals import ids, little_memory
from rustasr.convert.torch_pickle import TorchArchive
from rustasr.errors import ModelError, ModelFileError, UnsupportedModelError
from tiny_whisper import Checkpoint, make_checkpoint
from whisper_writers import Call, Stored, torch_tensor

OFFICIAL = Path(__file__).parent.parent / "data/goldens/torch-legacy.pt"
FOUR = {"0": np.arange(4, dtype=np.float32)}
HOOKS = Call("collections", "OrderedDict")


def read_all(path: Path) -> dict[str, Any]:
    """Every tensor of the model's state, with its values."""
    archive = TorchArchive(path)
    root = archive.root if isinstance(archive.root, dict) else {}
    state = root.get("model_state", root.get("model_state_dict"))
    if not isinstance(state, dict):
        return {}
    return {name: archive.tensor(name, value).read() for name, value in state.items()}


def test_a_file_of_torch_itself() -> None:
    whole, line = np.arange(24, dtype=np.float32).reshape(4, 6), np.linspace(-1, 1, 5, dtype=np.float32)
    wanted = {"whole": whole, "view": whole[1:3, 2:5], "turned": whole.T, "half": line, "bf16": line,
              "ints": np.arange(3), "scalar": np.float32(2.5)}  # fmt: skip
    assert TorchArchive(OFFICIAL).root["step"] == 7
    found = read_all(OFFICIAL)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].flags.aligned, name


def test_what_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    """States of an optimizer: passed over, whatever hundreds of megabytes they are."""
    size = 100 << 20
    mean = Call(
        "torch._utils",
        "_rebuild_tensor_v2",
        Stored("FloatStorage", "m", size),
        0,
        (size,),
        (1,),
        False,
        HOOKS,
    )
    root = {"model_state": {"w": torch_tensor(FOUR["0"], "0")}, "optimizer_state": {"state": {1403: mean}}}
    head = legacy_bytes(LegacyPickle().add(root).done(), {}, keys=["m", "0"])
    path = tmp_path / "model.pt"
    with open(path, "wb") as stream:
        stream.write(head + struct.pack("<q", size))
        stream.seek(4 * size, os.SEEK_CUR)
        stream.write(struct.pack("<q", 4) + FOUR["0"].tobytes())
    np.testing.assert_array_equal(read_all(path)["w"], FOUR["0"])


def test_every_cut_is_refused(tmp_path: Path) -> None:
    data, path = OFFICIAL.read_bytes(), tmp_path / "cut.pt"
    with little_memory():
        for n in range(len(data)):
            path.write_bytes(data[:n])
            with pytest.raises(ModelError) as caught:
                read_all(path)
            assert str(path) in str(caught.value), n


def test_no_flipped_byte_does_harm(tmp_path: Path) -> None:
    """An error of ours, or other values: never anything else."""
    data, path = OFFICIAL.read_bytes(), tmp_path / "flipped.pt"
    refused = 0
    with little_memory():
        for mask in (0x01, 0x80, 0xFF):
            for i in range(len(data)):
                path.write_bytes(data[:i] + bytes([data[i] ^ mask]) + data[i + 1 :])
                try:
                    read_all(path)
                except ModelError:
                    refused += 1
    assert refused > len(data)  # most of the file is its pickles


def one_tensor(**others: Any) -> Callable[[Path], Any]:
    """A good file of one tensor of four numbers, but for what is told."""
    storages = others.pop("storages", FOUR)
    return lambda path: write_legacy(
        path, {"model_state": {"w": torch_tensor(FOUR["0"], "0")}}, storages, **others
    )


def two_tensors(kind: str, count: int) -> Callable[[Path], Any]:
    """Two tensors in one storage, whose type and size the second one tells otherwise."""
    second = Call("torch._utils", "_rebuild_tensor_v2", Stored(kind, "0", count), 0, (2,), (1,), False, HOOKS)
    root = {"model_state": {"a": torch_tensor(FOUR["0"], "0"), "b": second}}
    return lambda path: write_legacy(path, root, FOUR)


def raw(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(pickle.dumps(MAGIC, protocol=2) + data)


def part_of(value: Any) -> Callable[[Path], Any]:
    content = LegacyPickle(value).add({"model_state": {"w": torch_tensor(FOUR["0"], "0")}}).done()
    return lambda path: path.write_bytes(legacy_bytes(content, FOUR))


def lengths(count: int) -> Callable[[Path], Any]:
    """The file says of its storage that it has `count` elements."""

    def write(path: Path) -> None:
        one_tensor()(path)
        data = path.read_bytes()
        path.write_bytes(data[:-24] + struct.pack("<q", count) + data[-16:])

    return write


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "version 1002": (one_tensor(version=1002), "version 1002 .*expected 1001"),
    "version a list": (one_tensor(version=[[1]]), "version .*expected 1001"),
    "version text": (one_tensor(version="1001"), "expected 1001"),
    "version nested": (one_tensor(version=b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."), "version"),
    "machine a number": (one_tensor(machine=3), "expected 1001|machine"),
    "machine with a list as key": (one_tensor(machine=b"\x80\x02}(]K\x02u."), "machine .*dictionary key"),
    "big endian": (one_tensor(machine={"little_endian": False}), "big-endian"),
    "byte order untold": (one_tensor(machine={}), "big-endian"),
    "keys a number": (one_tensor(keys=3), "lists 0 storages"),
    "keys missing": (one_tensor(keys=[]), "lists 0 storages"),
    "a key too many": (one_tensor(keys=["0", "1"]), "lists 2 storages"),
    "a key twice": (one_tensor(keys=["0", "0"]), "lists 2 storages"),
    "another key": (one_tensor(keys=["1"]), "lists 1 storages"),
    "a key that is a number": (one_tensor(keys=[0]), "lists 0 storages"),
    "a key that is a list": (one_tensor(keys=[["0"]]), "lists 0 storages"),
    "a key that is a dictionary": (one_tensor(keys=[{"0": 1}]), "lists 0 storages"),
    "keys nested": (
        one_tensor(keys=b"\x80\x02](" + b"(" * 60_000 + b"t" * 60_000 + b"e."),
        "lists 0 storages",
    ),
    "keys a hundred thousand": (one_tensor(keys=[str(i) for i in range(100_000)]), "keys|lists"),
    "a storage missing": (one_tensor(storages={}, keys=["0"]), "length of storage '0' needs bytes"),
    "a storage of three": (one_tensor(storages={"0": FOUR["0"][:3]}), "3 elements, its tensors say 4"),
    "a storage of five": (one_tensor(storages={"0": np.zeros(5, np.float32)}), "5 elements"),
    **{f"a storage of {n:#x}": (lengths(n), "elements") for n in (-1, 0, 1 << 40, (1 << 63) - 1, -(1 << 63))},
    "two sizes": (two_tensors("FloatStorage", 5), "two types or sizes"),
    "two types": (two_tensors("HalfStorage", 4), "two types or sizes"),
    "a storage in another one": (part_of(("1", 0, 4)), "inside another one"),
    "a storage in a number": (part_of(3), "inside another one"),
    "nothing behind the magic number": (raw(b""), "version"),
    "only versions": (raw(pickle.dumps(1001, protocol=2) * 4), "expected 1001"),
    "zeros": (raw(bytes(99)), "version"),
    "text without end": (raw(b"\x80\x02c" + b"x" * (17 << 20)), "version"),
    "a number of a million digits": (raw(b"\x80\x02I" + b"9" * (1 << 20) + b"\n."), "version"),
}


@pytest.mark.parametrize("case", ids(CASES))
def test_a_damaged_file_is_refused(tmp_path: Path, case: tuple[Callable[[Path], Any], str]) -> None:
    (write, message), path = case, tmp_path / "model.pt"
    write(path)
    with little_memory(), pytest.raises(ModelError, match=message):
        read_all(path)


def test_a_huge_count_is_refused(tmp_path: Path) -> None:
    """Text of a number too long for Python's own limit would be another error."""
    content = b"\x80\x02}X\x01\0\0\0w(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuI"
    path = tmp_path / "model.pt"
    path.write_bytes(legacy_bytes(content + b"9" * 4300 + b"\nNtQs.", FOUR))
    with pytest.raises(ModelFileError, match="without key or size"):
        read_all(path)


@pytest.fixture(scope="module")
def made() -> Checkpoint:
    return make_checkpoint(dtype="f2")


def pickle_in_zip(path: Path) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("archive/data.pkl")
    except (zipfile.BadZipFile, KeyError, OSError):
        return None


# A broadcast tensor is well-formed: it is refused for its shape, when that is compared.
HOSTILE = {name: write_bad for name, write_bad in TORCH_CASES.items() if name != "shape huge"}


@pytest.mark.parametrize("write_bad", ids(HOSTILE))
def test_a_hostile_pickle_is_refused(
    tmp_path: Path, made: Checkpoint, write_bad: Callable[[Path, Checkpoint], Any]
) -> None:
    """What the tests of the zip format put into data.pkl, in each of the pickles here."""
    path = tmp_path / "model.pt"
    write_bad(tmp_path / "zip.pt", made)
    bad = pickle_in_zip(tmp_path / "zip.pt")
    if bad is None:
        pytest.skip("nothing but the zip is wrong")
    good = LegacyPickle().add({"model_state": {"w": torch_tensor(FOUR["0"], "0")}}).done()
    for place in ("version", "machine", "keys", "content"):
        parts = {"content": good, place: bad}
        path.write_bytes(legacy_bytes(parts.pop("content"), FOUR, **parts))
        with little_memory(), pytest.raises(ModelError):
            read_all(path)
        assert not (tmp_path / "harm").exists(), "a pickle was executed"


def test_other_constructors_stay_refused(tmp_path: Path) -> None:
    root = {"model_state": {"w": Call("os", "mkdir", str(tmp_path / "harm"))}}
    with pytest.raises(UnsupportedModelError, match=r"os\.mkdir"):
        read_all(write_legacy(tmp_path / "model.pt", root, {}))
    assert not (tmp_path / "harm").exists()
