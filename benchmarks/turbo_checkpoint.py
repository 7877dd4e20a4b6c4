"""Whisper large-v3-turbo at its full published size with random weights, in the formats that the peers read.

The arithmetic of a network does not depend on its values, so random ones time as the real ones do; only when
decoding stops does. Therefore the decoder's residual branches are made small, and the embedding of the k-th
planted word lies along the position that has to say it: greedy decoding says the same words everywhere.
NumPy is all that the checkpoint takes. Run this file by itself to make a CTranslate2 folder (in an
environment with ctranslate2): turbo_checkpoint.py HF_FOLDER OUT_FOLDER int8|float16|float32
"""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

N_PARAMETERS = 808_878_080
N_WORDS, PROMPT = 100, [50258, 50259, 50360, 50364]  # start, English, transcribe, no timestamps
EOT, STATE, HEADS, N_VOCAB, ENCODER_LAYERS, DECODER_LAYERS = 50257, 1280, 20, 51866, 32, 4
ALIGNMENT_HEADS = [[2, 4], [2, 11], [3, 3], [3, 6], [3, 11], [3, 14]]
CONFIG = {
    "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "torch_dtype": "float16",
    "vocab_size": N_VOCAB, "num_mel_bins": 128, "d_model": STATE, "activation_function": "gelu",
    "encoder_layers": ENCODER_LAYERS, "encoder_attention_heads": HEADS, "encoder_ffn_dim": 4 * STATE,
    "decoder_layers": DECODER_LAYERS, "decoder_attention_heads": HEADS, "decoder_ffn_dim": 4 * STATE,
    "max_source_positions": 1500, "max_target_positions": 448, "scale_embedding": False,
    "tie_word_embeddings": True, "pad_token_id": EOT, "bos_token_id": EOT, "eos_token_id": EOT,
    "decoder_start_token_id": PROMPT[0],
}  # fmt: skip
LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg "
    "lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so "
    "af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
SPECIALS = [
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), "<|translate|>",
    "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip
Floats = npt.NDArray[np.floating[Any]]


# --- the checkpoint ---


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of large-v3-turbo under its Hugging Face name (the output projection is tied)."""
    d, out = STATE, {}
    out["model.encoder.conv1.weight"], out["model.encoder.conv1.bias"] = (d, 128, 3), (d,)
    out["model.encoder.conv2.weight"], out["model.encoder.conv2.bias"] = (d, d, 3), (d,)
    out["model.encoder.embed_positions.weight"] = (1500, d)
    out["model.decoder.embed_tokens.weight"] = (N_VOCAB, d)
    out["model.decoder.embed_positions.weight"] = (448, d)
    for side, layers in (("encoder", ENCODER_LAYERS), ("decoder", DECODER_LAYERS)):
        attentions = ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]
        for prefix in (f"model.{side}.layers.{i}." for i in range(layers)):
            for name in attentions:
                for part in ("q", "k", "v", "out"):
                    out[f"{prefix}{name}.{part}_proj.weight"] = (d, d)
                    if part != "k":
                        out[f"{prefix}{name}.{part}_proj.bias"] = (d,)
            out[prefix + "fc1.weight"], out[prefix + "fc1.bias"] = (4 * d, d), (4 * d,)
            out[prefix + "fc2.weight"], out[prefix + "fc2.bias"] = (d, 4 * d), (d,)
            for norm in (*(f"{name}_layer_norm" for name in attentions), "final_layer_norm"):
                out[f"{prefix}{norm}.weight"] = out[f"{prefix}{norm}.bias"] = (d,)
        out[f"model.{side}.layer_norm.weight"] = out[f"model.{side}.layer_norm.bias"] = (d,)
    return out


def values(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Reproducible values of a tensor, scaled by its role; the stream depends on the name alone."""
    if name == "model.encoder.embed_positions.weight":
        half = shape[1] // 2
        angles = np.arange(shape[0])[:, None] * np.exp(-np.arange(half) * np.log(1e4) / (half - 1))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    scale, mean = 0.02, 0.0
    if name == "model.decoder.embed_positions.weight":
        scale = 1.0
    elif ".decoder.layers." in name and name.endswith(("out_proj.weight", "fc2.weight")):
        scale = 2e-4
    elif ".conv" in name and name.endswith("weight"):
        scale = float(np.prod(shape[1:])) ** -0.5
    elif name.endswith("norm.weight"):
        mean = 1.0
    noise = np.random.Generator(np.random.SFC64(zlib.crc32(name.encode())))
    return noise.standard_normal(shape, np.float32) * np.float32(scale) + np.float32(mean)


