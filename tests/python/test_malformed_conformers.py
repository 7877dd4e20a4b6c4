"""Damaged and hostile GigaAM and Parakeet checkpoints: a typed error for each, soon, in little memory.

Every case is a small valid checkpoint with one thing wrong. Where a message is given, it is what a user needs
to find the fault: the key, tensor, member or file, and what was expected of it.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformer_checkpoints import (
    PIECES,
    TinyModel,
    hugging_face_name,
    make_gigaam,
    make_parakeet,
    nemo_members,
    omegaconf,
    sentencepiece_bytes,
    tar_bytes,
    tokenizer_json,
    write_gigaam_ckpt,
    write_gigaam_hf,
    write_nemo,
    write_parakeet_hf,
)
from refusals import assert_refused, ids, little_memory
from rustasr.convert import convert
from rustasr.convert.torch_pickle import LEGACY_HEAD
from whisper_writers import Call, Made, Named, Pickle, write_torch_zip

Change = Callable[[TinyModel], TinyModel]


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warm")
    for index, path in enumerate(
        (
            write_gigaam_ckpt(folder / "model.ckpt", make_gigaam()),
            write_nemo(folder / "model.nemo", make_parakeet(), gzipped=True),
            write_parakeet_hf(folder / "hf", make_parakeet("ctc")),
        )
    ):
        convert(path, folder / f"{index}.gguf", qtype="q8_0")


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory():
        yield


def setting(path: str, value: Any, message: str | None = None) -> tuple[Change, str]:
    """One setting replaced (`...`: left out); the message must name it."""
    return lambda made: made.configured(path, value), message or re.escape(path.rpartition(".")[2])


def tensor(name: str, value: Any, message: str | None = None) -> tuple[Change, str]:
    """One tensor replaced (None: left out; a shape: zeros of it); the message must name it."""

    def change(made: TinyModel) -> TinyModel:
        new = np.zeros(value, np.float32) if isinstance(value, tuple) else value
        return made.changed(**{name.replace(".", "__"): new})

    return change, message or re.escape(name)


NOT_NUMBERS = {"text": "64", "true": True, "negative": -1, "zero": 0, "a billion": 10**9, "a list": [4],
               "a fraction": 2.5, "none": None, "2^70": 1 << 70}  # fmt: skip

# --- GigaAM: settings and tensors ---

GIGAAM: dict[str, tuple[Change, str]] = {
    **{f"no {path}": setting(path, ..., f"'cfg.{path}' is missing")
       for path in ("preprocessor", "preprocessor.sample_rate", "preprocessor.features", "encoder",
                    "encoder.d_model", "encoder.n_layers", "encoder.feat_in", "head", "head._target_",
                    "head.decoder", "head.decoder.num_classes", "head.decoder.pred_hidden",
                    "head.decoder.pred_rnn_layers", "head.joint.joint_hidden", "head.joint.enc_hidden",
                    "decoding")},
    **{f"{path} {what}": setting(path, value)
       for path in ("encoder.n_layers", "encoder.d_model", "head.decoder.num_classes",
                    "head.decoder.pred_hidden", "preprocessor.n_fft", "preprocessor.features")
       for what, value in NOT_NUMBERS.items()},
    "encoder a list": setting("encoder", [1]),
    "heads do not divide": setting("encoder.n_heads", 5, "64 is no multiple of 5 heads"),
    "heads that cannot rotate": setting("encoder.n_heads", 64, "cannot rotate"),
    "subsampling by 3": setting("encoder.subsampling_factor", 3, "factor 3 is no power of two"),
    "an even kernel": setting("encoder.conv_kernel_size", 4, "kernel 4 is not odd"),
    "an even stem kernel": setting("encoder.subs_kernel_size", 4, "kernel 4 is even"),
    "a window longer than the transform": setting("preprocessor.win_length", 400),
    "mels disagree": setting("encoder.feat_in", 80, "feat_in is 80, preprocessor.features 64"),
    "joint and decoder disagree": setting("head.joint.num_classes", 99),
    "joint and encoder disagree": setting("head.joint.enc_hidden", 128),
    "symbols as text": setting("decoding.max_symbols_per_step", "ten"),
    "a setting refers to itself": setting("encoder.d_model", "${encoder.d_model}", "refers to itself"),
    "a setting refers to nothing": setting("encoder.d_model", "${no.such.key}", "'no.such.key', which is"),
    "more layers than weights": setting("encoder.n_layers", 3, r"missing, the first is .*layers\.2"),
    "fewer layers than weights": setting("encoder.n_layers", 1, r"unexpected .*layers\.1"),
    **{f"no {name}": tensor(name, None)
       for name in ("preprocessor.featurizer.0.spectrogram.window", "preprocessor.featurizer.0.mel_scale.fb",
                    "encoder.pre_encode.conv.2.bias", "encoder.layers.1.conv.batch_norm.weight",
                    "head.decoder.embed.weight", "head.decoder.lstm.bias_hh_l0",
                    "head.joint.joint_net.1.bias")},
    **{f"{name} of shape {shape}": tensor(name, shape, f"{re.escape(name)}' has shape")
       for name, shape in (("preprocessor.featurizer.0.spectrogram.window", (400,)),
                           ("preprocessor.featurizer.0.mel_scale.fb", (64, 161)),
                           ("encoder.pre_encode.conv.0.weight", (64, 64, 3)),
                           ("encoder.layers.0.self_attn.linear_q.weight", (64, 32)),
                           ("head.decoder.lstm.weight_ih_l0", (128, 64)),
                           ("head.joint.joint_net.1.weight", (14, 48)))},
    "a tensor too many": tensor("encoder.layers.0.extra.weight", (3,), r"unexpected .*extra"),
    "a tensor of whole numbers": tensor("encoder.layers.0.norm_out.bias", np.zeros(64, np.int64),
                                        "norm_out.bias' holds whole numbers"),
    "not a number": tensor("encoder.layers.0.norm_out.bias", np.full(64, np.nan, np.float32),
                           "norm_out.bias' holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", ids(GIGAAM))
def test_gigaam(tmp_path: Path, case: tuple[Change, str]) -> None:
    change, message = case
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", change(make_gigaam("v3", "rnnt")))
    assert re.search(message, assert_refused(path, tmp_path))


VOCABULARIES: dict[str, Any] = {
    "empty": [], "a number": 33, "text": "абв", "numbers": list(range(33)), "empty characters": [""] * 33,
    "too long": ["а" * 5000] * 33, "a list inside": [["а"]] * 33, "one short": ["а"] * 32,
    "none at all": None,
}  # fmt: skip


@pytest.mark.parametrize("vocabulary", ids(VOCABULARIES))
def test_gigaam_characters(tmp_path: Path, vocabulary: Any) -> None:
    made = make_gigaam().configured("decoding.vocabulary", vocabulary)
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", made)
    assert re.search("vocabulary|tokenizer", assert_refused(path, tmp_path))


def test_negative_variances_are_damage(tmp_path: Path) -> None:
    made = make_gigaam("v2")
    made.tensors["encoder.layers.1.conv.batch_norm.running_var"][5] = -3
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", made)
    assert "encoder.layers.1.conv.batch_norm.running_var" in assert_refused(path, tmp_path)


def test_a_hugging_face_folder_needs_its_parts(tmp_path: Path) -> None:
    made = make_gigaam("v3", "rnnt")
    folder = write_gigaam_hf(tmp_path / "hf", made.changed(head__joint__enc__bias=None))
    assert "'model.head.joint.enc.bias'" in assert_refused(folder, tmp_path)
    write_gigaam_hf(folder, made)
    (folder / "tokenizer.model").unlink()
    assert "tokenizer.model" in assert_refused(folder, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "cfg": {}}))
    assert "'cfg.preprocessor' is missing" in assert_refused(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "wav2vec2"}))
    assert re.search("'wav2vec2', expected one of whisper, gigaam", assert_refused(folder, tmp_path))
    (folder / "config.json").unlink()
    assert "config.json" in assert_refused(folder, tmp_path)


# --- GigaAM: hostile pickles ---

DICT_CONFIG = Named("omegaconf.dictconfig", "DictConfig")
LIST_CONFIG = Named("omegaconf.listconfig", "ListConfig")
ANY_NODE = Named("omegaconf.nodes", "AnyNode")


def config(value: Any) -> Callable[[Path], Any]:
    """An otherwise good checkpoint with this in place of its configuration."""
    return lambda path: write_gigaam_ckpt(path, make_gigaam(), cfg=value)


def opcodes(cfg: bytes) -> Callable[[Path], Any]:
    """The root is {"cfg": <what these operations leave>, "state_dict": {}}."""
    data = b"\x80\x02}(X\x03\0\0\0cfg" + cfg + b"X\x0a\0\0\0state_dict}u."
    return lambda path: write_torch_zip(path, data, [])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = Made(LIST_CONFIG, {"_content": [value]})
    return value


def _laughs() -> bytes:
    """Thirty lists, each holding the one before ten times; the last is left on the stack, as memo 30."""
    data = b"]q\x01"
    for index in range(1, 30):
        ten = (b"h" + bytes([index])) * 10
        data += b"0](" + ten + b"eq" + bytes([index + 1])
    return data


PICKLES: dict[str, Callable[[Path], Any]] = {
    "a number": config(7),
    "nothing": config(None),
    "a list": config([1, 2]),
    "an empty configuration": config({}),
    "a list of OmegaConf's": config(omegaconf([1])),
    "a node of OmegaConf's": config(omegaconf(3)),
    "a container without content": config(Made(DICT_CONFIG, {})),
    "a container that is null": config(Made(DICT_CONFIG, {"_content": None})),
    "a container that is missing": config(Made(DICT_CONFIG, {"_content": "???"})),
    "a node without value": config(Made(DICT_CONFIG, {"_content": {"encoder": Made(ANY_NODE, {})}})),
    "a node in a node": config(Made(ANY_NODE, {"_val": Made(ANY_NODE, {"_val": 1})})),
    "a global as value": config({"encoder": Named("os", "mkdir")}),
    "a global in a node": config(Made(ANY_NODE, {"_val": Named("os", "mkdir")})),
    "nested two hundred deep": config(_nested(200)),
    "another class of OmegaConf's": config(Made(Named("omegaconf.omegaconf", "OmegaConf"), {})),
    "a class of the system's": config(Made(Named("os", "PathLike"), {})),
    "a class that looks like OmegaConf's": config(Made(Named("omegaconf.nodes.evil", "AnyNode"), {})),
    "a state that is no dictionary": config(Made(DICT_CONFIG, [1])),
    "a default made by a call": config(Call("collections", "defaultdict", 3)),
    "a default with contents": config(Call("collections", "defaultdict", Named("os", "mkdir"), {"a": 1})),
    "a call of OmegaConf": config(Call("omegaconf", "OmegaConf.create", "harm")),
    "a call of the system": config(Call("os", "mkdir", "harm")),
    "a call in a node": config(Made(ANY_NODE, {"_val": Call("os", "mkdir", "harm")})),
    "a constructor with arguments": opcodes(b"comegaconf.nodes\nAnyNode\nK\x01\x85\x81"),
    "an object of a number": opcodes(b"K\x01)\x81"),
    "an object of nothing": opcodes(b")\x81"),
    "a dictionary in itself": opcodes(b"}q\x01X\x01\0\0\0ah\x01s"),
    "a list in itself": opcodes(b"]q\x01h\x01a"),
    "a container in itself": opcodes(
        b"comegaconf.dictconfig\nDictConfig\n)\x81q\x01}X\x08\0\0\0_content}X\x01\0\0\0ah\x01ssb"
    ),
    "a billion laughs": opcodes(_laughs()),
    "laughs as a storage's type": opcodes(
        _laughs() + b"0(X\x07\0\0\0storageh\x1eX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
    ),
    "laughs as a class": opcodes(_laughs() + b")\x81"),
}  # fmt: skip


@pytest.mark.parametrize("write", ids(PICKLES))
def test_gigaam_pickles(
    tmp_path: Path, write: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.ckpt"
    write(path)
    assert_refused(path, tmp_path)
    assert not (tmp_path / "harm").exists(), "a pickle was executed"


@pytest.mark.parametrize("kind", [Named("os", "PathLike"), Named("omegaconf.omegaconf", "OmegaConf")])
def test_classes_are_refused_by_name(tmp_path: Path, kind: Named) -> None:
    """Also where their attributes look like a configuration's."""
    path = tmp_path / "model.ckpt"
    write_gigaam_ckpt(path, make_gigaam(), cfg=Made(kind, {"_val": 1, "_content": {}}))
    assert f"an object of {kind.module}.{kind.name}" in assert_refused(path, tmp_path)


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_gigaam(tmp_path: Path, part: float) -> None:
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", make_gigaam())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert_refused(path, tmp_path)


