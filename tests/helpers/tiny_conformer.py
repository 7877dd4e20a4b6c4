"""Random conformers small enough to be made in a moment, as GGUF files, and the same encoders in NumPy.

`VARIANTS` covers every stem, attention, norm and bias that the released checkpoints have. Weights go by the
names of `rustasr.convert.conformer` (the publishers'), so the converter's layout is under test too; the NumPy
forward pass below is written from the publishers' modules and knows nothing of that layout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Field, OutputTensor, SourceTensor, write_gguf
from rustasr.convert.conformer import Conformer, Frontend, Head, expected_tensors, output_tensors

Array = NDArray[Any]
N_VOCAB = 10

V3 = Conformer(
    n_mels=12, n_layer=2, d_model=64, n_head=4, d_ff=96, conv_kernel=5, conv_norm="layer_norm",
    use_bias=True, xscaling=False, attention="rotary", rope_base=5000.0, subsampling="conv1d",
    subsampling_factor=4, subsampling_kernel=5, subsampling_channels=64,
)  # fmt: skip
V2 = replace(V3, conv_kernel=7, conv_norm="batch_norm", subsampling="conv2d", subsampling_kernel=3, n_mels=11)
PARAKEET = replace(
    V3, attention="rel_pos", use_bias=False, conv_kernel=9, conv_norm="batch_norm", n_mels=20,
    subsampling="dw_striding", subsampling_factor=8, subsampling_kernel=3, subsampling_channels=32,
)  # fmt: skip
VARIANTS: dict[str, tuple[str, Conformer]] = {
    "gigaam-v3": ("gigaam", V3),
    "gigaam-v2": ("gigaam", V2),
    "gigaam-v1": ("gigaam", replace(V2, attention="rel_pos")),
    "parakeet": ("parakeet", PARAKEET),
    "parakeet-biased": ("parakeet", replace(PARAKEET, use_bias=True, xscaling=True)),
}


@dataclass(frozen=True)
class TinyConformer:
    """A random checkpoint: its architecture, its encoder and its tensors by the publishers' names."""

    architecture: str
    frontend: Frontend
    encoder: Conformer
    tensors: dict[str, Array]
    window: Array  # [win_length]
    filters: Array  # [n_mels, n_fft / 2 + 1]

    def metadata(self) -> dict[str, Field]:
        return {**self.frontend.metadata(), **self.encoder.metadata(), **Head("ctc", N_VOCAB).metadata()}

    def output_tensors(self) -> list[OutputTensor]:
        def source(name: str, values: Array) -> SourceTensor:
            return SourceTensor(name, values.shape, lambda rows=slice(None): values[rows])

        checkpoint = {name: source(name, values) for name, values in self.tensors.items()}
        return [
            *self.frontend.tables(lambda: self.window, lambda: self.filters),
            *output_tensors(checkpoint, self.encoder, Head("ctc", N_VOCAB), "tiny"),
        ]

    def write(
        self,
        path: Path,
        qtype: str = "f32",
        metadata: dict[str, Field] | None = None,
        tensors: list[OutputTensor] | None = None,
    ) -> Path:
        """`metadata` and `tensors` stand in for the model's own (to damage a file)."""
        metadata = self.metadata() if metadata is None else metadata
        tensors = self.output_tensors() if tensors is None else tensors
        write_gguf(path, self.architecture, metadata, tensors, qtype)
        return path

    def session(self, folder: Path, qtype: str = "f32") -> Any:
        """A session on the CPU, the model written into `folder`."""
        from rustasr import _core

        path = self.write(folder / f"{self.architecture}-{qtype}.gguf", qtype)
        return _core.Model(str(path), "cpu", int(os.environ.get("RUSTASR_TEST_THREADS", "2"))).session()

    def mel(self, n_frames: int, seed: int = 1) -> Array:
        """Features [n_frames, n_mels] as the encoder might see them."""
        shape = (n_frames, self.encoder.n_mels)
        return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make(variant: str, seed: int = 0) -> TinyConformer:
    """A random one; its front end is of no interest."""
    n_mels = VARIANTS[variant][1].n_mels
    frontend = Frontend(
        sample_rate=16000, n_fft=64, win_length=64, hop_length=32, n_mels=n_mels, center=False,
        pad_mode="none", drop_last_frame=False, preemphasis=0.0, floor=1e-9, floor_mode="clamp",
        normalize="none",
    )  # fmt: skip
    window, filters = np.hanning(64).astype(np.float32), np.ones((n_mels, 33), np.float32)
    return with_frontend(variant, frontend, window, filters, seed)


