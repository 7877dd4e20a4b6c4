"""Damaged and hostile Whisper checkpoints: a typed error for each, soon, in little memory.

Every case is a small valid checkpoint with one thing wrong.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from malformed_torch import TORCH_CASES
from refusals import assert_refused, ids, little_memory
from rustasr.convert import convert
from tiny_whisper import DIMS, Checkpoint, make_checkpoint, write_hugging_face
from whisper_writers import ct2_bytes, ct2_variables, whispercpp_bytes, write_ctranslate2

SMALL = replace(
    DIMS, n_audio_ctx=16, n_text_ctx=8, n_audio_state=64, n_text_state=64, n_audio_head=1, n_text_head=1,
    n_audio_layer=1, n_text_layer=1,
)  # fmt: skip
Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def made() -> Checkpoint:
    return make_checkpoint(dims=SMALL, dtype="f2")


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_counted(made: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_hugging_face(tmp_path_factory.mktemp("warm") / "hf", made)
    convert(folder, folder / "warm.gguf", qtype="q8_0")


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory():
        yield


# --- Hugging Face folders ---


def edit_json(name: str, **changes: Any) -> Damage:
    """Sets keys of a JSON file; a value of `...` removes the key."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        for key, value in changes.items():
            data.pop(key, None) if value is ... else data.update({key: value})
        (folder / name).write_text(json.dumps(data), encoding="utf-8")

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def edit_header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Changes the JSON header of model.safetensors in place."""

    def damage(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        result = change(header)
        text = json.dumps(header if result is None else result).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])

    return damage


def edit_bytes(change: Callable[[bytes, int], bytes]) -> Damage:
    """Changes the raw file; the second argument is where the data begins."""

    def damage(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(change(raw, 8 + int.from_bytes(raw[:8], "little")))

    return damage


EMBEDDING = "model.decoder.embed_tokens.weight"
LAST = "model.decoder.layer_norm.weight"


def set_entry(key: str, value: Any, name: str = EMBEDDING) -> Damage:
    return edit_header(lambda header: header[name].__setitem__(key, value))


def drop_entry(key: str) -> Damage:
    return edit_header(lambda header: header[EMBEDDING].pop(key) and None)


def shift_offsets(by: int) -> Damage:
    def change(header: dict[str, Any]) -> None:
        header[LAST]["data_offsets"] = [offset + by for offset in header[LAST]["data_offsets"]]

    return edit_header(change)


def rename(old: str, new: str) -> Damage:
    return edit_header(lambda header: header.__setitem__(new, header.pop(old)))


def duplicate_name(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    changed = raw.replace(b'"model.encoder.conv1.bias"', b'"model.encoder.conv2.bias"')
    (folder / "model.safetensors").write_bytes(changed)


CONFIG_KEYS = (
    "model_type", "num_mel_bins", "d_model", "encoder_layers", "decoder_layers", "vocab_size",
    "encoder_attention_heads", "decoder_attention_heads", "max_source_positions", "max_target_positions",
)  # fmt: skip
HUGGING_FACE: dict[str, Damage] = {
    **{f"cut at {n}": edit_bytes(lambda raw, _, n=n: raw[:n]) for n in (0, 1, 7, 8, 9, 100)},
    "cut in the header": edit_bytes(lambda raw, data: raw[: data - 1]),
    "cut at the data": edit_bytes(lambda raw, data: raw[:data]),
    "cut in the data": edit_bytes(lambda raw, data: raw[: (len(raw) + data) // 2]),
    "cut at the last byte": edit_bytes(lambda raw, _: raw[:-1]),
    "a byte too many": edit_bytes(lambda raw, _: raw + b"\0"),
    **{
        f"header length {n:#x}": edit_bytes(lambda raw, _, n=n: n.to_bytes(8, "little") + raw[8:])
        for n in (0, 1, 1 << 24, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
    },
    "header not text": edit_bytes(lambda raw, _: raw[:9] + b"\xff" + raw[10:]),
    "header a list": edit_header(lambda header: [1, 2]),
    "header nested": write("model.safetensors", (60000).to_bytes(8, "little") + b'{"a":' + b"[" * 59995),
    "header without entries": edit_header(lambda header: {}),
    "entry a number": edit_header(lambda header: header.__setitem__(EMBEDDING, 3)),
    **{f"entry without {key}": drop_entry(key) for key in ("dtype", "shape", "data_offsets")},
    **{f"dtype {value}": set_entry("dtype", value) for value in ("F8_E4M3", "I64", "", 7, None)},
    **{
        f"shape {value}": set_entry("shape", value)
        for value in ([], [-1, 64], [1 << 40, 1 << 40], [64], [1.5, 2], "64", None, [1] * 40, [True, 64],
                      [0, 64])
    },
    "shape transposed": edit_header(lambda header: header[EMBEDDING]["shape"].reverse()),
    **{
        f"offsets {value}": set_entry("data_offsets", value)
        for value in ([0], [5, 1], [-8, 0], [0, 1 << 62], [1 << 80, 1 << 81], ["0", "8"], [0.0, 8.0], [])
    },
    **{f"offsets moved by {by}": shift_offsets(by) for by in (-2, 2, 1 << 40)},
    "a name twice": duplicate_name,
    "a tensor missing": edit_header(lambda header: header.pop(LAST) and None),
    "a tensor renamed": rename(LAST, "model.decoder.layer_norm.gain"),
    "a tensor of layer 9": rename(
        "model.encoder.layers.0.fc1.bias", "model.encoder.layers.9.fc1.bias"
    ),
    "with and without prefix": rename("model.encoder.conv1.bias", "encoder.conv2.bias"),
    **{f"config without {key}": edit_json("config.json", **{key: ...}) for key in CONFIG_KEYS},
    **{
        f"config {key}={value}": edit_json("config.json", **{key: value})
        for key, value in (
            ("model_type", "wav2vec2"), ("vocab_size", -1), ("vocab_size", 1 << 50), ("d_model", 0),
            ("d_model", 63.5), ("encoder_layers", True), ("encoder_layers", 10**9), ("decoder_layers", 2),
            ("encoder_attention_heads", 0), ("encoder_attention_heads", 3), ("num_mel_bins", "80"),
            ("num_mel_bins", 128), ("max_source_positions", 1500), ("activation_function", "relu"),
            ("tie_word_embeddings", False), ("encoder_ffn_dim", 100), ("d_model", None), ("d_model", [64]),
        )
    },
    **{f"config is {value!r}": write("config.json", value) for value in (b"", b"{", b"[]", b"\xff", b"3")},
    "config nested": write("config.json", b"[" * 200000),
    "no config": lambda folder: (folder / "config.json").unlink(),
    **{
        f"alignment_heads {value}": edit_json("generation_config.json", alignment_heads=value)
        for value in ([[7, 0]], [[0, 99]], [[-1, 0]], [[0]], 5, ["a"], [[0.5, 1]], {"0": 0})
    },
    "generation_config broken": write("generation_config.json", b"{"),
    "index without a map": lambda folder: [
        (folder / "model.safetensors").unlink(), write("model.safetensors.index.json", b"{}")(folder),
    ],
    "index leads outside": lambda folder: [
        (folder / "model.safetensors").unlink(),
        write("model.safetensors.index.json", b'{"weight_map": {"a": "../../etc/passwd"}}')(folder),
    ],
    "index names a lost shard": lambda folder: [
        (folder / "model.safetensors").unlink(),
        write("model.safetensors.index.json", b'{"weight_map": {"a": "model-00001.safetensors"}}')(folder),
    ],
    "an empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(HUGGING_FACE))
def test_hugging_face_folder(tmp_path: Path, made: Checkpoint, damage: Damage) -> None:
    folder = write_hugging_face(tmp_path / "hf", made)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    damage(folder)
    assert_refused(folder, tmp_path, tmp_path / "tokenizer.json")


def edit_vocab(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        change(document["model"]["vocab"])
        path.write_text(json.dumps(document), encoding="utf-8")

    return damage


TOKENIZERS: dict[str, Damage] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_bytes(b"[]"),
    "no vocabulary": lambda path: path.write_bytes(b'{"model": {}}'),
    "vocabulary a list": lambda path: path.write_bytes(b'{"model": {"vocab": []}}'),
    "not text": lambda path: path.write_bytes(b"\x80abc"),
    "an id missing": edit_vocab(lambda vocab: vocab.pop("a")),
    "an id twice": edit_vocab(lambda vocab: vocab.update(zzz=3)),
    "an id negative": edit_vocab(lambda vocab: vocab.update(a=-3)),
    "an id as text": edit_vocab(lambda vocab: vocab.update(a="3")),
    "an id far off": edit_vocab(lambda vocab: vocab.update({"<|endoftext|>": 1 << 40})),
    "no end of text": lambda path: path.write_text(
        path.read_text(encoding="utf-8").replace("<|endoftext|>", "<|end|>"), encoding="utf-8"
    ),
    "not byte level": edit_vocab(lambda vocab: [vocab.pop("a"), vocab.update({"語": 97})]),
    "not a merge": edit_vocab(lambda vocab: [vocab.pop("Ġt", None), vocab.update({"QXZJQX": 256})]),
    "added tokens broken": lambda path: edit_json(path.name, added_tokens=[3])(path.parent),
    "special tokens in another order": lambda path: path.write_text(
        path.read_text(encoding="utf-8").replace("<|startoflm|>", "<|start|>"), encoding="utf-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(TOKENIZERS))
def test_tokenizer(tmp_path: Path, made: Checkpoint, damage: Damage) -> None:
    folder = write_hugging_face(tmp_path / "hf", made)
    path = (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    damage(path)
    assert_refused(folder, tmp_path, tmp_path / "tokenizer.json")


# --- CTranslate2 ---

Variables = dict[str, Any]
BIAS = "decoder/layer_0/self_attention/linear_0/bias"
EMBEDDINGS = "decoder/embeddings/weight"


def _with_key_bias(variables: Variables) -> None:
    variables[BIAS] = np.ones_like(variables[BIAS])


def _zero_scale(variables: Variables) -> None:
    weight = variables[EMBEDDINGS]
    variables[EMBEDDINGS] = weight.astype(np.int8)
    variables[f"{EMBEDDINGS}_scale"] = np.zeros(weight.shape[0], np.float32)


CT2_VARIABLES: dict[str, Callable[[Variables], Any]] = {
    "a variable missing": lambda v: v.pop("decoder/layer_norm/gamma"),
    "a layer missing": lambda v: [v.pop(name) for name in list(v) if "decoder/layer_0" in name],
    "a variable too many": lambda v: v.update({"decoder/extra/weight": np.zeros(3, np.float32)}),
    "an unknown layer part": lambda v: v.update({"decoder/layer_0/x/y/weight": np.zeros(3, np.float32)}),
    "a layer without number": lambda v: v.update({"decoder/layer_x/ffn/weight": np.zeros(3, np.float32)}),
    "a wrong shape": lambda v: v.update({"encoder/conv1/weight": v["encoder/conv1/weight"][:, :, :2]}),
    "a vector for a matrix": lambda v: v.update({EMBEDDINGS: v[EMBEDDINGS][0]}),
    "rows no multiple of three": lambda v: v.update({BIAS: v[BIAS][:-1]}),
    "keys with a bias": _with_key_bias,
    "integers without scale": lambda v: v.update({EMBEDDINGS: v[EMBEDDINGS].astype(np.int8)}),
    "scales of zero": _zero_scale,
    "scales of another length": lambda v: [
        v.update({EMBEDDINGS: v[EMBEDDINGS].astype(np.int8)}),
        v.update({f"{EMBEDDINGS}_scale": np.ones(5, np.float32)}),
    ],
    "an untied projection": lambda v: v.update({"decoder/projection/weight": v[EMBEDDINGS] + 1}),
    "heads of zero": lambda v: v.update({"encoder/num_heads": np.array(0, np.int16)}),
    "heads that do not divide": lambda v: v.update({"decoder/num_heads": np.array(3, np.int16)}),
    "heads as a vector": lambda v: v.update({"decoder/num_heads": np.array([1, 1], np.int16)}),
    "weights not finite": lambda v: v.update({EMBEDDINGS: v[EMBEDDINGS] * np.float16(np.inf)}),
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(CT2_VARIABLES))
def test_ctranslate2_variables(tmp_path: Path, made: Checkpoint, damage: Callable[[Variables], Any]) -> None:
    folder = write_ctranslate2(tmp_path / "ct2", made)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    variables = ct2_variables(made)
    damage(variables)
    (folder / "model.bin").write_bytes(
        ct2_bytes(variables, aliases="decoder/projection/weight" not in variables)
    )
    assert_refused(folder, tmp_path, tmp_path / "tokenizer.json")


# Offsets in the file: u32 version, u16 + "WhisperSpec\0", u32 revision, u32 count, then the first variable
# (decoder/activation: rank 0, i8).
COUNT_AT = 4 + 2 + 12 + 4
FIRST = COUNT_AT + 4
RANK_AT = FIRST + 2 + len("decoder/activation") + 1


def put(offset: int, code: str, value: int) -> Callable[[bytes], bytes]:
    raw = struct.pack(f"<{code}", value)
    return lambda data: data[:offset] + raw + data[offset + len(raw) :]


def _twice(data: bytes) -> bytes:
    return data.replace(b"encoder/conv1/bias", b"encoder/conv2/bias", 1)


CT2_BYTES: dict[str, Callable[[bytes], bytes]] = {
    **{
        f"cut at {n}": lambda data, n=n: data[:n]
        for n in (0, 3, 4, 5, 6, 17, 18, 21, COUNT_AT, COUNT_AT + 3, FIRST, FIRST + 1, FIRST + 2, RANK_AT - 1,
                  RANK_AT, RANK_AT + 1, RANK_AT + 2, RANK_AT + 5, RANK_AT + 6, RANK_AT + 7)
    },
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut in the aliases": lambda data: data[:-3],
    "cut before the aliases": lambda data: data[: data.rindex(b"decoder/projection") - 6],
    "a byte too many": lambda data: data + b"\0",
    **{f"version {n}": put(0, "I", n) for n in (0, 7, 63, 1 << 31)},
    "another specification": lambda data: data.replace(b"WhisperSpec", b"Wav2VecSpec"),
    "name of length 0": put(4, "H", 0),
    "name without NUL": lambda data: data[:17] + b"x" + data[18:],
    **{f"count {n:#x}": put(COUNT_AT, "I", n) for n in (0, 1, 60, 1000, 1 << 20, (1 << 32) - 1)},
    **{f"name length {n}": put(FIRST, "H", n) for n in (0, 1, 5, 2000, 65535)},
    "name not text": put(FIRST + 2, "B", 0xFF),
    "name with a NUL inside": put(FIRST + 4, "B", 0),
    **{f"rank {n}": put(RANK_AT, "B", n) for n in (1, 4, 5, 255)},
    **{f"type {n}": put(RANK_AT + 1, "B", n) for n in (2, 6, 255)},
    **{f"size {n:#x}": put(RANK_AT + 2, "I", n) for n in (0, 2, 1 << 31, (1 << 32) - 1)},
    "a name twice": _twice,
    "aliases without end": lambda data: data.replace(struct.pack("<I", 1) + b"\x1a\0decoder/proj",
                                                     struct.pack("<I", 1 << 31) + b"\x1a\0decoder/proj"),
    "alias to nothing": lambda data: data[:-4] + b"xyz\0",
    "alias of a variable": lambda data: data.replace(b"\x1a\0decoder/projection/weight\0",
                                                     b"\x1a\0decoder/embeddings/weight\0"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(CT2_BYTES))
def test_ctranslate2_bytes(tmp_path: Path, made: Checkpoint, damage: Callable[[bytes], bytes]) -> None:
    folder = write_ctranslate2(tmp_path / "ct2", made)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    good = (folder / "model.bin").read_bytes()
    bad = damage(good)
    assert bad != good
    (folder / "model.bin").write_bytes(bad)
    assert_refused(folder, tmp_path, tmp_path / "tokenizer.json")


# --- whisper.cpp ---

TOKENS_AT = 4 + 11 * 4 + 8 + 80 * 201 * 4
HEADER = ("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx",
          "n_text_state", "n_text_head", "n_text_layer", "n_mels")  # fmt: skip


def first_tensor(data: bytes) -> int:
    return data.index(b"encoder.conv1.weight") - 6 * 4


def at_tensor(offset: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: put(first_tensor(data) + offset, "i", value)(data)


def _drop_last(data: bytes) -> bytes:
    return data[: data.rindex(b"decoder.ln.bias") - 16]


GGML_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "magic": put(0, "I", 0x67676D66),
    **{f"cut at {n}": lambda data, n=n: data[:n] for n in (0, 3, 4, 7, 20, 47, 48, 52, 56, 60, 1000)},
    "cut at the tokens": lambda data: data[:TOKENS_AT],
    "cut in the tokens": lambda data: data[: TOKENS_AT + 7],
    **{
        f"cut {n} into a tensor": lambda data, n=n: data[: first_tensor(data) + n]
        for n in (1, 5, 9, 13, 24, 30, 60)
    },
    "cut at the last byte": lambda data: data[:-1],
    **{f"{name} 0": put(4 + 4 * index, "i", 0) for index, name in enumerate(HEADER)},
    **{f"{name} -1": put(4 + 4 * index, "i", -1) for index, name in enumerate(HEADER)},
    **{f"{name} huge": put(4 + 4 * index, "i", (1 << 31) - 1) for index, name in enumerate(HEADER)},
    "n_text_layer 2": put(36, "i", 2),
    "ftype -1": put(44, "i", -1),
    "mel rows": put(48, "i", 128),
    "mel columns": put(52, "i", 1 << 30),
    "mel values": put(60, "i", 0x3F800000),
    **{f"{n} tokens": put(TOKENS_AT, "i", n) for n in (-1, 0, 255, 256, 300, 400, 1 << 30)},
    **{f"token of {n:#x} bytes": put(TOKENS_AT + 4, "I", n) for n in (0, 2, 5000, 1 << 31, (1 << 32) - 1)},
    "a token twice": put(TOKENS_AT + 8, "B", 1),
    **{f"rank {n}": at_tensor(0, n) for n in (-1, 0, 1, 2, 4, 5, 1 << 30)},
    **{f"name of {n}": at_tensor(4, n) for n in (-1, 0, 3, 300, 1 << 30)},
    **{f"type {n}": at_tensor(8, n) for n in (-1, 0, 2, 4, 8, 14, 99)},
    **{f"extent {n:#x}": at_tensor(12, n) for n in (-1, 0, 4, 1 << 20, (1 << 31) - 1)},
    "all extents huge": lambda data: put(first_tensor(data) + 12, "Q", (1 << 24) + (1 << 56))(data),
    "name not ASCII": lambda data: data.replace(b"encoder.conv1.weight", b"encoder.conv1.w\xffight"),
    "a name twice": lambda data: data.replace(b"encoder.conv1.bias", b"encoder.conv2.bias"),
    "a tensor missing": _drop_last,
    "a name unknown": lambda data: data.replace(b"decoder.ln.bias", b"decoder.ln.bean"),
    "old quantisation": lambda data: put(44, "i", 1007)(at_tensor(8, 8)(data)),
}  # fmt: skip


@pytest.mark.parametrize("damage", ids(GGML_BYTES))
def test_whispercpp_bytes(tmp_path: Path, made: Checkpoint, damage: Callable[[bytes], bytes]) -> None:
    good = whispercpp_bytes(made)
    bad = damage(good)
    assert bad != good
    path = tmp_path / "ggml-model.bin"
    path.write_bytes(bad)
    assert_refused(path, tmp_path)


# --- OpenAI .pt ---


@pytest.mark.parametrize("write_bad", ids(TORCH_CASES))
def test_torch_archive(
    tmp_path: Path, made: Checkpoint, write_bad: Callable[[Path, Checkpoint], Any]
) -> None:
    write_hugging_face(tmp_path / "hf", made)
    (tmp_path / "hf" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    path = tmp_path / "model.pt"
    write_bad(path, made)
    assert_refused(path, tmp_path, tmp_path / "tokenizer.json")
    assert not (tmp_path / "harm").exists(), "a pickle was executed"


def test_there_are_enough_cases() -> None:
    groups = (HUGGING_FACE, TOKENIZERS, CT2_VARIABLES, CT2_BYTES, GGML_BYTES, TORCH_CASES)
    assert sum(map(len, groups)) >= 250
