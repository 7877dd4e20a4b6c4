"""Slot times put in order: what the aligner says of each slot by itself may run backwards.

Follows qwen-asr 0.0.6, inference/qwen3_forced_aligner.py, `fix_timestamp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def repair(times: Sequence[int]) -> list[int]:
    """Milliseconds, none before its predecessor.

    The longest row of times that never falls is believed. One or two others in a row take the nearest
    believed time (the left one on a tie), more of them are spread evenly between the two.
    """
    believed = _longest_rising(times)
    result = list(times)
    for before, after in zip([None, *believed], [*believed, None], strict=True):
        first = 0 if before is None else before + 1
        last = len(times) if after is None else after  # doubted: first .. last - 1
        left = None if before is None else times[before]
        right = None if after is None else times[after]
        for k in range(first, last):
            result[k] = _between(left, right, k - first + 1, last - first + 1)
    return result


def _between(left: int | None, right: int | None, step: int, steps: int) -> int:
    """The time `step` places behind `left` and `steps - step` before `right`; one of them may be missing."""
    if left is None or right is None:
        missing = right if left is None else left
        return 0 if missing is None else missing
    if steps <= 3:
        return left if step <= steps - step else right
    return int(left + (right - left) / steps * step)


def _longest_rising(times: Sequence[int]) -> list[int]:
    """Places of the longest row that never falls; among equals the one that ends, and goes on, first."""
    if not times:
        return []
    values = np.asarray(times)
    length = np.ones(len(values), np.int64)
    parent = np.full(len(values), -1)
    for i in range(1, len(values)):
        rows = np.where(values[:i] <= values[i], length[:i], 0)
        longest = int(rows.max())
        if longest:
            length[i], parent[i] = longest + 1, int(np.argmax(rows))
    places, at = list[int](), int(np.argmax(length))
    while at >= 0:
        places.append(at)
        at = int(parent[at])
    return places[::-1]


__all__ = ["repair"]
