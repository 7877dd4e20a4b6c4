"""Calls with one side per channel: who speaks is where it is heard, once cross-talk is taken out.

::

    left, right ─► the same sound in both? then the channels tell nothing
                ─► speech of each channel                                 Vad, on its own
                ─► both at once: one is the echo of the other? cleared     correlation and level
                ─► speech of each side

A voice leaks into the other channel through a loudspeaker, a headset or a cable: delayed by some
milliseconds and much weaker, but a detector takes it for speech. Two people who talk at the same time are
not alike, an echo and its source are. Levels are compared as recorded: no gain control before this.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE, AudioSource
from rustasr.options import between
from rustasr.vad import Span, arrange, padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rustasr.vad import Vad

Samples: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

GRID = SAMPLE_RATE // 100  # masks have a place every 10 ms
BLOCK = 5  # places, 50 ms: what is cleared at once
BEFORE, AFTER = 1600, 3200  # samples around a block's middle that are compared: 100 ms, 200 ms
READ_SECONDS = 10.0
SHORTEST = SAMPLE_RATE // 5  # 0.2 s: shorter gaps are closed, shorter speech is dropped
PAD = 480  # samples on both sides, at most half of a gap: 30 ms, as Silero pads
LEAST_SPEECH = SAMPLE_RATE // 2  # a channel with less than 0.5 s of speech is empty
ENERGY_FLOOR = 1e-9


@runtime_checkable
class Stereo(AudioSource, Protocol):
    """A source whose `blocks` are the mixture of two channels, and which gives them apart too."""

    @property
    def is_stereo(self) -> bool:
        """Whether there are two channels."""
        ...

    def side(self, channel: int) -> AudioSource:
        """One channel by itself, 0 or 1."""
        ...

    def pairs(self, block_s: float) -> Iterator[tuple[Samples, Samples]]:
        """Blocks of both channels, mono float32 at 16 kHz, equally long."""
        ...


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """What counts as the same sound in both channels.

    duplicate: correlation of the whole channels from which they are one recording.
    echo: correlation of a stretch from which one channel may be the echo of the other ...
    echo_db: ... where it is weaker by more than this.
    echo_ms: longest delay between a voice and its echo.

    Raises OptionError for a value outside its range.
    """

    duplicate: float = 0.98
    echo: float = 0.3
    echo_db: float = 6.0
    echo_ms: float = 30.0

    def __post_init__(self) -> None:
        between("duplicate", self.duplicate, 0, 1)
        between("echo", self.echo, 0, 1)
        between("echo_db", self.echo_db, 0, 100)
        between("echo_ms", self.echo_ms, 0, 250)

    @property
    def lag(self) -> int:
        """`echo_ms` in samples."""
        return round(self.echo_ms * SAMPLE_RATE / 1000)


def are_duplicates(stereo: Stereo, options: ChannelOptions | None = None) -> bool:
    """Whether two channels are one recording: their normalised cross-correlation, over all lags up to
    `echo_ms`, is at least `duplicate`. Two silent channels are.
    """
    options = options or ChannelOptions()
    lag = options.lag
    forward, backward = np.zeros(lag + 1), np.zeros(lag + 1)
    energy_left = energy_right = 0.0
    tail_left = tail_right = np.zeros(lag, np.float32)
    for u, v in stereo.pairs(READ_SECONDS):
        energy_left += float(np.dot(u, u))
        energy_right += float(np.dot(v, v))
        long_left, long_right = np.concatenate([tail_left, u]), np.concatenate([tail_right, v])
        forward += _lagged(v, long_left, lag)
        backward += _lagged(u, long_right, lag)
        tail_left, tail_right = long_left[len(u) :], long_right[len(v) :]
    peak = max(np.abs(forward).max(), np.abs(backward).max())
    energies = np.sqrt(energy_left * energy_right)
    return energy_left == energy_right == 0.0 or bool(peak >= options.duplicate * energies > 0.0)


def _lagged(x: Samples, y: Samples, lag: int) -> NDArray[np.float64]:
    """Sums over n of x[n] · y[lag + n - l] for l = 0 ... lag; y has `lag` samples more, in front."""
    size = len(y) + lag
    size = 1 << (size - 1).bit_length()
    spectrum = np.conj(np.fft.rfft(x, size)) * np.fft.rfft(y, size)
    products: NDArray[np.float64] = np.fft.irfft(spectrum, size)[lag::-1]
    return products


@dataclass(frozen=True, slots=True)
class ChannelSpeech:
    """Speech of both sides in samples, and how much of their common time sounds alike at a like level: a
    stereo picture of one room rather than two sides of a call (0 to 1).
    """

    left: list[Span]
    right: list[Span]
    likeness: float


def channel_speech(stereo: Stereo, vad: Vad, options: ChannelOptions | None = None) -> ChannelSpeech:
    """The speech of each channel without the cross-talk of the other."""
    options = options or ChannelOptions()
    found = [vad.speech(stereo.side(channel).blocks(READ_SECONDS)) for channel in (0, 1)]
    found = [spans if sum(s.length for s in spans) >= LEAST_SPEECH else [] for spans in found]
    n_places = max((-(-spans[-1].end // GRID) for spans in found if spans), default=0)
    n_places = -(-n_places // BLOCK) * BLOCK
    masks = [_mask(spans, n_places) for spans in found]
    active = [mask.reshape(-1, BLOCK).any(axis=1) for mask in masks]
    both = np.flatnonzero(active[0] & active[1])
    n_alike = 0
    for blocks, likeness, level_db in _compared(stereo, both, options.lag):
        is_alike = likeness > options.echo
        masks[1].reshape(-1, BLOCK)[blocks[is_alike & (level_db > options.echo_db)]] = False
        masks[0].reshape(-1, BLOCK)[blocks[is_alike & (level_db < -options.echo_db)]] = False
        n_alike += int(np.count_nonzero(is_alike & (np.abs(level_db) <= options.echo_db)))
    n_active = int(np.count_nonzero(active[0] | active[1]))
    ends = [spans[-1].end if spans else 0 for spans in found]
    sides = [_spans(mask, end) for mask, end in zip(masks, ends, strict=True)]
    return ChannelSpeech(sides[0], sides[1], n_alike / n_active if n_active else 0.0)


def _compared(
    stereo: Stereo, blocks: NDArray[np.int64], lag: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """(blocks, correlation, level of left over right in dB) for `blocks`, which rise, as they are read."""
    middles = blocks * BLOCK * GRID + BLOCK * GRID // 2
    held = np.zeros((2, BEFORE), np.float32)  # samples from `first` on; silence before the recording
    first, done = -BEFORE, 0
    silence = np.zeros(AFTER + BLOCK * GRID, np.float32)  # and after it
    for u, v in itertools.chain(stereo.pairs(READ_SECONDS), [(silence, silence)]):
        held = np.concatenate([held, np.stack([u, v])], axis=1)
        ready = int(np.searchsorted(middles, first + held.shape[1] - AFTER, side="right"))
        if ready > done:
            starts = middles[done:ready] - BEFORE - first
            pieces = held[:, starts[:, None] + np.arange(BEFORE + AFTER)]
            yield blocks[done:ready], *_likeness(pieces[0], pieces[1], lag)
            done = ready
        kept = middles[done] - BEFORE - first if done < len(middles) else held.shape[1]
        kept = min(max(int(kept), 0), held.shape[1])
        held, first = held[:, kept:], first + kept


def _likeness(
    u: NDArray[np.float32], v: NDArray[np.float32], lag: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Greatest correlation of each row over all lags, and the level of u over v in dB."""
    energies = [np.einsum("ij,ij->i", x, x, dtype=np.float64) + ENERGY_FLOOR for x in (u, v)]
    size = 1 << (u.shape[1] + lag - 1).bit_length()
    products = np.fft.irfft(np.conj(np.fft.rfft(u, size)) * np.fft.rfft(v, size), size)
    near = np.concatenate([products[:, : lag + 1], products[:, size - lag :]], axis=1)
    correlation = np.abs(near).max(axis=1) / np.sqrt(energies[0] * energies[1])
    return correlation, 10.0 * np.log10(energies[0] / energies[1])


def _mask(spans: Sequence[Span], n_places: int) -> Mask:
    mask = np.zeros(n_places, np.bool_)
    for span in spans:
        mask[span.start // GRID : -(-span.end // GRID)] = True
    return mask


def _spans(mask: Mask, n_samples: int) -> list[Span]:
    """Speech where the mask is set: short gaps closed, short speech dropped, padded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))) * GRID
    runs = [Span(int(start), min(int(end), n_samples)) for start, end in edges.reshape(-1, 2)]
    kept = [span for span in arrange(runs, gap=SHORTEST - 1) if span.length >= SHORTEST]
    return padded(kept, PAD, n_samples)


__all__ = ["ChannelOptions", "ChannelSpeech", "Stereo", "are_duplicates", "channel_speech"]
