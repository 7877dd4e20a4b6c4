"""Damaged and hostile Parakeet checkpoints: a typed error for each, soon, in little memory."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformer_checkpoints import (
    PIECES,
    hugging_face_name,
    make_parakeet,
    nemo_members,
    sentencepiece_bytes,
    tar_bytes,
    tokenizer_json,
    write_nemo,
    write_parakeet_hf,
)
from malformed_conformers import (
    NOT_NUMBERS,
    Change,
    imports_are_not_counted,
    in_little_memory,
    setting,
    tensor,
)
from refusals import assert_refused, ids
from rustasr.convert.torch_pickle import LEGACY_HEAD
from whisper_writers import Call, Pickle, write_torch_zip

__all__ = ["imports_are_not_counted", "in_little_memory"]  # fixtures of every test here

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
    assert sum(map(len, (PARAKEET, ARCHIVES, FOLDERS))) >= 230
