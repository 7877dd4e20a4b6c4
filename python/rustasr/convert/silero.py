"""Silero VAD -> GGUF (snakers4/silero-vad: silero_vad/data/silero_vad.jit, a TorchScript program).

The program holds two networks, for 16 kHz and for 8 kHz; the first one is taken. Its algebra is done here:
of the products with windowed cosines and sines the window remains, of two convolutions the taps that only
ever meet padding are left out, both biases of the LSTM are summed, and rows are filled with zeros to whole
vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr import registry
from rustasr.convert.common import Checkpoint, FamilyPlan, Field, OutputTensor, check_tensors, file_sha256
from rustasr.convert.sources import Source
from rustasr.errors import UnsupportedModelError

SAMPLE_RATE = 16000
# Of the network for 16 kHz (pytorch_stft.py, vad_annotator.py inside the archive).
WINDOW, CONTEXT, PADDING = 512, 64, 64  # samples
N_FFT, HOP_LENGTH = 256, 128
N_BINS = N_FFT // 2 + 1
N_PATCH = -(-3 * N_BINS // 16) * 16  # three spectra, filled to whole vectors
CHANNELS = (128, 64, 64, 128)
N_HIDDEN = 128
_ROUNDING = 1e-6  # of the published basis: 8e-8
_PREFIX = "_model."
_IGNORED = ("_model_8k.", "_state", "_context")


def expected_tensors() -> dict[str, tuple[int, ...]]:
    """Name (inside the network for 16 kHz) -> row-major shape."""
    shapes: dict[str, tuple[int, ...]] = {"stft.forward_basis_buffer": (2 * N_BINS, 1, N_FFT)}
    for i, (n_in, n_out) in enumerate(zip((N_BINS, *CHANNELS[:-1]), CHANNELS, strict=True)):
        shapes[f"encoder.{i}.reparam_conv.weight"] = (n_out, n_in, 3)
        shapes[f"encoder.{i}.reparam_conv.bias"] = (n_out,)
    for part, n_in in (("ih", CHANNELS[-1]), ("hh", N_HIDDEN)):
        shapes[f"decoder.rnn.weight_{part}"] = (4 * N_HIDDEN, n_in)
        shapes[f"decoder.rnn.bias_{part}"] = (4 * N_HIDDEN,)
    shapes["decoder.decoder.2.weight"] = (1, N_HIDDEN, 1)
    shapes["decoder.decoder.2.bias"] = (1,)
    return shapes


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:  # noqa: ARG001 (there is no text here)
    """The GGUF of a Silero VAD program."""
    network = source.config.section("_model")
    for key, value in (("sample_rate", SAMPLE_RATE), ("context_size_samples", CONTEXT)):
        network.equals(key, value)
    state = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in source.state.items()
        if not name.startswith(_IGNORED)
    }
    check_tensors(state, expected_tensors(), source.where)
    numbers = {
        "sample_rate": SAMPLE_RATE, "window": WINDOW, "context": CONTEXT, "padding": PADDING, "n_fft": N_FFT,
        "hop_length": HOP_LENGTH, "n_hidden": N_HIDDEN,
    }  # fmt: skip
    known = registry.by_sha256(file_sha256(source.found.files[0])) is not None
    return FamilyPlan(
        architecture="silero-vad",
        tensors=_tensors(state, source.where),
        fields={
            **{f"silero_vad.{name}": Field("u32", value) for name, value in numbers.items()},
            "silero_vad.channels": Field("arr_i32", list(CHANNELS)),
        },
        warnings=() if known else (f"{source.where} is no published file of Silero VAD 6.2",),
    )


def _window(basis: NDArray[Any], where: str) -> NDArray[np.float32]:
    """The window of a basis [2·N_BINS, N_FFT] of windowed cosines, then sines: its first row."""
    window: NDArray[np.float32] = basis[0]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(N_BINS), np.arange(N_FFT)) / N_FFT) * window
    if not np.abs(np.concatenate([wave.real, wave.imag]) - basis).max() < _ROUNDING:
        raise UnsupportedModelError(f"{where}: its short-time transform is not that of Fourier")
    return window


def _tensors(state: Checkpoint, where: str) -> list[OutputTensor]:
    made: list[OutputTensor] = []

    def add(name: str, shape: tuple[int, ...], build: Callable[[], NDArray[Any]]) -> None:
        made.append(OutputTensor(f"vad.{name}", shape, build))

    def read(name: str) -> NDArray[Any]:
        return state[name].read()

    def taps(i: int, kept: slice, width: int) -> Callable[[], NDArray[Any]]:
        """[n_out, width]: the inputs of a tap, of the next one, zeros."""

        def build() -> NDArray[Any]:
            weight = read(f"encoder.{i}.reparam_conv.weight")[:, :, kept]
            rows = weight.transpose(0, 2, 1).reshape(len(weight), -1)
            return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))

        return build

    add("stft.window", (N_FFT,), lambda: _window(read("stft.forward_basis_buffer")[:, 0], where))
    # Four places become two, then one: the third convolution's first tap and the fourth's outer ones see
    # nothing but zeros.
    for i, kept in enumerate((slice(0, 3), slice(0, 3), slice(1, 3), slice(1, 2))):
        width = N_PATCH if i == 0 else CHANNELS[i - 1] * (kept.stop - kept.start)
        add(f"encoder.{i}.weight", (CHANNELS[i], width), taps(i, kept, width))
        add(f"encoder.{i}.bias", (CHANNELS[i],), state[f"encoder.{i}.reparam_conv.bias"].read)
    add("lstm.input.weight", (4 * N_HIDDEN, CHANNELS[-1]), state["decoder.rnn.weight_ih"].read)
    add(
        "lstm.input.bias",
        (4 * N_HIDDEN,),
        lambda: read("decoder.rnn.bias_ih") + read("decoder.rnn.bias_hh"),
    )
    add("lstm.hidden.weight", (4 * N_HIDDEN, N_HIDDEN), state["decoder.rnn.weight_hh"].read)
    add("output.weight", (1, N_HIDDEN), lambda: read("decoder.decoder.2.weight").reshape(1, N_HIDDEN))
    add("output.bias", (1,), state["decoder.decoder.2.bias"].read)
    return made


__all__ = ["expected_tensors", "plan"]
