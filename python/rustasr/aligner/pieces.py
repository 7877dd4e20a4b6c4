"""Which stretch of a recording goes with which text: segments packed into pieces for the aligner."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rustasr.types import Segment

PIECE_S = 60.0  # of speech that is aligned at once: a slip cannot spread further
MARGIN_S = 0.5  # sound around a piece, for segments whose borders are a little off ...
LEAST_MARGIN_S = 0.2  # ... also where the next segment begins at once

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Piece:
    """Seconds [start, end) of the recording in which segments [first, last) are said, in `language`."""

    start: float
    end: float
    first: int
    last: int
    language: str


def pack(
    segments: Sequence[Segment], duration: float, language: str, longest_s: float = PIECE_S
) -> list[Piece]:
    """Pieces of at most `longest_s`, or one segment if that is longer; cut in the longest pauses.

    A segment's own language goes before `language`; segments of two languages do not share a piece.
    """
    pieces, first = list[Piece](), 0
    while first < len(segments):
        last = _cut(segments, first, longest_s - 2 * MARGIN_S)
        start = _lower_border(segments, first)
        end = _upper_border(segments, last - 1, duration)
        pieces.append(Piece(start, end, first, last, segments[first].language or language))
        first = last
    return pieces


def _cut(segments: Sequence[Segment], first: int, longest_s: float) -> int:
    """Behind which segment the piece that begins with `first` ends."""
    last = first + 1
    while (
        last < len(segments)
        and segments[last].end - segments[first].start <= longest_s
        and segments[last].language == segments[first].language
    ):
        last += 1
    if last == len(segments) or segments[last].language != segments[first].language:
        return last
    # In the second half of the piece, so that pieces do not get short.
    middle = segments[first].start + longest_s / 2
    late = [n for n in range(first + 1, last + 1) if segments[n].start >= middle] or [last]
    return max(late, key=lambda n: segments[n].start - segments[n - 1].end)


def _lower_border(segments: Sequence[Segment], n: int) -> float:
    pause = segments[n].start - (segments[n - 1].end if n else 0.0)
    return max(0.0, segments[n].start - min(MARGIN_S, max(LEAST_MARGIN_S, pause / 2)))


def _upper_border(segments: Sequence[Segment], n: int, duration: float) -> float:
    pause = (segments[n + 1].start if n + 1 < len(segments) else duration) - segments[n].end
    return min(duration, segments[n].end + min(MARGIN_S, max(LEAST_MARGIN_S, pause / 2)))


class Spanned(Protocol):
    """Seconds of a recording."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


def samples_of(blocks: Iterable[Samples], pieces: Sequence[Spanned]) -> Iterator[Samples]:
    """The samples of each piece. Pieces rise, and may overlap a little; no more than they need is held."""
    held: deque[tuple[int, Samples]] = deque()
    stream, position = iter(blocks), 0
    for piece in pieces:
        first, last = round(piece.start * SAMPLE_RATE), round(piece.end * SAMPLE_RATE)
        while held and held[0][0] + len(held[0][1]) <= first:
            held.popleft()
        while position < last and (block := next(stream, None)) is not None:
            if position + len(block) > first:
                held.append((position, block))
            position += len(block)
        parts = [block[max(0, first - at) : max(0, last - at)] for at, block in held]
        yield np.concatenate([np.empty(0, np.float32), *parts])


__all__ = ["PIECE_S", "Piece", "pack", "samples_of"]