# --- SentencePiece ---

GOOD = sentencepiece_bytes()


def piece(body: bytes) -> bytes:
    return b"\x0a" + bytes([len(body)]) + body


MODELS: dict[str, bytes] = {
    "empty": b"",
    "text": b"this is not a model, it is a sentence\n" * 9,
    "a zip": b"PK\x03\x04" + b"\0" * 100,
    "zeros": b"\0" * 200,
    **{f"cut at {n}": GOOD[:n] for n in (1, 2, 3, 9, 20, len(GOOD) - 3)},
    "a piece more": GOOD + piece(b"\x0a\x01x"),
    "a piece less": GOOD[2 + GOOD[1] :],
    "no pieces": b"\x12\x04\x18\x02\x20\x0c",
    "a piece without text": GOOD + piece(b"\x15\0\0\0\0"),
    "an empty piece": GOOD + piece(b"\x0a\0"),
    "a piece of type 9": piece(b"\x0a\x01x\x18\x09") * len(PIECES),
    "a type that is text": piece(b"\x0a\x01x\x1a\x01y") * len(PIECES),
    "a text that is a number": piece(b"\x08\x01") * len(PIECES),
    "a piece that is no message": b"\x08\x01" * len(PIECES),
    "a piece not UTF-8": piece(b"\x0a\x02\xff\xfe") * len(PIECES),
    "a piece longer than the file": b"\x0a\xff\xff\xff\xff\x0f",
    "a length of 2^63": b"\x0a" + b"\xff" * 8 + b"\x7f",
    "a number without end": b"\x0a" + b"\xff" * 20,
    "a group": b"\x0b\x0c" * 10,
    "wire type 7": b"\x0f" * 10,
    "a long piece": b"\x0a\xd4\x27\x0a\xd0\x27" + b"x" * 5072,
    "a million pieces": piece(b"\x0a\x01x") * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("data", ids(MODELS))
def test_sentencepiece_models(tmp_path: Path, data: bytes) -> None:
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", make_gigaam("v3", "rnnt"))
    beside = tmp_path / "model_tokenizer.model"
    beside.write_bytes(data)
    assert str(beside) in assert_refused(path, tmp_path)


# --- Parakeet: settings and tensors ---

PARAKEET: dict[str, tuple[Change, str]] = {
    **{f"no {path}": setting(path, ..., f"'{path}' is missing")
       for path in ("preprocessor", "preprocessor.features", "preprocessor.n_fft", "preprocessor.window_size",
                    "preprocessor.sample_rate", "encoder", "encoder._target_", "encoder.d_model",
                    "encoder.n_layers", "encoder.n_heads", "encoder.ff_expansion_factor",
                    "encoder.conv_kernel_size", "encoder.subsampling", "encoder.subsampling_factor",
                    "encoder.subsampling_conv_channels", "decoder", "decoder.vocab_size", "decoder.prednet",
                    "decoder.prednet.pred_hidden", "joint", "joint.jointnet.joint_hidden", "decoding",
                    "decoding.durations", "tokenizer", "tokenizer.model_path")},
    **{f"{path} {what}": setting(path, value)
       for path in ("encoder.d_model", "encoder.n_layers", "decoder.vocab_size",
                    "decoder.prednet.pred_hidden", "joint.jointnet.joint_hidden")
       for what, value in NOT_NUMBERS.items()},
    "mels disagree": setting("preprocessor.features", 80, "takes 128 mels, the front end makes 80"),
    "a window of an hour": setting("preprocessor.window_size", 3600.0, "window_size"),
    "a window of 5 s": setting("preprocessor.window_size", 0.5, "makes 8000 samples"),
    "a step of nothing": setting("preprocessor.window_stride", 0.0, "makes 0 samples"),
    "not a number of seconds": setting("preprocessor.window_stride", float("nan")),
    "durations of text": setting("decoding.durations", ["0", "1", "2", "3", "4"]),
    "durations negative": setting("decoding.durations", [-1, 0, 1, 2, 3]),
    "ten thousand durations": setting("decoding.durations", list(range(10_000))),
    "the width refers to itself": setting("model_defaults.joint_hidden", "${joint.jointnet.joint_hidden}",
                                          "refers to itself"),
    "more layers than weights": setting("encoder.n_layers", 3, r"missing, the first is .*layers\.2"),
    "biases that are not there": setting("encoder.use_bias", True, r"missing, the first is .*\.bias"),
    "channels disagree": setting("encoder.subsampling_conv_channels", 32, r"pre_encode.* has shape"),
    **{f"no {name}": tensor(name, None)
       for name in ("preprocessor.featurizer.window", "preprocessor.featurizer.fb",
                    "encoder.pre_encode.conv.5.bias", "encoder.layers.0.conv.batch_norm.running_var",
                    "encoder.layers.1.self_attn.pos_bias_u", "decoder.prediction.embed.weight",
                    "decoder.prediction.dec_rnn.lstm.weight_hh_l1", "joint.joint_net.2.weight")},
    **{f"{name} of shape {shape}": tensor(name, shape, f"{re.escape(name)}' has shape")
       for name, shape in (("preprocessor.featurizer.window", (512,)),
                           ("preprocessor.featurizer.fb", (128, 257)),
                           ("encoder.pre_encode.conv.0.weight", (16, 1, 5, 5)),
                           ("encoder.layers.0.self_attn.pos_bias_u", (8, 8)),
                           ("joint.joint_net.2.weight", (13, 48)))},
    "a tensor too many": tensor("encoder.extra", (3,), r"unexpected .*extra"),
}  # fmt: skip


@pytest.mark.parametrize("case", ids(PARAKEET))
def test_parakeet(tmp_path: Path, case: tuple[Change, str]) -> None:
    change, message = case
    path = write_nemo(tmp_path / "model.nemo", change(make_parakeet()))
    assert re.search(message, assert_refused(path, tmp_path))


# --- Parakeet: archives ---

Members = dict[str, bytes]


def members(change: Callable[[Members], Any]) -> Callable[[Path], Any]:
    """An archive with its members changed in place."""

    def write(path: Path) -> None:
        found = nemo_members(make_parakeet(), path.parent)
        change(found)
        path.write_bytes(tar_bytes(found))

    return write


def edited(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    """A good archive with its bytes changed."""

    def write(path: Path) -> None:
        write_nemo(path, make_parakeet())
        path.write_bytes(change(path.read_bytes()))

    return write


def entries(*made: tuple[str, bytes, bytes, str]) -> Callable[[Path], Any]:
    """An archive of these members: name, type, data, target of a link."""

    def write(path: Path) -> None:
        with tarfile.open(path, "w:") as archive:
            for name, kind, data, target in made:
                entry = tarfile.TarInfo(name)
                entry.type, entry.size, entry.linkname = kind, len(data), target
                archive.addfile(entry, io.BytesIO(data))

    return write


def yaml_text(text: bytes | str) -> Callable[[Path], Any]:
    data = text.encode() if isinstance(text, str) else text
    return members(lambda found: found.update({"model_config.yaml": data}))


def _sized(offset: int, size: int) -> Callable[[bytes], bytes]:
    """The size field of the header at `offset` in GNU's binary form, the checksum made good."""

    def change(data: bytes) -> bytes:
        header = bytearray(data[offset : offset + 512])
        header[124:136] = b"\x80" + size.to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return data[:offset] + bytes(header) + data[offset + 512 :]

    return change


def _huge_header(kind: bytes) -> Callable[[Path], Any]:
    """An extended header that announces 2^60 bytes."""

    def write(path: Path) -> None:
        entry = tarfile.TarInfo("x")
        entry.type = kind
        path.write_bytes(_sized(0, 1 << 60)(entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048))

    return write


def _bomb(path: Path) -> None:
    """A tar of a gigabyte of zeros, gzipped to a megabyte."""
    entry = tarfile.TarInfo("model_weights.ckpt")
    entry.size = 1 << 30
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as out:
        out.write(pack.compress(entry.tobuf()))
        for _ in range(128):
            out.write(pack.compress(b"\0" * (1 << 20)))
        out.write(pack.flush())


def _gzipped(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        write_nemo(path, make_parakeet(), gzipped=True)
        path.write_bytes(change(path.read_bytes()))

    return write


def _aliases(n: int) -> str:
    lines = ["a0: &a0 [1, 2, 3]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, n)]
    return "\n".join([*lines, "encoder: *a20", "preprocessor: *a20"])


REGULAR, LINK, SYMLINK, DEVICE, FOLDER = b"0", b"1", b"2", b"3", b"5"
ARCHIVES: dict[str, Callable[[Path], Any]] = {
    **{f"no {name}": members(lambda found, name=name: found.pop(name))
       for name in ("model_config.yaml", "model_weights.ckpt", "0f_tokenizer.model")},
    **{f"empty {name}": members(lambda found, name=name: found.update({name: b""}))
       for name in ("model_config.yaml", "model_weights.ckpt", "0f_tokenizer.model")},
    "weights that are no archive": members(lambda found: found.update({"model_weights.ckpt": b"x" * 999})),
    "weights of the old format": members(
        lambda found: found.update({"model_weights.ckpt": LEGACY_HEAD + b"0" * 99})
    ),
    "weights cut in half": members(
        lambda found: found.update({"model_weights.ckpt": found["model_weights.ckpt"][:60_000]})
    ),
    **{f"cut at {part}": edited(lambda data, part=part: data[: int(len(data) * part)])
       for part in (0.0001, 0.001, 0.005, 0.1, 0.5, 0.9)},
    "a first header with another checksum": edited(lambda data: data[:148] + b"000000\0 " + data[156:]),
    "a member of 2^60 bytes": edited(_sized(0, 1 << 60)),
    "a member of a negative size": edited(lambda data: data[:124] + b"\xff" * 12 + data[136:]),
    "an extended header of 2^60 bytes": _huge_header(b"x"),
    "a long name of 2^60 bytes": _huge_header(b"L"),
    "a global header of 2^60 bytes": _huge_header(b"g"),
    "an empty tar": entries(),
    "folders only": entries(("./", FOLDER, b"", ""), ("./model_config.yaml", FOLDER, b"", "")),
    "a configuration outside": entries(("../model_config.yaml", REGULAR, b"encoder: 1", "")),
    "a configuration at the root": entries(("/model_config.yaml", REGULAR, b"encoder: 1", "")),
    "a symbolic link": entries(("model_config.yaml", SYMLINK, b"", "/etc/hostname")),
    "a hard link": entries(("model_config.yaml", LINK, b"", "../../etc/hostname")),
    "a device": entries(("model_config.yaml", DEVICE, b"", "")),
    "a member twice": entries(
        ("model_config.yaml", REGULAR, b"a: 1", ""), ("./model_config.yaml", REGULAR, b"a: 2", "")
    ),
    "five thousand members": entries(*((f"{n}", REGULAR, b"", "") for n in range(5000))),
    "gzip cut": _gzipped(lambda data: data[: len(data) // 2]),
    "gzip without its end": _gzipped(lambda data: data[:-8]),
    "gzip with another checksum": _gzipped(lambda data: data[:-8] + b"\0\0\0\0" + data[-4:]),
    "gzip damaged": _gzipped(lambda data: data[:5000] + b"\xff" * 100 + data[5100:]),
    "gzip of nothing": lambda path: path.write_bytes(gzip.compress(b"")),
    "gzip of text": lambda path: path.write_bytes(gzip.compress(b"hello " * 500)),
    "gzip of a gzip": _gzipped(gzip.compress),
    "a gzip bomb": _bomb,
    "YAML that is text": yaml_text("hello"),
    "YAML that is a list": yaml_text("- 1\n- 2\n"),
    "YAML that is empty": yaml_text("\n"),
    "YAML not closed": yaml_text("encoder: [1, 2"),
    "YAML not UTF-8": yaml_text(b"encoder: \xff\xfe\xff"),
    "YAML with control bytes": yaml_text(b"encoder: \x00\x01"),
    "YAML nested deep": yaml_text("encoder: " + "[" * 50_000),
    "YAML with keys that are lists": yaml_text("? [1, 2]\n: 3\n"),
    "YAML with Python in it": yaml_text("encoder: !!python/object/apply:os.mkdir [harm]\n"),
    "YAML with a tuple": yaml_text("encoder: !!python/tuple [1]\n"),
    "YAML with aliases of aliases": yaml_text(_aliases(21)),
    "YAML that holds itself": yaml_text("encoder: &a\n  d_model: *a\n  _target_: *a\npreprocessor: *a\n"),
    "YAML with a merge": yaml_text("a: &a {b: 1}\nencoder:\n  <<: *a\n"),
    "YAML of a date": yaml_text("encoder: 2024-99-99\npreprocessor: 1"),
    "YAML of 17 MB": yaml_text("a: " + "x" * (17 << 20)),
}  # fmt: skip


@pytest.mark.parametrize("write", ids(ARCHIVES))
def test_archives(tmp_path: Path, write: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    path = tmp_path / "in" / "model.nemo"
    write(path)
    message = assert_refused(path, tmp_path)
    assert str(path) in message
    assert len(message) < 1000
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["model.nemo"], "something was written"


@pytest.mark.parametrize("kind", [LINK, SYMLINK, DEVICE, FOLDER])
def test_only_whole_files_are_members(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "model.nemo"
    entries(("weights", REGULAR, b"x", ""), ("model_config.yaml", kind, b"", "weights"))(path)
    assert "'model_config.yaml' is missing; found weights" in assert_refused(path, tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.model", "/etc/hostname", "nemo:../../secret.model", "0f_vocab.txt", "", 7, None, [1]]
)
def test_the_tokenizers_name_leads_nowhere_else(tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret.model").write_bytes(sentencepiece_bytes())
    (tmp_path / "in").mkdir()
    made = make_parakeet().configured("tokenizer.model_path", name)
    path = write_nemo(tmp_path / "in" / "model.nemo", made)
    message = assert_refused(path, tmp_path)
    wanted = r"member '.*' is (missing|empty)|'tokenizer\.model_path' is .*, expected text"
    assert re.search(wanted, message)


def test_a_pickle_inside_an_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = Pickle().add({"encoder": Call("os", "mkdir", "harm")}).done()
    weights = write_torch_zip(tmp_path / "weights", hostile, []).read_bytes()
    found = nemo_members(make_parakeet(), tmp_path)
    path = tmp_path / "model.nemo"
    path.write_bytes(tar_bytes({**found, "model_weights.ckpt": weights}))
    assert "os.mkdir" in assert_refused(path, tmp_path)
    assert not (tmp_path / "harm").exists()


# --- Parakeet: Hugging Face folders ---


def edit_json(name: str, path: str, value: Any) -> Callable[[Path], Any]:
    """Sets (or, for `...`, removes) the value at a dotted path of a JSON file."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        *parents, key = path.split(".")
        level = data
        for parent in parents:
            level = level[parent]
        level.pop(key) if value is ... else level.update({key: value})
        (folder / name).write_text(json.dumps(data), encoding="utf-8")

    return damage


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


CONFIG, PROCESSOR, TOKENIZER = "config.json", "processor_config.json", "tokenizer.json"
VOCABULARY = tokenizer_json()["model"]["vocab"]
FOLDERS: dict[str, Callable[[Path], Any]] = {
    **{f"no {key}": edit_json(CONFIG, key, ...)
       for key in ("model_type", "vocab_size", "blank_token_id", "durations", "decoder_hidden_size",
                   "num_decoder_layers", "encoder_config")},
    **{f"no {key}": edit_json(CONFIG, f"encoder_config.{key}", ...)
       for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                   "attention_bias", "conv_kernel_size", "num_mel_bins", "scale_input",
                   "subsampling_conv_channels", "subsampling_conv_kernel_size", "subsampling_factor")},
    **{f"{key} {what}": edit_json(CONFIG, f"encoder_config.{key}", value)
       for key in ("hidden_size", "num_hidden_layers", "intermediate_size")
       for what, value in NOT_NUMBERS.items()},
    **{f"vocab_size {what}": edit_json(CONFIG, "vocab_size", value) for what, value in NOT_NUMBERS.items()},
    "model_type of another": edit_json(CONFIG, "model_type", "parakeet_vad"),
    "model_type a list": edit_json(CONFIG, "model_type", ["parakeet_tdt"]),
    "another activation": edit_json(CONFIG, "encoder_config.hidden_act", "gelu"),
    "another activation of the joint": edit_json(CONFIG, "hidden_act", "tanh"),
    "convolutions alone biased": edit_json(CONFIG, "encoder_config.convolution_bias", True),
    "stride 3": edit_json(CONFIG, "encoder_config.subsampling_conv_stride", 3),
    "grouped heads": edit_json(CONFIG, "encoder_config.num_key_value_heads", 2),
    "config.json is missing": lambda folder: (folder / CONFIG).unlink(),
    "config.json is no JSON": write(CONFIG, "{"),
    "processor is missing": lambda folder: (folder / PROCESSOR).unlink(),
    "processor is a list": write(PROCESSOR, "[]"),
    "processor without front end": write(PROCESSOR, "{}"),
    **{f"no {key}": edit_json(PROCESSOR, f"feature_extractor.{key}", ...)
       for key in ("feature_size", "hop_length", "n_fft", "preemphasis", "sampling_rate", "win_length")},
    "another number of mels": edit_json(PROCESSOR, "feature_extractor.feature_size", 80),
    "a huge transform": edit_json(PROCESSOR, "feature_extractor.n_fft", 1 << 40),
    "pre-emphasis of text": edit_json(PROCESSOR, "feature_extractor.preemphasis", "0.97"),
    "tokenizer is missing": lambda folder: (folder / TOKENIZER).unlink(),
    "tokenizer is no JSON": write(TOKENIZER, "{]"),
    "tokenizer is empty": write(TOKENIZER, "{}"),
    "tokenizer without vocabulary": edit_json(TOKENIZER, "model.vocab", ...),
    "a vocabulary of text": edit_json(TOKENIZER, "model.vocab", "abc"),
    "a vocabulary too short": edit_json(TOKENIZER, "model.vocab", {"a": 0}),
    "an empty vocabulary": edit_json(TOKENIZER, "model.vocab", {}),
    "an id twice": edit_json(TOKENIZER, "model.vocab", {**VOCABULARY, "▁": 0}),
    "an id of 2^40": edit_json(TOKENIZER, "model.vocab", {**VOCABULARY, "▁": 1 << 40}),
    "an id of text": edit_json(TOKENIZER, "model.vocab", {**VOCABULARY, "▁": "3"}),
    "a piece without text": edit_json(TOKENIZER, "model.vocab", [["", 0.0]] * len(PIECES)),
    "a piece that is a number": edit_json(TOKENIZER, "model.vocab", [[3, 0.0]] * len(PIECES)),
    "a piece that is nothing": edit_json(TOKENIZER, "model.vocab", [[]] * len(PIECES)),
    "weights are cut": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-10]
    ),
    "weights are missing": lambda folder: (folder / "model.safetensors").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(FOLDERS))
def test_hugging_face_folders(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    folder = write_parakeet_hf(tmp_path / "hf", make_parakeet(joint=32))
    damage(folder)
    assert str(folder) in assert_refused(folder, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.pre_encode.conv.0.bias", "encoder.layers.1.self_attn.linear_pos.weight", "joint.enc.weight",
        "decoder.prediction.dec_rnn.lstm.bias_ih_l1",
    ],
)  # fmt: skip
def test_a_missing_tensor_has_the_name_that_the_file_uses(tmp_path: Path, name: str) -> None:
    made = make_parakeet(joint=32).changed(**{name.replace(".", "__"): None})
    folder = write_parakeet_hf(tmp_path / "hf", made)
    assert f"{hugging_face_name(name)!r}" in assert_refused(folder, tmp_path)


def test_there_are_enough_cases() -> None:
    groups = (GIGAAM, VOCABULARIES, PICKLES, MODELS, PARAKEET, ARCHIVES, FOLDERS)
    assert sum(map(len, groups)) >= 300
