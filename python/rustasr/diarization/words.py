"""Whose words: a transcription's words and segments go to the speakers of the turns.

A word is whose turn it overlaps most; between turns, the nearest one's; of two whose turns cover it alike,
who spoke before. Where two voices speak at once, words are the likelier one's (`Diarization.leading`). A
segment in which the speaker changes is split there. Segments whose words have no times go whole to the
speaker of most of their time.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from rustasr.segments import split
from rustasr.types import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rustasr.types import TranscriptionResult, Turn

NEAREST_S = 1.0  # a word farther from every turn is nobody's


def with_speakers(result: TranscriptionResult, turns: Iterable[Turn]) -> TranscriptionResult:
    """The result with the speaker of every segment, split where the speaker changes, and the turns."""
    ordered = tuple(sorted(turns))
    found = _Turns(ordered)
    segments = list[Segment]()
    before: str | None = None
    for segment in result.segments:
        for part in _by_speaker(segment, found, before):
            segments.append(part)
            before = part.speaker
    return replace(result, segments=tuple(segments), turns=ordered)


class _Turns:
    """Turns that can be asked who speaks in a span."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._starts = [turn.start for turn in turns]
        self._latest = list(itertools.accumulate((turn.end for turn in turns), max))  # end up to each place

    def speaker(self, start: float, end: float, before: str | None) -> str | None:
        """Who speaks from `start` to `end`; of equals, the one who spoke `before`."""
        overlaps, distances = defaultdict[str, float](float), dict[str, float]()
        first = bisect.bisect_left(self._latest, start - NEAREST_S)
        last = bisect.bisect_right(self._starts, end + NEAREST_S)
        for turn in self._turns[first:last]:
            overlaps[turn.speaker] += max(0.0, min(end, turn.end) - max(start, turn.start))
            distance = max(0.0, turn.start - end, start - turn.end)
            distances[turn.speaker] = min(distance, distances.get(turn.speaker, distance))
        near = [name for name, distance in distances.items() if distance <= NEAREST_S]
        ranked = [(round(overlaps[name], 6), -round(distances[name], 6), name) for name in near]
        best = max((rank[:2] for rank in ranked), default=None)
        names = [rank[2] for rank in ranked if rank[:2] == best]
        return before if before in names else next(iter(names), None)


def _by_speaker(segment: Segment, turns: _Turns, before: str | None) -> list[Segment]:
    """The segment, or its parts, each with its speaker."""
    if not segment.words:
        return [replace(segment, speaker=turns.speaker(segment.start, segment.end, before))]
    speakers = list[str | None]()
    for word in segment.words:
        before = turns.speaker(word.start, word.end, before)
        speakers.append(before)
    cuts = [i for i, (a, b) in enumerate(itertools.pairwise(speakers), 1) if a != b]
    parts = split(segment, cuts)
    return [replace(part, speaker=speakers[i]) for part, i in zip(parts, [0, *cuts], strict=True)]


def interleaved(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Segments of several speakers in the order in which they begin. Where one speaker falls into the words
    of another, the other's segment is split, so that a reader sees who spoke when.
    """
    ordered = sorted(segments, key=lambda segment: (segment.start, segment.end))
    parts = list[Segment]()
    for i, segment in enumerate(ordered):
        starts = list[float]()
        for other in ordered[i + 1 :]:
            if other.start >= segment.end:
                break
            if other.speaker != segment.speaker:
                starts.append(other.start)
        words = segment.words or ()
        cuts = {bisect.bisect_left([word.start for word in words], start) for start in starts}
        parts += split(segment, sorted(cut for cut in cuts if 0 < cut < len(words)))
    yield from sorted(parts, key=lambda part: (part.start, part.end))


__all__ = ["interleaved", "with_speakers"]
