"""What the converters of speaker encoders share: thresholds, Kaldi's front end, folded norms, layouts of
convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Checkpoint, Field, Metadata, OutputTensor, SourceTensor
from rustasr.convert.mel import kaldi_filterbank
from rustasr.errors import ModelFileError, OptionError

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT = 400, 160, 512  # samples: 25 ms every 10 ms, and the next power of two
COUNTER = ".num_batches_tracked"  # batches that a BatchNorm saw in training
_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's and 2d's default
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Voices:
    """What the vectors mean; `speaker.*` in the GGUF.

    `cut_distance`: groups of windows whose mean distance (1 - cosine) is greater are different speakers.
    `merge_cosine`: speakers whose mean vectors are at least so alike are one.
    `min_samples`: a shorter piece is filled up.
    `level_db`: how loud the speech of a recording shall be, where that matters (dB of full scale, RMS).
    """

    n_dims: int
    cut_distance: float
    merge_cosine: float
    min_samples: int
    level_db: float | None = None

    def metadata(self) -> Metadata:
        """The keys of the GGUF."""
        level = {} if self.level_db is None else {"speaker.level_db": Field("f32", self.level_db)}
        return {
            "speaker.n_dims": Field("u32", self.n_dims),
            "speaker.min_samples": Field("u32", self.min_samples),
            "speaker.cut_distance": Field("f32", self.cut_distance),
            "speaker.merge_cosine": Field("f32", self.merge_cosine),
            **level,
        }


def kaldi_metadata(n_mels: int, scale: float = 1.0) -> Metadata:
    """`frontend.*` of Kaldi's log-mel energies without dither, less their mean over the piece.

    `scale` is what the official front end multiplies samples from -1 to 1 with: behind the mean nothing is
    left of it but where the floor of the logarithm lies.
    """
    return {
        "frontend.sample_rate": Field("u32", SAMPLE_RATE),
        "frontend.n_fft": Field("u32", N_FFT),
        "frontend.win_length": Field("u32", WINDOW),
        "frontend.hop_length": Field("u32", HOP),
        "frontend.n_mels": Field("u32", n_mels),
        "frontend.center": Field("bool", False),
        "frontend.pad_mode": Field("str", "none"),
        "frontend.drop_last_frame": Field("bool", False),
        "frontend.framing": Field("str", "kaldi"),
        "frontend.preemphasis": Field("f32", 0.97),
        "frontend.log": Field("str", "ln"),
        "frontend.floor": Field("f32", float(np.finfo(np.float32).eps) / scale**2),
        "frontend.floor_mode": Field("str", "clamp"),
        "frontend.normalize": Field("str", "mean"),
    }


def kaldi_tables(n_mels: int, window: Callable[[int], NDArray[np.float32]]) -> list[OutputTensor]:
    """Window and filterbank of Kaldi's front end."""
    return [
        OutputTensor("frontend.window", (WINDOW,), lambda: window(WINDOW)),
        OutputTensor(
            "frontend.mel_filters", (n_mels, N_FFT // 2 + 1), lambda: kaldi_filterbank(n_mels, N_FFT)
        ),
    ]


def refuse_tokenizer(tokenizer: Path | None) -> None:
    """OptionError where one was given."""
    if tokenizer is not None:
        raise OptionError(f"tokenizer {tokenizer}: a speaker encoder has none; leave it out")


def extent(tensors: Checkpoint, name: str, axis: int, where: str) -> int:
    """One extent of a tensor from which the others follow."""
    if name not in tensors:
        raise ModelFileError(f"{where}: tensor {name!r} is missing")
    shape = tensors[name].shape
    if len(shape) <= axis:
        raise ModelFileError(
            f"{where}: tensor {name!r} has shape {list(shape)}, expected {axis + 1} extents or more"
        )
    return shape[axis]


def norm_shapes(name: str, n: int, *, affine: bool = True) -> Shapes:
    """The tensors of a BatchNorm."""
    parts = ("weight", "bias", "running_mean", "running_var") if affine else ("running_mean", "running_var")
    return {f"{name}.{part}": (n,) for part in parts}


class Layout:
    """Collects the GGUF's tensors; each method says what becomes of one or several source tensors."""

    def __init__(self, tensors: Checkpoint, where: str) -> None:
        self.tensors = tensors
        self.where = where
        self.out: list[OutputTensor] = []

    def norm(self, name: str, source: str) -> None:
        """A BatchNorm before a ReLU: scale and shift [n]."""
        n = self.tensors[f"{source}.running_mean"].shape
        self.out.append(OutputTensor(f"{name}.scale", n, lambda: _f32(self._affine(source)[0])))
        self.out.append(OutputTensor(f"{name}.shift", n, lambda: _f32(self._affine(source)[1])))

    def convolution(
        self, name: str, source: str, norm: str | None = None, reorder: tuple[int, int] | None = None
    ) -> None:
        """[n_out, n_in, (mel taps,) frame taps] as kernel [frame taps, mel taps, n_in, n_out], with the
        BatchNorm behind it. `reorder` (channels, mels): the inputs run over mels, in each over channels.
        """
        tensor = self.tensors[f"{source}.weight"]
        n_out, n_in = tensor.shape[:2]
        mel_taps = tensor.shape[2] if len(tensor.shape) == 4 else 1
        shape = (tensor.shape[-1], mel_taps, n_in, n_out)

        def kernel() -> NDArray[np.float32]:
            weight = _f64(tensor).reshape(n_out, n_in, mel_taps, -1)
            if reorder is not None:
                weight = weight.reshape(n_out, *reorder, mel_taps, shape[0]).swapaxes(1, 2)
                weight = weight.reshape(n_out, n_in, mel_taps, shape[0])
            if norm is not None:
                weight = weight * self._affine(norm)[0][:, None, None, None]
            return _f32(weight.transpose(3, 2, 1, 0))

        self.out.append(OutputTensor(f"{name}.kernel", shape, kernel))
        if norm is not None:
            self._shift(name, norm)

    def linear(self, name: str, source: str, norm: str | None = None) -> None:
        """[n_out, n_in(, 1)] as a matrix, with its bias or the BatchNorm behind it."""
        tensor = self.tensors[f"{source}.weight"].reshaped(self.tensors[f"{source}.weight"].shape[:2])
        if norm is None:
            self.out.append(OutputTensor(f"{name}.weight", tensor.shape, tensor.read, tensor.dtype))
            if f"{source}.bias" in self.tensors:
                bias = self.tensors[f"{source}.bias"]
                self.out.append(OutputTensor(f"{name}.bias", bias.shape, bias.read, bias.dtype))
            return
        self.out.append(
            OutputTensor(
                f"{name}.weight", tensor.shape, lambda: _f32(_f64(tensor) * self._affine(norm)[0][:, None])
            )
        )
        self._shift(name, norm)

    def _shift(self, name: str, norm: str) -> None:
        n = self.tensors[f"{norm}.running_mean"].shape
        self.out.append(OutputTensor(f"{name}.bias", n, lambda: _f32(self._affine(norm)[1])))

    def _affine(self, norm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and shift [n] of a BatchNorm in use."""
        mean, variance = (_f64(self.tensors[f"{norm}.running_{part}"]) for part in ("mean", "var"))
        if np.any(variance < 0):
            raise ModelFileError(
                f"{self.where}: tensor {norm + '.running_var'!r} holds a variance of {variance.min():g}, "
                "expected 0 or more: the source is damaged"
            )
        scale = 1.0 / np.sqrt(variance + _NORM_EPSILON)
        if f"{norm}.weight" not in self.tensors:
            return scale, -mean * scale
        scale = scale * _f64(self.tensors[f"{norm}.weight"])
        return scale, _f64(self.tensors[f"{norm}.bias"]) - mean * scale


def _f64(tensor: SourceTensor) -> NDArray[np.float64]:
    values: NDArray[Any] = tensor.read()
    return values.astype(np.float64)


def _f32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)