def plant(embedding: npt.NDArray[np.float32], words: list[int]) -> None:
    """Turns the embedding of each word towards the final norm of the position that has to say it."""
    sizes = shapes()
    names = ("model.decoder.embed_positions.weight", "model.decoder.layer_norm.weight",
             "model.decoder.layer_norm.bias")  # fmt: skip
    rows, gain, bias = (values(name, sizes[name]) for name in names)
    centred = rows - rows.mean(axis=1, keepdims=True)
    normed = centred / centred.std(axis=1, keepdims=True) * gain + bias
    said = {0: 50259, 2: 50365, **{3 + k: word for k, word in enumerate(words)}, 3 + len(words): EOT}
    for position, token in said.items():
        embedding[token] += np.float32(0.02) * normed[position]


def tensors(words: list[int]) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    for name, shape in shapes().items():
        made = values(name, shape)
        if name == "model.decoder.embed_tokens.weight":
            plant(made, words)
        yield name, made.astype("<f2")


def make_checkpoint(folder: Path, tokenizer: Path) -> list[int]:
    """Writes the Hugging Face folder (F16, one safetensors file); returns the planted words' ids."""
    folder.mkdir(parents=True, exist_ok=True)
    base = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = {text: i for text, i in base["model"]["vocab"].items() if i < EOT}
    candidates = sorted(i for text, i in vocabulary.items() if re.fullmatch("Ġ[a-z]{3,8}", text))
    order = np.random.Generator(np.random.PCG64(5)).permutation(candidates)
    words = [int(i) for i in order[:N_WORDS]]
    stamps = [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    base["model"]["vocab"] = vocabulary
    base["added_tokens"] = [
        {"id": EOT + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": i < len(SPECIALS)}
        for i, text in enumerate(SPECIALS + stamps)
    ]  # fmt: skip
    base["post_processor"] = None
    generation = {
        "alignment_heads": ALIGNMENT_HEADS, "begin_suppress_tokens": [220, EOT], "is_multilingual": True,
        "suppress_tokens": [50358, 50359, 50360, 50361, 50362, 50363], "no_timestamps_token_id": 50364,
        "lang_to_id": {f"<|{code}|>": 50259 + i for i, code in enumerate(LANGUAGES)},
        "task_to_id": {"translate": 50359, "transcribe": 50360},
        "eos_token_id": EOT, "decoder_start_token_id": PROMPT[0],
    }  # fmt: skip
    files = {"config": CONFIG, "tokenizer": base, "generation_config": generation, "words": words}
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    header, at = {}, 0
    for name, shape in shapes().items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    part = folder / "model.safetensors.part"
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in tensors(words):
            file.write(tensor.tobytes())
    part.rename(folder / "model.safetensors")
    return words


def read_safetensors(path: Path) -> Callable[[str], Floats]:
    """`read(name)` gives a tensor of a one-shard F16 file."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "r", 8 + size)

    def read(name: str) -> Floats:
        begin, end = header[name]["data_offsets"]
        return np.asarray(data[begin:end]).view("<f2").reshape(header[name]["shape"])

    return read


# --- the engines' own files ---


def make_ctranslate2(hf: Path, out: Path, quantization: str) -> None:
    """Needs the package ctranslate2: fills CTranslate2's own specification of the network and saves it."""
    from ctranslate2.specs import whisper_spec

    read = read_safetensors(hf / "model.safetensors")
    spec = whisper_spec.WhisperSpec(ENCODER_LAYERS, HEADS, DECODER_LAYERS, HEADS)

    def norm(target: Any, name: str) -> None:
        target.gamma, target.beta = read(name + ".weight"), read(name + ".bias")

    def linear(target: Any, *names: str) -> None:
        target.weight = np.concatenate([read(name + ".weight") for name in names])
        biases = [
            np.zeros(STATE, np.float16) if name.endswith("k_proj") else read(name + ".bias") for name in names
        ]
        target.bias = np.concatenate(biases)

    for side in ("encoder", "decoder"):
        target, prefix = getattr(spec, side), f"model.{side}."
        target.position_encodings.encodings = read(prefix + "embed_positions.weight")
        norm(target.layer_norm, prefix + "layer_norm")
        for i, layer in enumerate(target.layer):
            at = f"{prefix}layers.{i}."
            own = [f"{at}self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
            norm(layer.self_attention.layer_norm, at + "self_attn_layer_norm")
            linear(layer.self_attention.linear[0], *own[:3])
            linear(layer.self_attention.linear[1], own[3])
            if side == "decoder":
                cross = [f"{at}encoder_attn.{part}_proj" for part in ("q", "k", "v", "out")]
                norm(layer.attention.layer_norm, at + "encoder_attn_layer_norm")
                linear(layer.attention.linear[0], cross[0])
                linear(layer.attention.linear[1], *cross[1:3])
                linear(layer.attention.linear[2], cross[3])
            norm(layer.ffn.layer_norm, at + "final_layer_norm")
            linear(layer.ffn.linear_0, at + "fc1")
            linear(layer.ffn.linear_1, at + "fc2")
    for name in ("conv1", "conv2"):
        conv = getattr(spec.encoder, name)
        conv.weight, conv.bias = (read(f"model.encoder.{name}.{kind}") for kind in ("weight", "bias"))
    spec.decoder.embeddings.weight = read("model.decoder.embed_tokens.weight")
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    tokenizer = json.loads((hf / "tokenizer.json").read_text(encoding="utf-8"))
    pairs = [
        *tokenizer["model"]["vocab"].items(),
        *((t["content"], t["id"]) for t in tokenizer["added_tokens"]),
    ]
    spec.register_vocabulary([text for text, _ in sorted(pairs, key=lambda pair: pair[1])])
    generation = json.loads((hf / "generation_config.json").read_text(encoding="utf-8"))
    spec.config.suppress_ids = generation["suppress_tokens"]
    spec.config.suppress_ids_begin = generation["begin_suppress_tokens"]
    spec.config.alignment_heads = ALIGNMENT_HEADS
    spec.config.lang_ids = list(range(50259, 50259 + len(LANGUAGES)))
    spec.validate()
    spec.optimize(quantization=quantization)
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))
    (out / "tokenizer.json").write_bytes((hf / "tokenizer.json").read_bytes())


def requantize_bin(source: Path, out: Path) -> None:
    """A whisper.cpp F16 `.bin` with its F16 matrices as Q8_0; convolutions stay F16."""
    from rustasr import _core

    with source.open("rb") as src, out.open("wb") as dst:

        def ints(n: int) -> tuple[int, ...]:
            return struct.unpack(f"<{n}i", src.read(4 * n))

        head = [*ints(11), *ints(1)]
        dst.write(struct.pack("<12i", *head[:11], 2007))  # the quantisation's version times 1000, then type 7
        mels, bins = ints(2)
        dst.write(struct.pack("<2i", mels, bins) + src.read(4 * mels * bins))
        (count,) = ints(1)
        dst.write(struct.pack("<i", count))
        for _ in range(count):
            (length,) = ints(1)
            dst.write(struct.pack("<i", length) + src.read(length))
        while start := src.read(12):
            rank, length, kind = struct.unpack("<3i", start)
            shape, name = ints(rank), src.read(length)
            data = src.read(int(np.prod(shape)) * (2 if kind else 4))
            if kind and rank == 2:
                rows = np.frombuffer(data, "<f2").reshape(shape[::-1]).astype(np.float32)
                data, kind = _core.quantize_rows(rows, "q8_0").tobytes(), 8
            dst.write(struct.pack("<3i", rank, length, kind) + struct.pack(f"<{rank}i", *shape) + name + data)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    make_ctranslate2(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
