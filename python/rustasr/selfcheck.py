"""Does this installation compute? A tiny random Whisper encoder on a device, against NumPy.

The model is written as a real GGUF and loaded like any other, so the check covers the reader, the
backend, the graph and the kernels that were chosen for this processor. It takes milliseconds.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rustasr.errors import TranscriptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"

STATE, HEADS, MELS, CONTEXT, VOCAB, TEXT_CONTEXT = 128, 2, 16, 40, 64, 8
N_FFT = 64
TOLERANCE = 2e-2  # of values around 1: bf16 and f16 kernels round, a wrong one is off by far more


def check_device(device: str) -> float:
    """Largest difference between the device and NumPy; TranscriptionError when it is too large.

    DeviceError when there is no such device or it fails.
    """
    from rustasr import _core

    rng = np.random.default_rng(1)
    weights = _weights(rng)
    mel = rng.standard_normal((2 * CONTEXT, MELS)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="rustasr-check-") as folder:
        path = Path(folder) / "tiny.gguf"
        _write(path, weights)
        session = _core.Model(str(path), device, 1).session()
        found = session.encode_taps([mel], ["output"])["output"]
        del session  # the file is mapped: let go of it before it is removed
    expected = _encoder(mel, weights)
    if found.shape != expected.shape:
        raise TranscriptionError(f"{device}: expected an output of {expected.shape}, found {found.shape}")
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # also when it is not a number
        raise TranscriptionError(
            f"{device}: the tiny model's output differs from NumPy's by {difference:.3g}, expected at most "
            f"{TOLERANCE}; the build does not fit this device: try --device cpu, or build from source"
        )
    return difference


def _weights(rng: np.random.Generator) -> dict[str, Floats]:
    """Every tensor of the GGUF schema, row-major; F32, so that nothing is rounded on the way."""

    def matrix(rows: int, columns: int) -> Floats:
        return (rng.standard_normal((rows, columns)) / math.sqrt(columns)).astype(np.float32)

    def vector(n: int, around: float = 0.0) -> Floats:
        return (around + 0.1 * rng.standard_normal(n)).astype(np.float32)

    d = STATE
    w: dict[str, Floats] = {
        "frontend.window": np.hanning(N_FFT).astype(np.float32),
        "frontend.mel_filters": np.abs(matrix(MELS, N_FFT // 2 + 1)),
        "encoder.positional_embedding": matrix(CONTEXT, d),
        "decoder.token_embedding.weight": matrix(VOCAB, d),
        "decoder.positional_embedding": matrix(TEXT_CONTEXT, d),
    }

    def linear(name: str, n_in: int, n_out: int) -> None:
        w[f"{name}.weight"], w[f"{name}.bias"] = matrix(n_out, n_in), vector(n_out)

    def norm(name: str) -> None:
        w[f"{name}.weight"], w[f"{name}.bias"] = vector(d, 1.0), vector(d)

    linear("encoder.conv1", 3 * MELS, d)
    linear("encoder.conv2", 3 * d, d)
    for part in ("encoder", "decoder"):
        block = f"{part}.blocks.0"
        linear(f"{block}.attn.qkv", d, 3 * d)
        w[f"{block}.attn.qkv.bias"][d : 2 * d] = 0  # keys have no bias
        for name in ("attn_ln", "mlp_ln"):
            norm(f"{block}.{name}")
        linear(f"{block}.attn.out", d, d)
        linear(f"{block}.mlp.0", d, 4 * d)
        linear(f"{block}.mlp.2", 4 * d, d)
    norm("decoder.blocks.0.cross_attn_ln")
    linear("decoder.blocks.0.cross_attn.query", d, d)
    linear("decoder.blocks.0.cross_attn.kv", d, 2 * d)
    linear("decoder.blocks.0.cross_attn.out", d, d)
    norm("encoder.ln_post")
    norm("decoder.ln")
    return w


def _write(path: Path, weights: dict[str, Floats]) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(path), "whisper")
    for key, value in _metadata().items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata() -> dict[str, Any]:
    ids = ["endoftext", "startoftranscript", "translate", "transcribe", "startoflm", "startofprev"]
    ids += ["nospeech", "notimestamps", "timestamp_begin"]
    return {
        "general.name": "self-check",
        "general.license": "MIT",
        "general.source": "random numbers",
        "rustasr.format_version": 1,
        "rustasr.source_sha256": "0" * 64,
        "rustasr.qtype": "f32",
        "frontend.sample_rate": 16000,
        "frontend.n_fft": N_FFT,
        "frontend.hop_length": 16,
        "frontend.n_mels": MELS,
        "frontend.center": True,
        "frontend.pad_mode": "reflect",
        "frontend.preemphasis": 0.0,
        "frontend.log": "log10",
        "frontend.floor": 1e-10,
        "frontend.floor_mode": "clamp",
        "frontend.normalize": "whisper",
        "frontend.drop_last_frame": True,
        "frontend.magnitude_power": 2.0,
        "tokenizer.huggingface.json": "{}",
        "whisper.n_audio_ctx": CONTEXT,
        "whisper.n_audio_state": STATE,
        "whisper.n_audio_head": HEADS,
        "whisper.n_audio_layer": 1,
        "whisper.n_vocab": VOCAB,
        "whisper.n_text_ctx": TEXT_CONTEXT,
        "whisper.n_text_state": STATE,
        "whisper.n_text_head": HEADS,
        "whisper.n_text_layer": 1,
        "whisper.multilingual": False,
        "whisper.languages": ["en"],
        "whisper.suppress_tokens": [1],
        "whisper.begin_suppress_tokens": [2],
        "whisper.alignment_heads": [0, 0],
        **{f"whisper.token.{name}": 40 + index for index, name in enumerate(ids)},
    }


# --- the same encoder in NumPy (whisper/model.py of openai-whisper 20250625)


def _encoder(mel: Floats, w: dict[str, Floats]) -> Floats:
    """mel [2 * CONTEXT, MELS] -> [CONTEXT, STATE]"""
    x = _gelu(_conv(mel, w, "encoder.conv1", 1))
    x = _gelu(_conv(x, w, "encoder.conv2", 2)) + w["encoder.positional_embedding"]
    block = "encoder.blocks.0"
    q, k, v = np.split(_linear(_norm(x, w, f"{block}.attn_ln"), w, f"{block}.attn.qkv"), 3, axis=1)
    heads = []
    for h in np.split(np.arange(STATE), HEADS):
        scores = q[:, h] @ k[:, h].T / math.sqrt(len(h))
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, h])
    x = x + _linear(np.concatenate(heads, axis=1), w, f"{block}.attn.out")
    hidden = _gelu(_linear(_norm(x, w, f"{block}.mlp_ln"), w, f"{block}.mlp.0"))
    return _norm(x + _linear(hidden, w, f"{block}.mlp.2"), w, "encoder.ln_post")


def _conv(x: Floats, w: dict[str, Floats], name: str, stride: int) -> Floats:
    """Width 3, one frame of zeros on each side; rows of the weight are tap-major."""
    padded = np.pad(x, ((1, 1), (0, 0)))
    taps = [padded[tap : tap + len(x) : stride] for tap in range(3)]
    return _linear(np.concatenate(taps, axis=1), w, name)


def _linear(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"], np.float32)


def _norm(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x: Floats) -> Floats:
    erf = np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)).astype(np.float32)
    return np.asarray(0.5 * x * (1 + erf), np.float32)


__all__ = ["TOLERANCE", "check_device"]