def with_frontend(
    variant: str, frontend: Frontend, window: Array, filters: Array, seed: int = 0
) -> TinyConformer:
    """A random one behind this front end."""
    architecture, encoder = VARIANTS[variant]
    encoder = replace(encoder, n_mels=frontend.n_mels)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_tensors(encoder, Head("ctc", N_VOCAB)).items():
        values = rng.standard_normal(shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif "norm" in name and name.endswith(".weight"):
            values = 1 + 0.2 * values
        elif len(shape) > 1 and "pos_bias" not in name:
            values /= np.sqrt(np.prod(shape[1:]))
        else:
            values *= 0.3
        tensors[name] = values.astype(np.float32)
    return TinyConformer(architecture, frontend, encoder, tensors, window, filters)


# --- the encoder in NumPy, double precision, one utterance ---


def encode(model: TinyConformer, mel: Array) -> dict[str, Array]:
    """mel [T_mel, n_mels] → "subsampling", "blocks.i" and "output" [T, d], "logits" (log-softmax)."""
    c = model.encoder
    weights = {name: values.astype(np.float64) for name, values in model.tensors.items()}
    x = _subsample(c, weights, mel.astype(np.float64))
    stages = {"subsampling": x}
    if c.xscaling:
        x = x * np.sqrt(c.d_model)
    for i in range(c.n_layer):
        prefix = f"encoder.layers.{i}."
        layer = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        x = stages[f"blocks.{i}"] = _block(c, layer, x)
    stages["output"] = x
    logits = x @ weights["head.weight"][:, :, 0].T + weights["head.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    stages["logits"] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return stages


def _convolve(x: Array, weight: Array, stride: int) -> Array:
    """x [n_in, *sizes], weight [n_out, n_in or 1: depthwise, *kernel] → [n_out, *sizes / stride]."""
    kernel = weight.shape[2:]
    padded = np.pad(x, [(0, 0), *((k // 2, k // 2) for k in kernel)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, tuple(range(1, x.ndim)))
    windows = windows[(slice(None), *(slice(None, None, stride) for _ in kernel))]
    taps = tuple(range(-len(kernel), 0))
    if weight.shape[1] == 1 and x.shape[0] > 1:
        shape = (weight.shape[0], *(1 for _ in kernel), *kernel)
        depthwise: Array = (windows * weight.reshape(shape)).sum(axis=taps)
        return depthwise
    inputs = (0, *taps)
    return np.tensordot(weight, windows, axes=(tuple(range(1, weight.ndim)), inputs))


def _subsample(c: Conformer, weights: dict[str, Array], mel: Array) -> Array:
    def conv(x: Array, index: int, stride: int = 2) -> Array:
        prefix = f"encoder.pre_encode.conv.{index}"
        bias = weights[f"{prefix}.bias"]
        return _convolve(x, weights[f"{prefix}.weight"], stride) + bias.reshape(-1, *(1,) * (x.ndim - 1))

    if c.subsampling == "conv1d":
        x = mel.T
        for stage in range(c.n_stages):
            x = np.maximum(conv(x, 2 * stage), 0)
        return x.T
    x = np.maximum(conv(mel[None], 0), 0)  # [C, T, F]
    for stage in range(1, c.n_stages):
        if c.subsampling == "conv2d":
            x = conv(x, 2 * stage)
        else:
            x = conv(conv(x, 3 * stage - 1), 3 * stage, stride=1)
        x = np.maximum(x, 0)
    flat = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
    return flat @ weights["encoder.pre_encode.out.weight"].T + weights["encoder.pre_encode.out.bias"]


def _norm(layer: dict[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled: Array = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return scaled * layer[f"{name}.weight"] + layer[f"{name}.bias"]


def _linear(layer: dict[str, Array], name: str, x: Array) -> Array:
    weight = layer[f"{name}.weight"]
    y: Array = x @ weight.reshape(weight.shape[:2]).T
    return y + layer[f"{name}.bias"] if f"{name}.bias" in layer else y


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _block(c: Conformer, layer: dict[str, Array], x: Array) -> Array:
    def feed_forward(name: str, x: Array) -> Array:
        hidden = _linear(layer, f"{name}.linear1", _norm(layer, f"norm_{name}", x))
        return _linear(layer, f"{name}.linear2", hidden * _sigmoid(hidden))

    x = x + 0.5 * feed_forward("feed_forward1", x)
    x = x + _attend(c, layer, _norm(layer, "norm_self_att", x))
    x = x + _conv_module(c, layer, _norm(layer, "norm_conv", x))
    x = x + 0.5 * feed_forward("feed_forward2", x)
    return _norm(layer, "norm_out", x)


def _attend(c: Conformer, layer: dict[str, Array], y: Array) -> Array:
    n_frames, d_head = len(y), c.d_model // c.n_head

    def heads(x: Array) -> Array:  # [H, T, D]
        return x.reshape(len(x), c.n_head, d_head).transpose(1, 0, 2)

    turned = _rotate(heads(y), c.rope_base).transpose(1, 0, 2).reshape(y.shape)
    at = turned if c.attention == "rotary" else y
    q, k = (heads(_linear(layer, f"self_attn.linear_{part}", at)) for part in "qk")
    v = heads(_linear(layer, "self_attn.linear_v", y))
    if c.attention == "rotary":
        scores = q @ k.transpose(0, 2, 1)
    else:
        distances = np.arange(n_frames)[:, None] - np.arange(n_frames)  # i − j
        angles = np.arange(1 - n_frames, n_frames)[:, None] * 10000.0 ** (
            -np.arange(0, c.d_model, 2) / c.d_model
        )
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(2 * n_frames - 1, -1)
        keys = heads(table @ layer["self_attn.linear_pos.weight"].T)[:, distances + n_frames - 1]
        u, w = (layer[f"self_attn.pos_bias_{part}"][:, None] for part in "uv")
        scores = (q + u) @ k.transpose(0, 2, 1) + np.einsum("htd,htsd->hts", q + w, keys)
    scores = scores / np.sqrt(d_head)
    scores = np.exp(scores - scores.max(axis=2, keepdims=True))
    scores /= scores.sum(axis=2, keepdims=True)
    return _linear(layer, "self_attn.linear_out", (scores @ v).transpose(1, 0, 2).reshape(y.shape))


def _rotate(x: Array, base: float) -> Array:
    """x [H, T, D]: pairs (i, i + D/2) turned by t · base^(−2i/D)."""
    half = x.shape[2] // 2
    angles = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    turned = (
        first * np.cos(angles) - second * np.sin(angles),
        second * np.cos(angles) + first * np.sin(angles),
    )
    return np.concatenate(turned, axis=2)


def _conv_module(c: Conformer, layer: dict[str, Array], y: Array) -> Array:
    gated = _linear(layer, "conv.pointwise_conv1", y)
    x = gated[:, : c.d_model] * _sigmoid(gated[:, c.d_model :])
    x = _convolve(x.T, layer["conv.depthwise_conv.weight"], 1).T
    if c.use_bias:
        x = x + layer["conv.depthwise_conv.bias"]
    if c.conv_norm == "layer_norm":
        x = _norm(layer, "conv.batch_norm", x)
    else:
        statistics = "mean", "var"
        mean, variance = (layer[f"conv.batch_norm.running_{name}"] for name in statistics)
        x = (x - mean) / np.sqrt(variance + 1e-5)
        x = x * layer["conv.batch_norm.weight"] + layer["conv.batch_norm.bias"]
    return _linear(layer, "conv.pointwise_conv2", x * _sigmoid(x))
