"""Which speech has text: what a voice activity detector heard against the times of a transcription.

A word's times may be a little off, and the pauses between words belong to the talk: a stretch of speech has
text when it is within SLACK_S of a word (of a segment where words have no times). Longer stretches without
are gaps, and a result says so: nothing is left out silently.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rustasr.types import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rustasr.types import Segment, TranscriptionResult

SLACK_S = 0.5
SHORTEST_GAP_S = 1.0
NAMED_GAPS = 5  # so many are named in the warning; all are in the result

Seconds = tuple[float, float]


def coverage(
    speech: Iterable[Seconds], segments: Iterable[Segment], shortest_gap_s: float = SHORTEST_GAP_S
) -> Coverage:
    """How much of `speech` (start, end in seconds, in any order) the segments' text covers."""
    heard = _union(speech)
    written = _union((start - SLACK_S, end + SLACK_S) for start, end in _written(segments))
    bare = list(_without(heard, written))
    speech_s = sum(end - start for start, end in heard)
    gaps = tuple((start, end) for start, end in bare if end - start >= shortest_gap_s)
    return Coverage(speech_s, max(0.0, speech_s - sum(end - start for start, end in bare)), gaps)


def with_coverage(result: TranscriptionResult, speech: Iterable[Seconds]) -> TranscriptionResult:
    """The result with its coverage, and a warning that names the gaps where there are any."""
    found = coverage(speech, result.segments)
    if not found.gaps:
        return replace(result, coverage=found)
    seconds = sum(end - start for start, end in found.gaps)
    named = ", ".join(f"{start:.1f} to {end:.1f}" for start, end in found.gaps[:NAMED_GAPS])
    more = f" and {len(found.gaps) - NAMED_GAPS} more" if len(found.gaps) > NAMED_GAPS else ""
    warning = f"{seconds:.1f} s of speech have no text: {named} s{more}"
    return replace(result, coverage=found, warnings=(*result.warnings, warning))


def _written(segments: Iterable[Segment]) -> Iterable[Seconds]:
    for segment in segments:
        words = [(word.start, word.end) for word in segment.words or () if word.text.strip()]
        yield from words or ([(segment.start, segment.end)] if segment.text.strip() else [])


def _union(spans: Iterable[Seconds]) -> list[Seconds]:
    """The same seconds as spans that rise and are apart."""
    joined = list[Seconds]()
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _without(spans: Sequence[Seconds], others: Sequence[Seconds]) -> Iterable[Seconds]:
    """What of `spans` lies in none of `others`; both rise and are apart."""
    first = 0
    for start, end in spans:
        while first < len(others) and others[first][1] <= start:
            first += 1
        now, place = start, first
        while place < len(others) and others[place][0] < end:
            if others[place][0] > now:
                yield now, others[place][0]
            now = max(now, others[place][1])
            place += 1
        if now < end:
            yield now, end


__all__ = ["coverage", "with_coverage"]
