"""Where Qwen3-ASR's windows begin and end, and when its text was said.

The cut is qwen-asr's (inference/utils.py `split_audio_into_chunks`): near the wanted length, in the
quietest tenth of a second, no overlap and no gap. The model gives no times: without an aligner its text is
shared out over the loud parts of the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE
from rustasr.longform import Samples, Window, wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LONGEST_BATCH_S = 600.0  # the decoder's cache takes 1.5 MB a second of sound
SEARCH_S = 5.0  # a cut lies within so much of the wanted length ...
SEARCH_PART = 0.25  # ... and within this part of it, so that short windows stay near their length
QUIET_SAMPLES = SAMPLE_RATE // 10
LOUDNESS_HOP = SAMPLE_RATE // 10
NEARLY_LOUD_DB = 10.0


def windows(
    blocks: Iterable[Samples], length_s: float, spans: Sequence[tuple[int, int | None]]
) -> Iterator[Window]:
    """The windows of a recording in order, each about `length_s` seconds or what is left.

    `blocks` are all its samples, `spans` rising (start, end) samples of what is wanted.
    """
    length = round(length_s * SAMPLE_RATE)
    search = round(min(SEARCH_S, SEARCH_PART * length_s) * SAMPLE_RATE)
    start, held, size = 0, list[Samples](), 0
    for position, piece in wanted(blocks, spans):
        if held and position != start + size:  # another span
            yield from _cut_all(start, np.concatenate(held), length, search)
            held, size = [], 0
        if not held:
            start = position
        held.append(piece)
        size += len(piece)
        while size > length + search:
            samples = np.concatenate(held)
            cut = boundary(samples, length, search)
            yield Window(start, samples[:cut])
            # A copy: the window's array must not live on for the sake of its tail.
            held, start, size = [samples[cut:].copy()], start + cut, size - cut
    if held:
        yield from _cut_all(start, np.concatenate(held), length, search)


def batches(found: Iterable[Window], most: int) -> Iterator[list[Window]]:
    """Up to `most` windows at a time, and no more than `LONGEST_BATCH_S` of sound, but one at least."""
    batch, seconds = list[Window](), 0.0
    for window in found:
        if batch and seconds + window.duration > LONGEST_BATCH_S:
            yield batch
            batch, seconds = [], 0.0
        batch.append(window)
        seconds += window.duration
        if len(batch) == most:
            yield batch
            batch, seconds = [], 0.0
    if batch:
        yield batch


def _cut_all(start: int, samples: Samples, length: int, search: int) -> Iterator[Window]:
    """The end of a span: one window, or two where it is too long for one."""
    while len(samples) > length:
        cut = boundary(samples, length, search)
        yield Window(start, samples[:cut])
        start, samples = start + cut, samples[cut:]
    if len(samples):
        yield Window(start, samples)


def boundary(samples: Samples, cut: int, search: int) -> int:
    """The sample within `search` of `cut` at which to cut: the smallest in the quietest tenth of a second."""
    left, right = max(0, cut - search), min(len(samples), cut + search)
    if right - left <= QUIET_SAMPLES:
        return cut
    loudness = np.abs(samples[left:right])
    sums = np.concatenate([[0.0], np.cumsum(loudness, dtype=np.float64)])
    first = int(np.argmin(sums[QUIET_SAMPLES:] - sums[:-QUIET_SAMPLES]))
    inside = int(np.argmin(loudness[first : first + QUIET_SAMPLES]))
    return max(1, left + first + inside)


def halves(window: Window) -> list[Window]:
    """The window cut in two, somewhere in its middle third."""
    cut = boundary(window.samples, len(window.samples) // 2, len(window.samples) // 6)
    return [Window(window.start, window.samples[:cut]), Window(window.start + cut, window.samples[cut:])]


class SpeechClock:
    """Shares out a window's time: a fraction of what is loud in it → seconds in the recording.

    Loud are the tenths of a second in the upper half (in dB) between the quiet and the loud ones of the
    window, and all that come within `NEARLY_LOUD_DB` of these.
    """

    def __init__(self, window: Window) -> None:
        hops = -(-len(window.samples) // LOUDNESS_HOP)
        power = [
            float(
                np.mean(
                    np.square(window.samples[i * LOUDNESS_HOP : (i + 1) * LOUDNESS_HOP], dtype=np.float64)
                )
            )
            for i in range(hops)
        ]
        decibels = 10 * np.log10(np.maximum(power, 1e-10))
        quiet, loud = np.percentile(decibels, [10, 95])
        threshold = min((quiet + loud) / 2, loud - NEARLY_LOUD_DB)
        self._loud: NDArray[np.intp] = np.flatnonzero(decibels >= threshold)
        self._window = window

    def span(self, first: float, last: float) -> tuple[float, float]:
        """(start, end) of the text between two fractions of it; 0 <= first <= last <= 1."""
        return self._at(first, ending=False), self._at(last, ending=True)

    def _at(self, fraction: float, *, ending: bool) -> float:
        """On the border between two loud stretches a text ends with the first and begins with the second."""
        place = fraction * len(self._loud)
        hop = min(len(self._loud) - 1, max(0, int(np.ceil(place)) - 1 if ending else int(place)))
        seconds = (int(self._loud[hop]) + place - hop) * LOUDNESS_HOP / SAMPLE_RATE
        return self._window.offset + min(max(0.0, seconds), self._window.duration)


__all__ = ["LONGEST_BATCH_S", "SpeechClock", "batches", "boundary", "halves", "windows"]
