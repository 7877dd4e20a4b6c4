"""The front-end tables that travel in a GGUF: analysis window and mel filterbank, float32.

The filterbank is librosa's default, which openai-whisper's `mel_filters.npz` and NeMo's featurizer were made
with: the Slaney scale, linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for a factor of
6.4), and triangles normalised to unit area. Rounded where librosa rounds, so it gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def hann_window(n_fft: int) -> NDArray[np.float32]:
    """The periodic Hann window [n_fft], as `torch.hann_window` gives it."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def symmetric_hann_window(length: int) -> NDArray[np.float32]:
    """The symmetric Hann window [length]: `torch.hann_window(length, periodic=False)` as NeMo has it.

    In float32 steps as torch takes them; what is left is the rounding of its cosine (at most 6e-8).
    """
    angles = np.arange(length, dtype=np.float32) * np.float32(2.0 * np.pi / (length - 1))
    cosines: NDArray[np.float32] = np.cos(angles.astype(np.float64)).astype(np.float32)
    window: NDArray[np.float32] = np.float32(0.5) - np.float32(0.5) * cosines
    return window


def hz_to_mel(hz: float) -> float:
    """Slaney's mel of a frequency."""
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `hz_to_mel`, element-wise."""
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def slaney_filterbank(
    n_mels: int, n_fft: int = 400, sample_rate: int = 16000, max_hz: float | None = None
) -> NDArray[np.float32]:
    """Triangular filters [n_mels, n_fft/2+1] from 0 Hz to `max_hz` (default: the Nyquist frequency)."""
    top = max_hz if max_hz is not None else sample_rate / 2.0
    bins = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(top), n_mels + 2))
    widths, distances = np.diff(edges)[:, None], edges[:, None] - bins
    rising, falling = -distances[:-2] / widths[:-1], distances[2:] / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    area = 2.0 / (edges[2:] - edges[:-2])
    return (triangles * area[:, None]).astype(np.float32)


def povey_window(length: int) -> NDArray[np.float32]:
    """Kaldi's window [length]: a symmetric Hann window to the power 0.85 (feature-window.cc)."""
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / (length - 1))
    return (hann**0.85).astype(np.float32)


def hamming_window(length: int) -> NDArray[np.float32]:
    """The symmetric Hamming window [length], Kaldi's "hamming" (feature-window.cc)."""
    return (0.54 - 0.46 * np.cos(2.0 * np.pi * np.arange(length) / (length - 1))).astype(np.float32)


def kaldi_filterbank(
    n_mels: int, n_fft: int, sample_rate: int = 16000, min_hz: float = 20.0
) -> NDArray[np.float32]:
    """Kaldi's filters [n_mels, n_fft/2+1] from `min_hz` to the Nyquist frequency (mel-computations.cc).

    Triangles over the mel scale 1127 ln(1 + f/700), of height 1. In double precision: Kaldi and torchaudio
    compute them in F32, which moves a weight by up to 2e-5.
    """
    bins = 1127.0 * np.log1p(np.fft.rfftfreq(n_fft, 1.0 / sample_rate) / 700.0)
    lowest, highest = 1127.0 * np.log1p(np.array([min_hz, sample_rate / 2.0]) / 700.0)
    edges = np.linspace(lowest, highest, n_mels + 2)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles: NDArray[np.float32] = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return triangles
