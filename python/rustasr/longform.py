"""Recordings of any length as windows that a network can read at once.

::

    blocks of samples ─► spans the caller wants ─► cut where it is quietest ─► Window, Window, …

A recording that fits one window is that window, untouched. A longer one is cut in the quietest third of
a second between `shortest` and `longest`; nothing is dropped and nothing is read twice. Samples are held
for one window at a time, so memory does not grow with the recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HOP = SAMPLE_RATE // 100  # loudness is looked at every 10 ms
QUIET_HOPS = 30  # a cut lies in the middle of the quietest 0.3 s
SHORTEST_REST_S = 1.0  # a cut leaves at least so much for the last window

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Samples [n] at 16 kHz that begin `start` samples into the recording."""

    start: int
    samples: Samples

    @property
    def offset(self) -> float:
        """Where the window begins, in seconds."""
        return self.start / SAMPLE_RATE

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def is_digital_silence(self) -> bool:
        """Whether nothing at all sounds here: one value throughout."""
        return bool(self.samples.min() == self.samples.max())


def spans_of(clips: Sequence[float]) -> list[tuple[int, int | None]]:
    """Seconds start, end, start, end, … as spans of samples; the last end may be left out (None).

    No clips: one span over everything.
    """
    marks = [round(seconds * SAMPLE_RATE) for seconds in clips]
    if not marks:
        return [(0, None)]
    ends: list[int | None] = [*marks[1::2]]
    return list(zip(marks[::2], ends + [None] * (len(marks) % 2), strict=True))


def windows(
    blocks: Iterable[Samples], longest_s: float, shortest_s: float, spans: Sequence[tuple[int, int | None]]
) -> Iterator[Window]:
    """The windows of a recording in order, at most `longest_s` seconds each.

    `blocks` are all its samples, `spans` rising (start, end) samples of what is wanted.
    """
    longest, shortest = round(longest_s * SAMPLE_RATE), round(shortest_s * SAMPLE_RATE)
    rest = round(SHORTEST_REST_S * SAMPLE_RATE)
    start, held = 0, list[Samples]()
    size = 0
    for position, piece in wanted(blocks, spans):
        if held and position != start + size:  # another span
            yield from _cut_all(start, held, longest, shortest, rest)
            held, size = [], 0
        if not held:
            start = position
        held.append(piece)
        size += len(piece)
        while size > longest + rest:
            samples = held[0] if len(held) == 1 else np.concatenate(held)
            cut = quietest(samples, min(shortest, longest), longest)
            yield Window(start, samples[:cut])
            # A copy: the window's array must not live on for the sake of its tail.
            held, start, size = [samples[cut:].copy()], start + cut, size - cut
    if held:
        yield from _cut_all(start, held, longest, shortest, rest)


def _cut_all(start: int, held: list[Samples], longest: int, shortest: int, rest: int) -> Iterator[Window]:
    """The end of a span: one window, or two where it is a little too long for one."""
    samples = held[0] if len(held) == 1 else np.concatenate(held)
    if len(samples) > longest:
        latest = min(longest, len(samples) - min(rest, len(samples) // 2))
        earliest = max(min(shortest, latest), len(samples) - longest)  # the rest has to fit too
        cut = quietest(samples, min(earliest, latest), latest)
        yield Window(start, samples[:cut])
        start, samples = start + cut, samples[cut:]
    yield Window(start, samples)


def batches_by_length(windows: Sequence[Window], size: int) -> list[list[int]]:
    """The places of the windows in batches of `size`, like lengths together and the longest first: a batch
    costs what its longest window does, times its windows.
    """
    order = sorted(range(len(windows)), key=lambda n: (-len(windows[n].samples), n))
    return [sorted(order[first : first + size]) for first in range(0, len(order), size)]


def wanted(
    blocks: Iterable[Samples], spans: Sequence[tuple[int, int | None]]
) -> Iterator[tuple[int, Samples]]:
    """(position, samples) of the blocks' parts that lie in the spans."""
    position, remaining = 0, list(spans)
    for block in blocks:
        end = position + len(block)
        while remaining:
            first, last = remaining[0]
            low, high = max(first, position), end if last is None else min(last, end)
            if low < high:
                yield low, block[low - position : high - position]
            if last is None or last > end:
                break
            remaining.pop(0)
        position = end  # to the end in any case: only then the recording's length and damages are known


def quietest(samples: Samples, earliest: int, latest: int) -> int:
    """The sample in [earliest, latest] around which it is quietest; the last one among equals."""
    low = max(0, earliest - QUIET_HOPS * HOP // 2)
    hops = samples[low : min(len(samples), latest + QUIET_HOPS * HOP // 2)]
    hops = hops[: len(hops) // HOP * HOP].reshape(-1, HOP)
    if len(hops) <= QUIET_HOPS:
        return latest
    energy = np.einsum("ij,ij->i", hops, hops, dtype=np.float64)
    sums = np.concatenate([[0.0], np.cumsum(energy)])
    loudness = sums[QUIET_HOPS:] - sums[:-QUIET_HOPS]
    best = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
    return int(np.clip(low + (best + QUIET_HOPS // 2) * HOP, earliest, latest))


__all__ = ["Window", "batches_by_length", "quietest", "spans_of", "wanted", "windows"]
