"""From the vectors of windows to speakers: which windows are one voice, and how many voices there are.

::

    vectors [n, d] of windows ─► average-linkage clusters, cut at the encoder's distance (or at a number)
                              ─► clusters with too little speech dissolved into their nearest
                              ─► centroids and members fitted to each other
                              ─► centroids that are too alike merged, and clamped to what was asked
                              ─► centroids [k, d]

Windows come sorted, sums run in that order and in double precision, and ties fall to the smaller index: the
same recording gives the same speakers, in whatever order its windows were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import OptionError

if TYPE_CHECKING:
    from rustasr.diarization.encoder import Embedded, SpeakerEncoder

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]

SHORTEST_BUILDER = 6_400  # samples, 0.4 s: a shorter window says too little to build a cluster
SMALLEST_CLUSTER = 32_000  # samples of windows, 2 s
FITTING_ROUNDS = 10
MOST_WINDOWS = 5_000  # whose distances are compared, about an hour of speech: 100 MB
ANY = -2.0  # below every cosine
ALIKE = 0.8  # cosine of neighbouring windows that may stand for each other when there are too many


@dataclass(frozen=True, slots=True)
class SpeakerCount:
    """How many speakers there are: `exactly`, or between `least` and `most`; None is not known."""

    exactly: int | None = None
    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("exactly", self.exactly), ("least", self.least), ("most", self.most)):
            if value is not None and (isinstance(value, bool) or not 1 <= value <= 100):
                raise OptionError(f"number of speakers ({name}): expected 1 to 100, found {value!r}")
        if self.exactly is not None and (self.least is not None or self.most is not None):
            raise OptionError("number of speakers: give it exactly, or its limits, not both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise OptionError(
                f"number of speakers: expected a least number of at most {self.most}, found {self.least}"
            )


def centroids(embedded: Embedded, encoder: SpeakerEncoder, count: SpeakerCount) -> Matrix:
    """The mean vectors [k, d] of the speakers, of length 1; k is 0 when there is no window."""
    lengths = np.array([window.length for window in embedded.windows])
    vectors, weights = embedded.vectors, lengths.astype(np.float64)
    if not len(vectors):
        return vectors[:0]
    is_builder = lengths >= SHORTEST_BUILDER
    if is_builder.any():
        vectors, weights = vectors[is_builder], weights[is_builder]
        vectors, weights = _thinned(vectors, weights, np.array(embedded.segments)[is_builder])
    tree = _Tree(vectors)
    if count.exactly is not None:
        return _means(vectors, weights, _exactly(tree, weights, count.exactly))
    labels = _large(vectors, weights, tree.at_distance(encoder.cut_distance))
    labels = _merged(vectors, weights, _fitted(vectors, weights, labels), encoder.merge_cosine)
    n_speakers = int(labels.max()) + 1
    if count.most is not None and n_speakers > count.most:
        labels = _merged(vectors, weights, labels, ANY, count.most)
    if count.least is not None and n_speakers < count.least:
        labels = _exactly(tree, weights, count.least)
    return _means(vectors, weights, labels)


def _exactly(tree: _Tree, weights: Matrix, wanted: int) -> Labels:
    """Labels of `wanted` speakers, or of as many as there are vectors.

    A window that is unlike all others would be a cluster of its own: the tree is cut finer until enough
    clusters have enough speech, and the most alike of what is too many are merged.
    """
    vectors, wanted = tree.vectors, min(wanted, len(tree.vectors))
    for k in range(wanted, len(vectors) + 1):
        labels = tree.in_clusters(k)
        if np.count_nonzero(np.bincount(labels, weights) >= SMALLEST_CLUSTER) >= wanted:
            labels = _fitted(vectors, weights, _large(vectors, weights, labels))
            return _merged(vectors, weights, labels, ANY, wanted)
    return tree.in_clusters(wanted)


class _Tree:
    """Average linkage (UPGMA) of vectors by the distance 1 - cosine."""

    def __init__(self, vectors: Matrix) -> None:
        self.vectors = vectors
        self._merges: Matrix = np.zeros((0, 4))
        if len(vectors) > 1:
            self._merges = _linkage(vectors)

    def at_distance(self, distance: float) -> Labels:
        """Labels [n] of the clusters whose mean distances are all greater than `distance`."""
        return self._labels(int(np.count_nonzero(self._merges[:, 2] <= distance)))

    def in_clusters(self, k: int) -> Labels:
        """Labels [n] of `k` clusters."""
        return self._labels(len(self.vectors) - k)

    def _labels(self, n_merges: int) -> Labels:
        """Labels after the first merges, numbered by the first member."""
        n = len(self.vectors)
        parent = np.arange(n + n_merges)
        parent[self._merges[:n_merges, :2].astype(int)] = n + np.arange(n_merges)[:, None]
        roots = np.arange(n)
        while (parent[roots] != roots).any():
            roots = parent[roots]
        return _numbered(roots)


def _linkage(vectors: Matrix) -> Matrix:
    try:
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import pdist
    except ImportError as error:
        raise OptionError(
            f"telling speakers apart by voice needs scipy, which cannot be imported ({error}); "
            'pip install "rustasr[diarize]"'
        ) from error
    # Of vectors of length 1: |a - b|² / 2 = 1 - cosine.
    merges: Matrix = linkage(pdist(vectors, "sqeuclidean") / 2, method="average")
    return merges


def _thinned(vectors: Matrix, weights: Matrix, segments: Labels) -> tuple[Matrix, Matrix]:
    """At most MOST_WINDOWS vectors: neighbours of a segment that are alike stand together, and of what is
    still too many every n-th one is taken.
    """
    if len(vectors) <= MOST_WINDOWS:
        return vectors, weights
    alike = np.einsum("ij,ij->i", vectors[1:], vectors[:-1]) >= ALIKE
    groups = np.concatenate([[0], np.cumsum(~alike | (segments[1:] != segments[:-1]))])
    sums = np.zeros((int(groups[-1]) + 1, vectors.shape[1]))
    np.add.at(sums, groups, vectors * weights[:, None])
    sizes = np.bincount(groups, weights)
    taken = np.linspace(0, len(sums) - 1, min(len(sums), MOST_WINDOWS)).astype(int)
    return _unit(sums[taken]), sizes[taken]


def _large(vectors: Matrix, weights: Matrix, labels: Labels) -> Labels:
    """Labels after the clusters with too little speech have joined their nearest; none has enough: one
    cluster is left.
    """
    sizes = np.bincount(labels, weights)
    kept = np.flatnonzero(sizes >= SMALLEST_CLUSTER)
    if not len(kept):
        kept = np.array([int(np.argmax(sizes))])
    nearest = kept[_nearest(vectors, _means(vectors, weights, labels)[kept])]
    return _numbered(np.where(np.isin(labels, kept), labels, nearest))


def _fitted(vectors: Matrix, weights: Matrix, labels: Labels) -> Labels:
    """Labels fitted: each vector goes to its nearest centroid, each centroid to the middle of its vectors,
    as long as no cluster runs empty.
    """
    for _ in range(FITTING_ROUNDS):
        nearest = _nearest(vectors, _means(vectors, weights, labels))
        if (nearest == labels).all() or len(np.unique(nearest)) <= labels.max():
            break
        labels = nearest
    return labels


def _merged(vectors: Matrix, weights: Matrix, labels: Labels, alike: float, most: int = 1) -> Labels:
    """Labels after the two clusters with the closest centroids have become one, again and again, while there
    are more than `most` and the cosine is at least `alike`.
    """
    while labels.max() >= most:
        means = _means(vectors, weights, labels)
        cosines = means @ means.T
        cosines[np.tril_indices(len(means))] = -np.inf
        i, j = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
        if cosines[i, j] < alike:
            break
        labels = _numbered(np.where(labels == j, i, labels))
    return labels


def _nearest(vectors: Matrix, means: Matrix) -> Labels:
    nearest: Labels = np.argmax(vectors @ means.T, axis=1)
    return nearest


def _numbered(labels: Labels) -> Labels:
    """The same groups, numbered 0, 1, ... by their first member."""
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank: Labels = np.argsort(np.argsort(firsts))[inverse]
    return rank


def _means(vectors: Matrix, weights: Matrix, labels: Labels) -> Matrix:
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]))
    np.add.at(sums, labels, vectors * weights[:, None])
    return _unit(sums)


def _unit(rows: Matrix) -> Matrix:
    unit: Matrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


__all__ = ["SpeakerCount", "centroids"]
