"""What tells voices apart: the protocol of speaker encoders, and a recording's windows through one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rustasr.vad import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Samples = NDArray[np.float32]
Vectors = NDArray[np.float32]

WINDOW = 24_000  # samples: 1.5 s ...
HOP = 12_000  # ... every 0.75 s (WeSpeaker and 3D-Speaker)
BATCH = 32


class SpeakerEncoder(Protocol):
    """A network whose vectors are alike for one voice and unlike for two.

    What "alike" means differs from network to network, so the encoder says it. `cut_distance`: groups of
    windows whose mean distance (1 - cosine) is greater are different speakers. `merge_cosine`: speakers
    whose mean vectors are at least so alike are one.
    """

    name: str
    cut_distance: float
    merge_cosine: float

    def embed(self, pieces: Sequence[Samples]) -> Vectors:
        """Vectors [n, d] of any length for n pieces of samples at 16 kHz; a short piece is the encoder's to
        fill. A vector does not depend on the other pieces.
        """
        ...


class Embedded(NamedTuple):
    """Windows in order, the segment of each, and their vectors [n, d] of length 1."""

    windows: list[Span]
    segments: list[int]
    vectors: NDArray[np.float64]


def windows_of(segment: Span) -> list[Span]:
    """Windows that cover a segment: 1.5 s every 0.75 s, the last one flush with its end; one for a short
    segment.
    """
    if segment.length <= WINDOW:
        return [segment]
    starts = range(segment.start, segment.end - WINDOW, HOP)
    return [*(Span(start, start + WINDOW) for start in starts), Span(segment.end - WINDOW, segment.end)]


def embed(blocks: Iterable[Samples], segments: Sequence[Span], encoder: SpeakerEncoder) -> Embedded:
    """The windows of `segments` (rising, apart) through the encoder. Samples are held for a batch at a time.

    `blocks` are all samples of the recording, in pieces of any size.
    """
    owners = [(window, i) for i, segment in enumerate(segments) for window in windows_of(segment)]
    owners.sort()
    pieces, vectors = list[Samples](), list[NDArray[np.float64]]()
    for piece in _cut(blocks, [window for window, _ in owners]):
        pieces.append(piece)
        if len(pieces) == BATCH:
            vectors.append(_unit(encoder.embed(pieces)))
            pieces = []
    if pieces:
        vectors.append(_unit(encoder.embed(pieces)))
    rows = np.concatenate(vectors) if vectors else np.zeros((0, 1))
    if len(rows) != len(owners):
        raise ValueError(f"expected {len(owners)} vectors from {encoder.name}, found {len(rows)}")
    return Embedded([window for window, _ in owners], [i for _, i in owners], rows)


def _cut(blocks: Iterable[Samples], windows: Sequence[Span]) -> Iterator[Samples]:
    """The samples of each window; windows rise by start and end."""
    held, first = np.zeros(0, np.float32), 0  # samples from `first` on
    remaining = iter(windows)
    window = next(remaining, None)
    for block in blocks:
        held = np.concatenate([held, block]) if window is not None else held[:0]
        while window is not None and window.end <= first + len(held):
            yield held[window.start - first : window.end - first]
            window = next(remaining, None)
        kept = min(len(held), window.start - first) if window is not None else 0
        if kept > 0:
            held, first = held[kept:], first + kept
    if window is not None:
        raise ValueError(f"expected {window.end} samples or more, found {first + len(held)}")


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1, in double precision so that sums do not depend on their order's rounding."""
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = rows / np.maximum(norms, 1e-12)
    return unit


__all__ = ["HOP", "WINDOW", "Embedded", "SpeakerEncoder", "embed", "windows_of"]
