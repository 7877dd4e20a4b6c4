"""An independent NumPy form of token alignment, proven on small cases, as the oracle for the core's.

`token_times` follows openai-whisper timing.py (`find_alignment`) from raw attention scores to seconds.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def median_filter(values: Floats, width: int = 7) -> Floats:
    """Running median over the last axis, reflected at its ends; unchanged if that axis is too short."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def dtw_path(cost: Floats) -> list[tuple[int, int]]:
    """Cheapest monotone path through cost [n, m] from corner to corner, as (row, column) pairs.

    Among equal predecessors: the diagonal only if strictly cheapest, then up if strictly, else left.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((n + 1, m + 1), int)  # 0 diagonal, 1 up, 2 left
    for j in range(1, m + 1):
        for i in range(1, n + 1):
            diagonal, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            if diagonal < up and diagonal < left:
                best, step[i, j] = diagonal, 0
            elif up < diagonal and up < left:
                best, step[i, j] = up, 1
            else:
                best, step[i, j] = left, 2
            total[i, j] = cost[i - 1, j - 1] + best
    step[0, :] = 2
    step[:, 0] = 1
    path, i, j = [], n, m
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        move = step[i, j]
        i, j = i - (move != 2), j - (move != 1)
    return path[::-1]


def token_times(scores: Floats, n_prefix: int, n_frames: int) -> Floats:
    """Seconds at which each text token begins, and the end of the last: [n_text + 1].

    `scores` are the alignment heads' raw attention [heads, n_tokens, n_audio] for the sequence prefix,
    <|notimestamps|>, text, end of text; `n_frames` is the number of mel frames that hold audio.
    """
    scores = scores[:, :, : n_frames // 2]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / weights.std(axis=1, keepdims=True)
    matrix = median_filter(weights).mean(axis=0)[n_prefix:-1]
    path = dtw_path(-matrix)
    starts = [column for k, (row, column) in enumerate(path) if k == 0 or row != path[k - 1][0]]
    return np.array(starts) / 50.0


def cheapest(cost: Floats) -> float:
    """The least cost of any path, by trying all of them."""

    @cache
    def rest(i: int, j: int) -> float:
        if (i, j) == (0, 0):
            return float(cost[0, 0])
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return float(cost[i, j]) + min(rest(*p) for p in before if min(p) >= 0)

    return rest(cost.shape[0] - 1, cost.shape[1] - 1)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_path_is_the_cheapest_and_takes_single_steps(n: int, m: int, seed: int) -> None:
    cost = np.random.default_rng(seed).normal(size=(n, m))
    path = dtw_path(cost)
    assert path[0] == (0, 0)
    assert path[-1] == (n - 1, m - 1)
    steps = {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)}
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert sum(cost[i, j] for i, j in path) == pytest.approx(cheapest(cost))


def test_ties_go_left_then_up() -> None:
    assert dtw_path(np.zeros((2, 3))) == [(0, 0), (1, 0), (1, 1), (1, 2)]


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_median_is_that_of_the_reflected_neighbourhood(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, length))
    found = median_filter(values)
    for t in range(length):
        around = [abs(k) if k < length else 2 * (length - 1) - k for k in range(t - 3, t + 4)]
        wanted = values[0, t] if length <= 3 else np.median([values[0, k] for k in around])
        assert found[0, t] == wanted


def test_tokens_are_found_where_attention_looks() -> None:
    """Every token looks at its own stretch of audio: the stretches' beginnings come out."""
    bounds = [0, 40, 90, 160, 240]  # audio positions of 0.02 s
    n_prefix, n_text = 3, 4
    scores = np.zeros((2, n_prefix + 1 + n_text + 1, 1500))
    # The row of <|notimestamps|> predicts the first text token, and so on; the last text row the end.
    for k in range(n_text):
        scores[:, n_prefix + k, bounds[k] : bounds[k + 1]] = 12.0
    scores[:, n_prefix + n_text, 240:300] = 12.0
    times = token_times(scores, n_prefix, n_frames=600)
    assert times.tolist() == pytest.approx([b / 50 for b in bounds], abs=0.081)
    assert times.size == n_text + 1
