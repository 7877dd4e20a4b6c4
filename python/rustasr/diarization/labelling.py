"""From speakers' centroids to turns: every 10 ms of speech gets its speaker.

::

    cosine of window and centroid ─► per frame: mean over the windows that cover it, the nearest most
                                  ─► the best path of speakers, a change costs SWITCH_COST
                                  ─► turns, the shortest given to their neighbour
                                  ─► where two speak: the nearest of the other centroids too
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE
from rustasr.vad import Span, touching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rustasr.diarization.encoder import Embedded

Matrix = NDArray[np.float64]

FRAME = SAMPLE_RATE // 100  # 10 ms
SWITCH_COST = 4.0  # in sums of cosines over frames
SHORTEST_TURN = 25  # frames, 0.25 s


class Labelled(NamedTuple):
    """Who speaks in which samples, each (span, index of the centroid) in order: the likeliest speaker of all
    speech, and who else speaks where two do.
    """

    leading: list[tuple[Span, int]]
    second: list[tuple[Span, int]]


def label(
    embedded: Embedded, centroids: Matrix, segments: Sequence[Span], overlaps: Sequence[Span] = ()
) -> Labelled:
    """Who speaks in `segments`. In `overlaps` (rising, apart) two do: the second likeliest speaker of each
    frame is added there.
    """
    cosines = embedded.vectors @ centroids.T
    of_segment: list[list[int]] = [[] for _ in segments]
    for window, owner in enumerate(embedded.segments):
        of_segment[owner].append(window)
    found = Labelled([], [])
    for segment, places in zip(segments, of_segment, strict=True):
        scores = _frame_scores(segment, [embedded.windows[i] for i in places], cosines[places])
        path = _without_short_runs(_best_path(scores))
        found.leading.extend((_samples(segment, run), speaker) for run, speaker in _runs(path))
        found.second.extend(_second_speakers(segment, scores, path, overlaps))
    return found


def _frame_scores(segment: Span, windows: Sequence[Span], cosines: Matrix) -> Matrix:
    """Cosines [frames, speakers] of a segment, its windows weighted by a triangle around their middles."""
    n_frames = -(-segment.length // FRAME)
    centres = segment.start + (np.arange(n_frames) + 0.5) * FRAME
    sums, weights = np.zeros((n_frames, cosines.shape[1])), np.zeros((n_frames, 1))
    for window, row in zip(windows, cosines, strict=True):
        first, last = (window.start - segment.start) // FRAME, -(-(window.end - segment.start) // FRAME)
        distance = np.abs(centres[first:last] - (window.start + window.end) / 2) / (window.length / 2)
        weight = np.maximum(1.0 - distance, 1e-3)[:, None]  # not 0 where a window alone covers a frame
        sums[first:last] += weight * row
        weights[first:last] += weight
    mean: Matrix = sums / weights
    return mean


def _best_path(scores: Matrix) -> NDArray[np.int64]:
    """The speaker of each frame: the path whose scores, less the cost of changes, sum to most (Viterbi)."""
    best: NDArray[np.int64] = np.argmax(scores, axis=1)
    if (best == best[0]).all():
        return best
    n_frames, n_speakers = scores.shape
    origins = np.empty((n_frames, n_speakers), np.int64)
    stay, total = np.arange(n_speakers), scores[0].copy()
    for t in range(1, n_frames):
        leader = int(np.argmax(total))
        change = total[leader] - SWITCH_COST
        origins[t] = np.where(total >= change, stay, leader)
        total = np.maximum(total, change) + scores[t]
    path = np.empty(n_frames, np.int64)
    path[-1] = int(np.argmax(total))
    for t in range(n_frames - 1, 0, -1):
        path[t - 1] = origins[t, path[t]]
    return path


def _runs(path: NDArray[np.int64]) -> Iterator[tuple[Span, int]]:
    """Spans of frames with one value each."""
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    for first, last in itertools.pairwise(borders):
        yield Span(first, last), int(path[first])


def _without_short_runs(path: NDArray[np.int64]) -> NDArray[np.int64]:
    """The path after its shortest run, as long as that is too short, has gone to its longer neighbour."""
    path = path.copy()
    while len(runs := list(_runs(path))) > 1:
        i = min(range(len(runs)), key=lambda place: (runs[place][0].length, place))
        run = runs[i][0]
        if run.length >= SHORTEST_TURN:
            break
        neighbours = [runs[j] for j in (i - 1, i + 1) if 0 <= j < len(runs)]
        path[run.start : run.end] = max(neighbours, key=lambda neighbour: neighbour[0].length)[1]
    return path


def _second_speakers(
    segment: Span, scores: Matrix, path: NDArray[np.int64], overlaps: Sequence[Span]
) -> Iterator[tuple[Span, int]]:
    if scores.shape[1] < 2:
        return
    others = scores.copy()
    others[np.arange(len(path)), path] = -np.inf
    second = np.argmax(others, axis=1)
    for overlap in touching(overlaps, segment.start, segment.end):
        first = max(0, (overlap.start - segment.start) // FRAME)
        last = min(len(path), -(-(overlap.end - segment.start) // FRAME))
        if first < last:
            for run, speaker in _runs(second[first:last]):
                yield _samples(segment, Span(first + run.start, first + run.end)), speaker


def _samples(segment: Span, frames: Span) -> Span:
    return Span(segment.start + frames.start * FRAME, min(segment.end, segment.start + frames.end * FRAME))


__all__ = ["Labelled", "label"]
