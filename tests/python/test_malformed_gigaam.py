"""Damaged and hostile GigaAM checkpoints: a typed error for each, soon, in little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformer_checkpoints import (
    PIECES,
    make_gigaam,
    omegaconf,
    sentencepiece_bytes,
    write_gigaam_ckpt,
    write_gigaam_hf,
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
from whisper_writers import Call, Made, Named, write_torch_zip

__all__ = ["imports_are_not_counted", "in_little_memory"]  # fixtures of every test here

import numpy as np

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


def test_there_are_enough_cases() -> None:
    assert sum(map(len, (GIGAAM, VOCABULARIES, PICKLES, MODELS))) >= 160
