"""A recording reduced to its speech, and the times of what was found in it put back.

::

    recording  ──speech──────────────speech─speech────────
    packed     ──speech─·─speech─speech─·                   GAP_S of silence after each region
                                                            → any family transcribes it as it is
    times      every word back to the region it lies in

A family sees only what somebody says: nothing is made up from minutes of silence, and nothing is computed
on them. Regions close to each other stay together with the silence between them.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE
from rustasr.segments import split
from rustasr.types import Segment, Token, Word
from rustasr.vad import Span, arrange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rustasr.audio import AudioSource
    from rustasr.types import TranscriptionResult

Samples = NDArray[np.float32]
Timed = TypeVar("Timed", Word, Token)

GAP_S = 0.5  # between regions, so that no two run into each other
MARGIN_S = 0.2  # added on both sides of speech: detectors cut off soft beginnings and endings
TOGETHER_S = 1.0  # regions with no more silence between them are one
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Region:
    """Samples of the recording, and where the first of them lies in the packed one."""

    span: Span
    packed: int

    def time(self, packed_s: float, duration: float) -> float:
        """The second of the recording that `packed_s` is, moved into the region."""
        offset = min(max(packed_s - self.packed / SAMPLE_RATE, 0.0), self.span.length / SAMPLE_RATE)
        return min(round(self.span.start / SAMPLE_RATE + offset, 6), duration)


class PackedSource:
    """The speech of `source` as an audio source. `duration` is that of the speech with its gaps."""

    sample_rate = SAMPLE_RATE

    def __init__(self, source: AudioSource, speech: Iterable[Span]) -> None:
        self.name = source.name
        self.warnings = source.warnings
        margin = round(MARGIN_S * SAMPLE_RATE)
        wide = [Span(max(0, span.start - margin), span.end + margin) for span in speech]
        self._source = source
        self._gap = round(GAP_S * SAMPLE_RATE)
        self._regions = list[_Region]()
        self._place(arrange(wide, gap=round(TOGETHER_S * SAMPLE_RATE)))

    def _place(self, spans: Iterable[Span]) -> None:
        at = 0
        for span in spans:
            self._regions.append(_Region(span, at))
            at += span.length + self._gap
        self._starts = [region.packed / SAMPLE_RATE for region in self._regions]
        self._ends = [(region.packed + region.span.length) / SAMPLE_RATE for region in self._regions]
        self.duration: float | None = at / SAMPLE_RATE

    @property
    def regions(self) -> list[Span]:
        """The samples of the recording that are heard, rising and apart."""
        return [region.span for region in self._regions]

    def blocks(self, block_s: float) -> Iterator[Samples]:
        """The samples of all regions, a gap after each, in blocks of `block_s` seconds."""
        size, held, n_held = round(block_s * SAMPLE_RATE), list[Samples](), 0
        for piece in self._pieces():
            held.append(piece)
            n_held += len(piece)
            while n_held >= size:
                samples = np.concatenate(held)
                yield samples[:size]
                held, n_held = [samples[size:]], n_held - size
        if n_held:
            yield np.concatenate(held)

    def _pieces(self) -> Iterator[Samples]:
        position, place = 0, 0
        for block in self._source.blocks(READ_SECONDS):
            end = position + len(block)
            while place < len(self._regions) and self._regions[place].span.start < end:
                span = self._regions[place].span
                yield block[max(0, span.start - position) : span.end - position]
                if span.end > end:
                    break
                yield np.zeros(self._gap, np.float32)
                place += 1
            position = end
        if place < len(self._regions) and self._regions[place].span.start < position:
            yield np.zeros(self._gap, np.float32)  # the recording ends inside the region's margin

    # Times of the packed recording, in seconds, become times of the recording, which lasts `duration`.

    def restored(self, result: TranscriptionResult, duration: float) -> TranscriptionResult:
        """The result of this source with the times of the recording.

        A segment that runs over a gap is split there where its words have times.
        """
        segments = [part for segment in result.segments for part in self.segment(segment, duration)]
        return replace(result, segments=tuple(segments), duration=duration)

    def segment(self, segment: Segment, duration: float) -> list[Segment]:
        """One segment with the times of the recording."""
        owners = [self._owner(word.start, word.end) for word in segment.words or ()]
        cuts = [i for i, (before, owner) in enumerate(itertools.pairwise(owners), 1) if owner != before]
        parts = list[Segment]()
        for first, part in zip([0, *cuts], split(segment, cuts), strict=True):
            if owners:
                region = self._regions[owners[first]]
                start, end = (region.time(time, duration) for time in (part.start, part.end))
            else:
                start, end = self._outline(part.start, part.end, duration)
            words = None if part.words is None else tuple(self._moved(word, duration) for word in part.words)
            timed = part.timed_tokens
            timed = None if timed is None else tuple(self._moved(token, duration) for token in timed)
            parts.append(replace(part, start=start, end=end, words=words, timed_tokens=timed))
        return parts

    def moment(self, packed_s: float, duration: float) -> float:
        """The second of the recording that a second of the packed one is."""
        return self._regions[self._owner(packed_s, packed_s)].time(packed_s, duration)

    def _moved(self, item: Timed, duration: float) -> Timed:
        region = self._regions[self._owner(item.start, item.end)]
        return replace(item, start=region.time(item.start, duration), end=region.time(item.end, duration))

    def _outline(self, start: float, end: float, duration: float) -> tuple[float, float]:
        """From the first region that the span touches to the last one."""
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end) - 1
        if first > last:  # it lies in a gap
            first = last = self._owner(start, end)
        return self._regions[first].time(start, duration), self._regions[last].time(end, duration)

    def _owner(self, start: float, end: float) -> int:
        """The region that has most of the span; for a span in a gap, the nearest."""
        before = max(0, bisect.bisect_right(self._starts, start) - 1)
        after = min(len(self._regions) - 1, max(before, bisect.bisect_left(self._starts, end)))

        def closeness(place: int) -> tuple[float, int]:
            return min(end, self._ends[place]) - max(start, self._starts[place]), -place

        return max(range(before, after + 1), key=closeness)


__all__ = ["PackedSource"]
