"""A second look at what a transcription left out, or looped over.

::

    result ─► stretches: speech without text, segments that repeat themselves
                │  each heard again by itself: another window, nothing before it, at need silence in front
                ▼
              kept where it is better: text where there was none, or where there was a loop, about which
              there is no doubt. What is no better leaves segments and flags as they are.

The family transcribes; this is which stretches, and what to believe.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from rustasr.aligner.pieces import samples_of
from rustasr.audio import SAMPLE_RATE
from rustasr.repetition import REPETITION, flagged, with_flag
from rustasr.segments import joined
from rustasr.types import Segment, Token, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rustasr.types import TranscriptionResult

Samples = NDArray[np.float32]
Timed = TypeVar("Timed", Word, Token)

HEARD_AGAIN = "heard_again"  # flag of segments that come from a second look
DOUBTS = frozenset({REPETITION, "no_speech", "low_confidence", "truncated"})
MARGIN_S = 0.2  # of sound around a stretch: a gap begins half a second from the nearest word
LEADS_S = (0.0, 1.0)  # silence in front of it, one attempt each: the same sound falls into other frames
LONGEST_S = 300.0  # of a stretch: its samples are held in memory


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds to hear again, in place of segments [first, last) (none of them for a gap)."""

    start: float
    end: float
    first: int = 0
    last: int = 0

    @property
    def is_gap(self) -> bool:
        """Whether nothing was heard here."""
        return self.first == self.last


def stretches(result: TranscriptionResult, *, loops: bool = True) -> list[Stretch]:
    """What deserves a second look, by start: gaps and, unless the family saw to them itself, loops."""
    found = list(_loops(result.segments)) if loops else []
    for start, end in result.coverage.gaps if result.coverage else ():
        n = max(1, int(np.ceil((end - start) / LONGEST_S)))
        edges = np.linspace(start, end, n + 1).tolist()
        found += [Stretch(a, b) for a, b in itertools.pairwise(edges)]
    return sorted(found, key=lambda stretch: (stretch.start, stretch.end))


def _loops(segments: Sequence[Segment]) -> Iterable[Stretch]:
    first = 0
    while first < len(segments):
        last = first
        while (
            last < len(segments)
            and REPETITION in segments[last].flags
            and segments[last].end - segments[first].start <= LONGEST_S
        ):
            last += 1
        if last > first:
            yield Stretch(segments[first].start, segments[last - 1].end, first, last)
        first = max(last, first + 1)


def second_look(
    result: TranscriptionResult,
    blocks: Iterable[Samples],
    transcribe: Callable[[Stretch, Samples], TranscriptionResult],
    *,
    loops: bool = True,
) -> TranscriptionResult:
    """The result with what a second look has found; `blocks` are the samples of the whole recording.

    `transcribe` hears samples [n] by themselves; its times count from the first of them.
    """
    wanted = [stretch for stretch in stretches(result, loops=loops) if stretch.end > stretch.start]
    if not wanted:
        return result
    found: list[tuple[Stretch, list[Segment]]] = []
    wide = [_widened(stretch) for stretch in wanted]
    for stretch, around, samples in zip(wanted, wide, samples_of(blocks, wide), strict=True):
        better = _better(stretch, around, samples, transcribe) if len(samples) else []
        if better:
            found.append((stretch, better))
    return _spliced(result, found) if found else result


def _widened(stretch: Stretch) -> Stretch:
    margin = MARGIN_S if stretch.is_gap else 0.0
    return replace(stretch, start=max(0.0, stretch.start - margin), end=stretch.end + margin)


def _better(
    stretch: Stretch,
    around: Stretch,
    samples: Samples,
    transcribe: Callable[[Stretch, Samples], TranscriptionResult],
) -> list[Segment]:
    """The segments of the first attempt that nothing speaks against; none if all are in doubt."""
    for lead_s in LEADS_S:
        lead = np.zeros(round(lead_s * SAMPLE_RATE), np.float32)
        again = transcribe(stretch, np.concatenate([lead, samples]))
        segments = [segment for segment in again.segments if segment.text.strip()]
        if segments and not any(DOUBTS.intersection(segment.flags) for segment in segments):
            return [
                with_flag(_moved(s, around.start - lead_s, stretch.start, stretch.end), HEARD_AGAIN)
                for s in segments
            ]
    return []


def _spliced(
    result: TranscriptionResult, found: Sequence[tuple[Stretch, list[Segment]]]
) -> TranscriptionResult:
    """New segments in place of the old ones, in the order of time."""
    replaced = {n for stretch, _ in found for n in range(stretch.first, stretch.last)}
    kept = [segment for n, segment in enumerate(result.segments) if n not in replaced]
    new = [segment for _, segments in found for segment in segments]
    segments = sorted(
        [*kept, *new], key=lambda segment: segment.start
    )  # stable: equal starts keep their order
    return replace(result, text=joined(segments, result.language), segments=flagged(segments))


def _moved(segment: Segment, by: float, low: float, high: float) -> Segment:
    """The segment `by` seconds later, kept between `low` and `high`."""

    def at(time: float) -> float:
        return round(min(max(time + by, low), high), 6)

    def moved(items: tuple[Timed, ...] | None) -> tuple[Timed, ...] | None:
        return items and tuple(replace(item, start=at(item.start), end=at(item.end)) for item in items)

    return replace(
        segment,
        start=at(segment.start),
        end=at(segment.end),
        words=moved(segment.words),
        timed_tokens=moved(segment.timed_tokens),
    )


__all__ = ["HEARD_AGAIN", "Stretch", "second_look", "stretches"]
