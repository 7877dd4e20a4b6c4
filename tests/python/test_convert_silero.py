"""Silero VAD's published program becomes a GGUF; what is damaged, or holds other weights, is refused."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from refusals import assert_refused, ids
from rustasr import hub, hub_fetch, registry
from rustasr.cli import main
from rustasr.convert import convert, detect, silero_copies
from rustasr.convert.gguf_input import open_gguf
from rustasr.errors import ModelNotFoundError
from tiny_silero import State, random_state, write_jit
from whisper_writers import Call, Made, Named, Pickle, write_torch_zip

ROW = registry.get("silero-vad")


@pytest.fixture(scope="module")
def state() -> State:
    return random_state()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


# --- what is made


@pytest.mark.parametrize("qtype", ["f32", "q8_0", "f16"])
def test_the_weights_stay_f32_whatever_is_asked_for(qtype: str, tmp_path: Path, state: State) -> None:
    source = write_jit(tmp_path / "silero_vad.jit", state)
    report = convert(source, tmp_path / "a.gguf", qtype=qtype)
    assert (report.architecture, report.kind) == ("silero-vad", "torch")
    assert report.warnings == (f"{source} is no published file of Silero VAD 6.2",)
    assert {tensor.dtype for tensor in open_gguf(report.output).tensors} == {"f32"}
    assert bool(report.fallbacks) is (qtype != "f32")


def test_what_meets_padding_is_left_out_and_the_rest_is_moved(tmp_path: Path, state: State) -> None:
    convert(write_jit(tmp_path / "silero_vad.jit", state), tmp_path / "a.gguf")
    made = {tensor.name: tensor.build() for tensor in open_gguf(tmp_path / "a.gguf").tensors}
    np.testing.assert_allclose(made["vad.stft.window"], np.hanning(257)[:-1], rtol=0, atol=1e-7)
    first = made["vad.encoder.0.weight"]
    assert np.array_equal(
        first[:, :387].reshape(128, 3, 129).transpose(0, 2, 1), state["encoder.0.reparam_conv.weight"]
    )
    assert first.shape == (128, 400) and not first[:, 387:].any()
    third = made["vad.encoder.2.weight"].reshape(64, 2, 64).transpose(0, 2, 1)
    assert np.array_equal(third, state["encoder.2.reparam_conv.weight"][:, :, 1:])
    assert np.array_equal(made["vad.encoder.3.weight"], state["encoder.3.reparam_conv.weight"][:, :, 1])
    biases = state["decoder.rnn.bias_ih"] + state["decoder.rnn.bias_hh"]
    assert np.array_equal(made["vad.lstm.input.bias"], biases)


# --- what is refused

Damage = Callable[[Path, State], Any]


def without(name: str) -> Damage:
    return lambda path, state: write_jit(path, {key: value for key, value in state.items() if key != name})


def with_tensor(name: str, value: Any) -> Damage:
    return lambda path, state: write_jit(path, state | {name: np.asarray(value, np.float32)})


def setting(**changes: Any) -> Damage:
    return lambda path, state: write_jit(path, state, **changes)


def edited(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path, state: State) -> None:
        write_jit(path, state)
        path.write_bytes(change(path.read_bytes()))

    return damage


def root_is(value: Any) -> Damage:
    return lambda path, state: write_torch_zip(path, Pickle().add(value).done(), [])


def _module(state: Any, module: str = "__torch__.a") -> Made:
    return Made(Named(module, "Net"), state)


def _deep(levels: int) -> Any:
    value: Any = _module({})
    for _ in range(levels):
        value = _module({"a": value})
    return value


DAMAGES: dict[str, Damage] = {
    "a tensor missing": without("decoder.rnn.bias_hh"),
    "the basis missing": without("stft.forward_basis_buffer"),
    "another transform": lambda path, state: write_jit(
        path, state | {"stft.forward_basis_buffer": state["stft.forward_basis_buffer"][::-1].copy()}
    ),
    "a transform not finite": with_tensor("stft.forward_basis_buffer", np.full((258, 1, 256), np.nan)),
    "a tensor too many": with_tensor("decoder.extra", [1.0]),
    "another shape": with_tensor("encoder.3.reparam_conv.weight", np.zeros((128, 64, 5))),
    "an empty tensor": with_tensor("decoder.decoder.2.bias", []),
    "not finite": with_tensor("decoder.decoder.2.bias", [np.nan]),
    "another sample rate": setting(sample_rate=8000),
    "another context": setting(context_size_samples=32),
    "no sample rate": setting(sample_rate=None),
    "a tensor that is a number": setting(stft=3),
    **{
        f"cut at {part}": edited(lambda data, part=part: data[: int(len(data) * part)])
        for part in (0.0001, 0.1, 0.5, 0.99, 0.99999)
    },
    "a name flipped": edited(lambda data: data.replace(b"weight_hh", b"weight_hx")),
    "a storage renamed": edited(lambda data: data.replace(b"archive/data/3", b"archive/dbta/3")),
    "another program": root_is(_module({"weight": 3})),
    "no modules": root_is(_module({})),
    "modules without end": root_is(_deep(40)),
    "a module that is called": root_is(Call("__torch__.a", "Net", 3)),
    "a module of Python": root_is(_module({}, "os")),
    "a list of a call": root_is({"a": Call("torch.jit._pickle", "build_intlist", [1], [2])}),
}


@pytest.mark.parametrize("damage", ids(DAMAGES))
def test_a_damaged_program_is_refused(damage: Damage, tmp_path: Path, state: State) -> None:
    path = tmp_path / "silero_vad.jit"
    damage(path, state)
    assert str(path) in assert_refused(path, tmp_path) or damage is DAMAGES["not finite"]


def test_a_module_inside_itself_is_refused(tmp_path: Path) -> None:
    own = b"\x80\x02c__torch__.a\nNet\n)\x81q\0}(X\x01\0\0\0ah\0ub."
    path = write_torch_zip(tmp_path / "silero_vad.jit", own, [])
    assert "nested deeper" in assert_refused(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("silero_vad_half.onnx", b"\x08\x07\x12\x07pytorch"),
        ("silero_vad_16k.safetensors", b"\x10" + b"\0" * 7 + b"{" + b" " * 15),
    ],
)
def test_copies_with_other_weights_say_which(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(silero_copies._COPIES, digest, (len(content), name, "the weights of version 5"))
    monkeypatch.setattr(silero_copies, "_SIZES", {len(content)})
    (tmp_path / "copy").write_bytes(content)
    message = assert_refused(tmp_path / "copy", tmp_path)
    assert f"is {name} and holds the weights of version 5" in message
    assert "rustasr models pull silero-vad" in message


def test_the_table_of_copies_is_made_of_hashes_and_sizes() -> None:
    assert len(silero_copies._COPIES) >= 13
    assert not set(silero_copies._COPIES) & set(ROW.known_sha256)
    for digest, (size, name, holds) in silero_copies._COPIES.items():
        assert len(bytes.fromhex(digest)) == 32 and 800_000 < size < 3_000_000 and name and holds


# --- by name


@pytest.mark.weights
def test_the_published_file_keeps_its_name_and_licence(silero_gguf: Path) -> None:
    metadata = open_gguf(silero_gguf).metadata
    found = {key: metadata[f"general.{key}"].value for key in ("name", "license")}
    assert found == {"name": "silero-vad", "license": "MIT"}
    assert metadata["rustasr.source_sha256"].value == ROW.package_weights_sha256


def test_pull_takes_the_program_out_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path, state: State
) -> None:
    jit = write_jit(tmp_path / "silero_vad.jit", state)
    wheel = tmp_path / "silero_vad.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(jit, "silero_vad/data/silero_vad.jit")

    def download(_: registry.PackageArchive, folder: Path) -> Path:
        folder.mkdir(parents=True)
        return Path(wheel.rename(folder / wheel.name))

    digest = hashlib.sha256(jit.read_bytes()).hexdigest()
    row = replace(ROW, known_sha256=(digest,), package_weights_sha256=digest)
    monkeypatch.setattr(hub_fetch, "download_package", download)
    monkeypatch.setitem(registry._BY_NAME, "silero-vad", row)
    monkeypatch.setattr(registry, "MODELS", (row,))
    path = hub.pull("silero-vad")
    assert path == root / "silero-vad-f32.gguf"
    assert hub.resolve("silero-vad") == path
    (model,) = hub.verify("silero-vad")
    assert (model.name, model.qtype, model.source) == ("silero-vad", "f32", "silero-vad==6.2.3")


def test_the_list_shows_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listing = CliRunner().invoke(main, ["models", "list"]).output
    (line,) = (line for line in listing.splitlines() if "silero-vad" in line)
    assert line.split() == ["silero-vad", "vad", "0.3", "M", "-", "-", "any", "MIT", "package", "index"]


def test_without_a_connection_the_message_says_how_to_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(archive: registry.PackageArchive, folder: Path) -> Path:
        raise ModelNotFoundError(f"{archive.requirement} could not be fetched")

    monkeypatch.setattr(hub_fetch, "download_package", download)
    for source in ("auto", "index", "hub"):
        with pytest.raises(
            ModelNotFoundError,
            match=r"pip download --no-deps silero-vad==6\.2\.3.*silero_vad/data/silero_vad\.jit.*-f32\.gguf",
        ):
            hub.pull("silero-vad", source=source)


def test_a_folder_with_the_program_is_recognised(tmp_path: Path, state: State) -> None:
    write_jit(tmp_path / "silero_vad.jit", state)
    assert detect(tmp_path).files == (tmp_path / "silero_vad.jit",)
