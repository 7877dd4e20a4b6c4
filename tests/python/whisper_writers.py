"""Writers of the other checkpoint formats, for tests: CTranslate2, OpenAI `.pt`, whisper.cpp `.bin`.

Each is written from the format's description, independently of the readers in rustasr.convert.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.mel import slaney_filterbank
from rustasr.convert.whisper_tokenizer import tokenizers_json
from tiny_whisper import Checkpoint, alignment_heads

Array = NDArray[Any]
_CT2_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def ct2_variables(checkpoint: Checkpoint, quantization: str | None = None) -> dict[str, Array]:
    """The variables of a CTranslate2 Whisper; `quantization`: None, "int8" or "int16"."""
    tensors, dims = checkpoint.tensors, checkpoint.dims
    out: dict[str, Array] = {
        "encoder/num_heads": np.array(dims.n_audio_head, np.int16),
        "decoder/num_heads": np.array(dims.n_text_head, np.int16),
        "decoder/activation": np.array(3, np.int8),
        "decoder/scale_embeddings": np.array(0, np.int8),
    }

    def put(name: str, value: Array) -> None:
        out[name] = value
        if quantization is not None and value.ndim == 2 and name.endswith("weight"):
            peak = np.abs(value.astype(np.float32)).max(axis=1) if quantization == "int8" else 1.0
            scale = 127.0 / np.maximum(peak, 1e-9) if quantization == "int8" else np.float32(2.0**10)
            rows = value.astype(np.float32) * (scale[:, None] if quantization == "int8" else scale)
            out[name] = np.rint(rows).astype(quantization)
            out[f"{name}_scale"] = np.asarray(scale, np.float32)

    def affine(target: str, source: str, kinds: tuple[str, str] = ("weight", "bias")) -> None:
        put(f"{target}/{kinds[0]}", tensors[f"{source}.weight"])
        put(f"{target}/{kinds[1]}", tensors[f"{source}.bias"])

    def fused(target: str, source: str, parts: tuple[str, ...]) -> None:
        zeros = np.zeros_like(tensors[f"{source}.value.bias"])
        put(f"{target}/weight", np.concatenate([tensors[f"{source}.{part}.weight"] for part in parts]))
        biases = [tensors.get(f"{source}.{part}.bias", zeros) for part in parts]
        put(f"{target}/bias", np.concatenate(biases))

    for side, layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        out[f"{side}/position_encodings/encodings"] = tensors[f"{side}.positional_embedding"]
        for layer in range(layers):
            here, there = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            affine(f"{here}/self_attention/layer_norm", f"{there}.attn_ln", ("gamma", "beta"))
            fused(f"{here}/self_attention/linear_0", f"{there}.attn", ("query", "key", "value"))
            affine(f"{here}/self_attention/linear_1", f"{there}.attn.out")
            if side == "decoder":
                affine(f"{here}/attention/layer_norm", f"{there}.cross_attn_ln", ("gamma", "beta"))
                affine(f"{here}/attention/linear_0", f"{there}.cross_attn.query")
                fused(f"{here}/attention/linear_1", f"{there}.cross_attn", ("key", "value"))
                affine(f"{here}/attention/linear_2", f"{there}.cross_attn.out")
            affine(f"{here}/ffn/layer_norm", f"{there}.mlp_ln", ("gamma", "beta"))
            affine(f"{here}/ffn/linear_0", f"{there}.mlp.0")
            affine(f"{here}/ffn/linear_1", f"{there}.mlp.2")
    affine("encoder/conv1", "encoder.conv1")
    affine("encoder/conv2", "encoder.conv2")
    affine("encoder/layer_norm", "encoder.ln_post", ("gamma", "beta"))
    affine("decoder/layer_norm", "decoder.ln", ("gamma", "beta"))
    put("decoder/embeddings/weight", tensors["decoder.token_embedding.weight"])
    return dict(sorted(out.items()))


def ct2_bytes(variables: dict[str, Array], version: int = 6, aliases: bool = True) -> bytes:
    """model.bin: header, variables, aliases."""

    def text(value: str) -> bytes:
        raw = value.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        parts += [text(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        if version >= 4:
            parts.append(struct.pack("<BI", _CT2_CODES[str(value.dtype)], value.nbytes))
        else:
            parts.append(struct.pack("<BI", value.itemsize, value.size))
        parts.append(value.tobytes())
    pairs = [("decoder/projection/weight", "decoder/embeddings/weight")] if aliases else []
    if aliases and "decoder/embeddings/weight_scale" in variables:
        pairs.append(("decoder/projection/weight_scale", "decoder/embeddings/weight_scale"))
    if version >= 3:
        parts.append(struct.pack("<I", len(pairs)))
        parts += [text(alias) + text(target) for alias, target in pairs]
    return b"".join(parts)


def write_ctranslate2(
    folder: Path, checkpoint: Checkpoint, *, quantization: str | None = None, version: int = 6
) -> Path:
    """A CTranslate2 folder as faster-whisper's: model.bin, config.json, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ct2_bytes(ct2_variables(checkpoint, quantization), version))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": alignment_heads(checkpoint.dims)}))
    (folder / "tokenizer.json").write_text(tokenizers_json(checkpoint.vocabulary), encoding="utf-8")
    return folder


