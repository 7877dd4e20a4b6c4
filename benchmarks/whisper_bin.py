#!/usr/bin/env python3
"""Write a whisper.cpp model file (.bin, F16) from a CTranslate2 Whisper folder, for the peers that read it.

    whisper_bin.py CT2_FOLDER OUT.bin

Only NumPy is needed. Layout as whisper.cpp's loader reads it (src/whisper.cpp, whisper_model_load): magic,
eleven int32 hyper-parameters, mel filterbank, vocabulary, then one record per tensor
(rank, name length, type, dimensions fastest first, name, data). Matrices are F16, the rest F32.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_ct2(path: Path) -> dict[str, Array]:
    """All variables of a model.bin (binary version 6), by name."""
    data = path.read_bytes()
    at = 0

    def take(fmt: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize("<" + fmt)
        return int(value)

    def text() -> str:
        nonlocal at
        size = take("H")
        at += size
        return data[at - size : at - 1].decode()

    take("I"), text(), take("I")
    out: dict[str, Array] = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        dtype, size = np.dtype(DTYPES[take("B")]), take("I")
        out[name] = np.frombuffer(data, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    return out


def mel_filters(n_mels: int) -> npt.NDArray[np.float32]:
    """Slaney-scale, area-normalised triangles over 201 bins of 40 Hz: [n_mels, 201]."""

    def hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = hertz(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), n_mels + 2))
    bins = np.arange(201) * 40.0
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def byte_of_character() -> dict[str, int]:
    """The byte-level alphabet of GPT-2 tokenizers, backwards."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def tensors(ct2: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    """(name in the .bin, values) for every tensor; the key projections have no bias there."""
    for conv in ("conv1", "conv2"):
        yield f"encoder.{conv}.weight", ct2[f"encoder/{conv}/weight"]
        yield f"encoder.{conv}.bias", ct2[f"encoder/{conv}/bias"][:, None]
    yield "decoder.token_embedding.weight", ct2["decoder/embeddings/weight"]
    parts = {
        "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
        "self_attention/linear_1": ("attn.out",),
        "attention/linear_0": ("cross_attn.query",),
        "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
        "attention/linear_2": ("cross_attn.out",),
        "ffn/linear_0": ("mlp.0",),
        "ffn/linear_1": ("mlp.2",),
    }
    norms = {"self_attention": "attn_ln", "attention": "cross_attn_ln", "ffn": "mlp_ln"}
    for side, final in (("encoder", "encoder.ln_post"), ("decoder", "decoder.ln")):
        yield f"{side}.positional_embedding", ct2[f"{side}/position_encodings/encodings"]
        yield f"{final}.weight", ct2[f"{side}/layer_norm/gamma"]
        yield f"{final}.bias", ct2[f"{side}/layer_norm/beta"]
        layer = 0
        while f"{side}/layer_{layer}/ffn/linear_0/weight" in ct2:
            src, dst = f"{side}/layer_{layer}/", f"{side}.blocks.{layer}."
            for part, names in parts.items():
                if src + part + "/weight" not in ct2:
                    continue
                weights = np.split(ct2[src + part + "/weight"], len(names))
                biases = np.split(ct2[src + part + "/bias"], len(names))
                for name, weight, bias in zip(names, weights, biases, strict=True):
                    yield f"{dst}{name}.weight", weight
                    if not name.endswith(".key"):
                        yield f"{dst}{name}.bias", bias
            for part, name in norms.items():
                if src + part + "/layer_norm/gamma" in ct2:
                    yield f"{dst}{name}.weight", ct2[src + part + "/layer_norm/gamma"]
                    yield f"{dst}{name}.bias", ct2[src + part + "/layer_norm/beta"]
            layer += 1


def write_bin(folder: Path, out: Path) -> None:
    """Write `out` from the model.bin and tokenizer.json of `folder`."""
    ct2 = read_ct2(folder / "model.bin")
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    n_vocab, state = ct2["decoder/embeddings/weight"].shape
    n_mels = ct2["encoder/conv1/weight"].shape[1]
    layers = [
        sum(k.startswith(f"{s}/layer_") and k.endswith("ffn/linear_0/weight") for k in ct2)
        for s in ("encoder", "decoder")
    ]
    heads = state // 64
    alphabet = byte_of_character()

    def ints(*values: int) -> bytes:
        return struct.pack(f"<{len(values)}i", *values)

    with out.open("wb") as f:
        f.write(
            ints(0x67676D6C, n_vocab, 1500, state, heads, layers[0], 448, state, heads, layers[1], n_mels, 1)
        )
        f.write(ints(n_mels, 201) + mel_filters(n_mels).astype("<f4").tobytes())
        f.write(ints(len(vocabulary)))
        for token, _ in sorted(vocabulary.items(), key=lambda kv: kv[1]):
            raw = bytes(alphabet[c] for c in token)
            f.write(ints(len(raw)) + raw)
        for name, values in tensors(ct2):
            half = values.ndim > 1 and not name.endswith((".bias", "positional_embedding"))
            f.write(ints(values.ndim, len(name), int(half)) + ints(*reversed(values.shape)) + name.encode())
            f.write(values.astype("<f2" if half else "<f4").tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    write_bin(Path(sys.argv[1]), Path(sys.argv[2]))
