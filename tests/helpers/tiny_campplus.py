"""A small CAM++ with random weights: its checkpoint as 3D-Speaker would save it, and its network in NumPy.

Layouts and names are PyTorch's ([channels, ...]); follows speakerlab/models/campplus/{DTDNN,layers}.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from whisper_writers import Pickle, torch_tensor, write_torch_zip

Array = np.ndarray[Any, Any]
LAYERS, DILATIONS = (2, 3, 1), (1, 2, 2)
MELS, BOTTLENECK, GROWTH, INIT, DIMS = 24, 32, 16, 48, 20


class TinyCampplus:
    """Weights by their names in the file; `head` channels of the convolutions over mels."""

    def __init__(self, head: int = 16, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.head = head
        self.tensors: dict[str, Array] = {}
        self._put("head.conv1.weight", head, 1, 3, 3)
        self._norm("head.bn1", head)
        for layer in ("layer1", "layer2"):
            for i in range(2):
                for number in (1, 2):
                    self._put(f"head.{layer}.{i}.conv{number}.weight", head, head, 3, 3)
                    self._norm(f"head.{layer}.{i}.bn{number}", head)
            self._put(f"head.{layer}.0.shortcut.0.weight", head, head, 1, 1)
            self._norm(f"head.{layer}.0.shortcut.1", head)
        self._put("head.conv2.weight", head, head, 3, 3)
        self._norm("head.bn2", head)
        self._put("xvector.tdnn.linear.weight", INIT, head * MELS // 8, 5)
        self._norm("xvector.tdnn.nonlinear.batchnorm", INIT)
        n = INIT
        for block, n_layers in enumerate(LAYERS, 1):
            for k in range(n_layers):
                self._layer(f"xvector.block{block}.tdnnd{k + 1}", n)
                n += GROWTH
            self._norm(f"xvector.transit{block}.nonlinear.batchnorm", n)
            self._put(f"xvector.transit{block}.linear.weight", n // 2, n, 1)
            n //= 2
        self._norm("xvector.out_nonlinear.batchnorm", n)
        self._put("xvector.dense.linear.weight", DIMS, 2 * n, 1)
        self._norm("xvector.dense.nonlinear.batchnorm", DIMS, affine=False)

    def _put(self, name: str, *shape: int) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        self.tensors[name] = (scale * self.random.normal(size=shape)).astype(np.float32)

    def _norm(self, name: str, n: int, *, affine: bool = True) -> None:
        drawn = {"running_mean": self.random.normal(size=n), "running_var": self.random.uniform(0.5, 2, n)}
        if affine:
            drawn |= {"weight": self.random.uniform(0.5, 1.5, n), "bias": self.random.normal(size=n)}
        for part, values in drawn.items():
            self.tensors[f"{name}.{part}"] = values.astype(np.float32)
        self.tensors[f"{name}.num_batches_tracked"] = np.array([7], np.int64).reshape(())

    def _layer(self, name: str, n: int) -> None:
        self._norm(f"{name}.nonlinear1.batchnorm", n)
        self._put(f"{name}.linear1.weight", BOTTLENECK, n, 1)
        self._norm(f"{name}.nonlinear2.batchnorm", BOTTLENECK)
        self._put(f"{name}.cam_layer.linear_local.weight", GROWTH, BOTTLENECK, 3)
        for part, rows, columns in (
            ("linear1", BOTTLENECK // 2, BOTTLENECK),
            ("linear2", GROWTH, BOTTLENECK // 2),
        ):
            self._put(f"{name}.cam_layer.{part}.weight", rows, columns, 1)
            self.tensors[f"{name}.cam_layer.{part}.bias"] = self.random.normal(size=rows).astype(np.float32)

    def write(self, path: Path) -> Path:
        """The published form: a state dict and nothing else."""
        state = {name: torch_tensor(value, str(i)) for i, (name, value) in enumerate(self.tensors.items())}
        return write_torch_zip(path, Pickle().add(state).done(), list(self.tensors.values()), path.stem)

    def stages(self, features: Array) -> dict[str, Array]:
        """Outputs of the stages for features [T, mels] in double precision: [channels, T], stats [2 C]."""
        x = self._head(features.T[None].astype(np.float64))
        found = {"head": x}
        x = self._conv("xvector.tdnn.linear", x[:, None], stride=(1, 2))[:, 0]
        x = found["tdnn"] = self._normed("xvector.tdnn.nonlinear.batchnorm", x, relu=True)
        for block, (n_layers, dilation) in enumerate(zip(LAYERS, DILATIONS, strict=True), 1):
            for k in range(n_layers):
                x = np.concatenate([x, self._dense(f"xvector.block{block}.tdnnd{k + 1}", x, dilation)])
            found[f"block{block}"] = x
            x = self._normed(f"xvector.transit{block}.nonlinear.batchnorm", x, relu=True)
            x = self._conv(f"xvector.transit{block}.linear", x[:, None])[:, 0]
        x = self._normed("xvector.out_nonlinear.batchnorm", x, relu=True)
        stats = found["stats"] = np.concatenate([x.mean(axis=1), x.std(axis=1, ddof=1)])
        vector = self.tensors["xvector.dense.linear.weight"][:, :, 0].astype(np.float64) @ stats
        vector = self._normed("xvector.dense.nonlinear.batchnorm", vector[:, None], relu=False)[:, 0]
        found["output"] = vector
        return found

    def _head(self, x: Array) -> Array:
        def conv(name: str, norm: str, x: Array, stride: int = 1) -> Array:
            return self._normed(f"head.{norm}", self._conv(f"head.{name}", x, stride=(stride, 1)), relu=False)

        x = np.maximum(conv("conv1", "bn1", x), 0)
        for layer in ("layer1", "layer2"):
            for i in range(2):
                y = np.maximum(conv(f"{layer}.{i}.conv1", f"{layer}.{i}.bn1", x, 2 - i), 0)
                y = conv(f"{layer}.{i}.conv2", f"{layer}.{i}.bn2", y)
                x = np.maximum(
                    y + (x if i else conv(f"{layer}.0.shortcut.0", f"{layer}.0.shortcut.1", x, 2)), 0
                )
        x = np.maximum(conv("conv2", "bn2", x, 2), 0)
        return x.reshape(-1, x.shape[2])

    def _dense(self, name: str, x: Array, dilation: int) -> Array:
        def linear(part: str, x: Array) -> Array:
            tensors = self.tensors
            bias = tensors[f"{name}.cam_layer.{part}.bias"][:, None]
            return tensors[f"{name}.cam_layer.{part}.weight"][:, :, 0].astype(np.float64) @ x + bias

        x = self._conv(f"{name}.linear1", self._normed(f"{name}.nonlinear1.batchnorm", x, relu=True)[:, None])
        x = self._normed(f"{name}.nonlinear2.batchnorm", x[:, 0], relu=True)
        y = self._conv(f"{name}.cam_layer.linear_local", x[:, None], dilation=dilation)[:, 0]
        segments = [x[:, i : i + 100] for i in range(0, x.shape[1], 100)]
        context = np.concatenate(
            [np.broadcast_to(s.mean(axis=1)[:, None], s.shape) for s in segments], axis=1
        )
        context = np.maximum(linear("linear1", context + x.mean(axis=1)[:, None]), 0)
        gates: Array = y / (1 + np.exp(-linear("linear2", context)))
        return gates

    def _conv(self, name: str, x: Array, stride: tuple[int, int] = (1, 1), dilation: int = 1) -> Array:
        """x [C, F, T]; one-dimensional kernels have one mel tap; padding keeps the size, `stride` divides."""
        weight = self.tensors[f"{name}.weight"].astype(np.float64)
        weight = weight if weight.ndim == 4 else weight[:, :, None]
        taps_f, taps_t = weight.shape[2:]
        pad_t = taps_t // 2 * dilation
        padded = np.pad(x, ((0, 0), (taps_f // 2,) * 2, (pad_t, pad_t)))
        out = np.zeros((weight.shape[0], *x.shape[1:]))
        for i in range(taps_f):
            for j in range(taps_t):
                at = padded[:, i : i + x.shape[1], j * dilation : j * dilation + x.shape[2]]
                out += np.einsum("nc,cft->nft", weight[:, :, i, j], at)
        return out[:, :: stride[0], :: stride[1]]

    def _normed(self, name: str, x: Array, *, relu: bool) -> Array:
        """A BatchNorm over axis 0."""
        parts = {part: self.tensors.get(f"{name}.{part}") for part in ("weight", "bias")}
        mean, variance = (
            self.tensors[f"{name}.running_{part}"].astype(np.float64) for part in ("mean", "var")
        )
        scale = (1 if parts["weight"] is None else parts["weight"]) / np.sqrt(variance + 1e-5)
        shift = (0 if parts["bias"] is None else parts["bias"]) - mean * scale
        expand = (slice(None), *[None] * (x.ndim - 1))
        y: Array = x * scale[expand] + shift[expand]
        return np.maximum(y, 0) if relu else y