class Pickle:
    """Protocol-2 opcodes as torch.save writes them."""

    def __init__(self) -> None:
        self.data = bytearray(b"\x80\x02")

    def add(self, value: Any) -> Pickle:
        if isinstance(value, dict):
            self.data += b"}("
            for key, item in value.items():
                self.add(key).add(item)
            self.data += b"u"
        elif isinstance(value, list):
            self.data += b"]("
            for item in value:
                self.add(item)
            self.data += b"e"
        elif value is None:
            self.data += b"N"
        elif isinstance(value, float):
            self.data += b"G" + struct.pack(">d", value)
        elif isinstance(value, Named):
            self.data += f"c{value.module}\n{value.name}\n".encode()
        elif isinstance(value, Made):
            self.add(value.kind)
            self.data += b")\x81"
            self.add(value.state)
            self.data += b"b"
        elif isinstance(value, tuple):
            self.data += b"("
            for item in value:
                self.add(item)
            self.data += b"t"
        elif isinstance(value, str):
            raw = value.encode()
            self.data += b"X" + struct.pack("<I", len(raw)) + raw
        elif isinstance(value, bool):
            self.data += b"\x88" if value else b"\x89"
        elif isinstance(value, int) and -(1 << 31) <= value < 1 << 31:
            self.data += b"J" + struct.pack("<i", value)
        elif isinstance(value, int):
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.data += b"\x8a" + bytes([len(raw)]) + raw
        elif isinstance(value, Call):
            self.data += f"c{value.module}\n{value.name}\n".encode()
            self.add(value.arguments)
            self.data += b"R"
        elif isinstance(value, Stored):
            self.data += b"(X\x07\0\0\0storagectorch\n" + value.kind.encode() + b"\n"
            self.add(value.key).add("cpu").add(value.count)
            self.data += b"tQ"
        else:
            raise TypeError(type(value))
        return self

    def done(self) -> bytes:
        return bytes(self.data) + b"."


class Call:
    """module.name(*arguments)"""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments


@dataclass(frozen=True)
class Named:
    """A global that is only mentioned."""

    module: str
    name: str


@dataclass(frozen=True)
class Made:
    """An object made without its constructor, then given its attributes."""

    kind: Named
    state: Any


class Stored:
    """A storage by key."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count


def torch_tensor(value: Array, key: str) -> Call:
    """The call that rebuilds a contiguous tensor from storage `key`."""
    kinds = {"float16": "HalfStorage", "float32": "FloatStorage", "int64": "LongStorage"}
    kind = kinds[str(value.dtype)]
    strides = tuple(step // value.itemsize for step in np.asarray(value, order="C").strides)
    hooks = Call("collections", "OrderedDict")
    stored = Stored(kind, key, value.size)
    return Call("torch._utils", "_rebuild_tensor_v2", stored, 0, value.shape, strides, False, hooks)


def write_torch_zip(path: Path, pickle: bytes, storages: list[Array], root: str = "archive") -> Path:
    """The zip of torch.save: data.pkl, version, and one stored entry per storage."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", pickle)
        for index, value in enumerate(storages):
            archive.writestr(f"{root}/data/{index}", np.ascontiguousarray(value).tobytes())
        archive.writestr(f"{root}/version", "3\n")
    return path


def openai_root(checkpoint: Checkpoint) -> dict[str, Any]:
    """What an OpenAI checkpoint holds; storage keys count up in the order of the tensors."""
    dims = {name: getattr(checkpoint.dims, name) for name in checkpoint.dims.__dataclass_fields__}
    state = {
        name: torch_tensor(value, str(index))
        for index, (name, value) in enumerate(checkpoint.tensors.items())
    }
    return {"dims": dims, "model_state_dict": state}


def openai_pickle(checkpoint: Checkpoint) -> bytes:
    """data.pkl of an OpenAI checkpoint."""
    return Pickle().add(openai_root(checkpoint)).done()


def write_openai_pt(path: Path, checkpoint: Checkpoint) -> Path:
    """An OpenAI `.pt`."""
    return write_torch_zip(path, openai_pickle(checkpoint), list(checkpoint.tensors.values()))


def whispercpp_bytes(checkpoint: Checkpoint, qtype: str | None = None) -> bytes:
    """A whisper.cpp `.bin`: matrices in the checkpoint's own type, or in a ggml block type."""
    import gguf

    dims = checkpoint.dims
    header = (
        dims.n_vocab, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer,
        dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_mels,
    )  # fmt: skip
    code = int(gguf.GGMLQuantizationType[qtype.upper()]) if qtype else 0
    parts = [b"lmgg", struct.pack("<11i", *header, 2007 if qtype else 1)]
    filters = slaney_filterbank(dims.n_mels)
    parts += [struct.pack("<2i", *filters.shape), filters.tobytes()]
    parts.append(struct.pack("<i", len(checkpoint.vocabulary.tokens)))
    parts += [struct.pack("<I", len(token)) + token for token in checkpoint.vocabulary.tokens]
    for name, value in checkpoint.tensors.items():
        packed, kind = value, {"float32": 0, "float16": 1}[str(value.dtype)]
        if value.ndim == 1 or "positional" in name:
            packed, kind = value.astype(np.float32), 0
        elif qtype and value.ndim == 2:
            packed, kind = gguf.quantize(value.astype(np.float32), gguf.GGMLQuantizationType(code)), code
        shape = (value.size, 1) if name.startswith("encoder.conv") and value.ndim == 1 else value.shape
        parts.append(struct.pack("<3i", len(shape), len(name), kind))
        parts += [struct.pack(f"<{len(shape)}i", *reversed(shape)), name.encode(), packed.tobytes()]
    return b"".join(parts)


def write_whispercpp(path: Path, checkpoint: Checkpoint, qtype: str | None = None) -> Path:
    """The file of `whispercpp_bytes`."""
    path.write_bytes(whispercpp_bytes(checkpoint, qtype))
    return path
