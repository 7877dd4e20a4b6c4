"""Windows: nothing is dropped, nothing is read twice, cuts lie where it is quiet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.longform import SHORTEST_REST_S, Window, batches_by_length, quietest, spans_of, windows

RATE = 16000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 7))
def test_batches_hold_every_window_once_and_like_lengths(lengths: list[int], size: int) -> None:
    found = batches_by_length([Window(0, np.zeros(n, np.float32)) for n in lengths], size)
    assert sorted(n for batch in found for n in batch) == list(range(len(lengths)))
    assert all(batch == sorted(batch) for batch in found)
    assert all(len(batch) == size for batch in found[:-1])
    sizes = [[lengths[n] for n in batch] for batch in found]
    assert all(min(a) >= max(b) for a, b in pairwise(sizes))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 90 * 100),
    longest=st.floats(1.0, 30.0),
    block=st.integers(200, 12 * RATE),
    seed=st.integers(0, 5),
)
def test_windows_are_the_recording_in_order(n: int, longest: float, block: int, seed: int) -> None:
    samples = noise(n / 100, seed)
    found = list(windows(blocks(samples, block), longest, longest / 2, [(0, None)]))
    assert np.array_equal(np.concatenate([w.samples for w in found]), samples)
    assert all(a.start + len(a.samples) == b.start for a, b in pairwise(found))
    assert all(len(w.samples) <= round(longest * RATE) for w in found)
    if len(samples) <= longest * RATE:
        assert len(found) == 1


def test_a_cut_lies_in_the_pause() -> None:
    samples = noise(60)
    samples[int(24.0 * RATE) : int(24.6 * RATE)] *= 0.001
    first, *_ = windows(blocks(samples, RATE), 30, 15, [(0, None)])
    assert 24.1 <= first.duration <= 24.5


def test_the_last_window_is_not_a_splinter() -> None:
    samples = noise(30.2)
    sizes = [w.duration for w in windows(blocks(samples, RATE), 30, 15, [(0, None)])]
    assert len(sizes) == 2 and min(sizes) >= SHORTEST_REST_S


def test_only_the_wanted_spans_are_read() -> None:
    samples = noise(20)
    found = list(windows(blocks(samples, 3 * RATE), 30, 15, spans_of((1.0, 2.5, 4.0, 12.0, 19.0))))
    assert [(w.offset, w.duration) for w in found] == [(1.0, 1.5), (4.0, 8.0), (19.0, 1.0)]
    for w in found:
        assert np.array_equal(w.samples, samples[w.start : w.start + len(w.samples)])


def test_all_blocks_are_decoded_even_when_the_spans_end_early() -> None:
    seen = []

    def stream():
        for block in blocks(noise(10), RATE):
            seen.append(len(block))
            yield block

    list(windows(stream(), 30, 15, spans_of((0.0, 2.0))))
    assert sum(seen) == 10 * RATE


def test_the_quietest_place_is_the_last_of_equals() -> None:
    assert quietest(np.zeros(10 * RATE, np.float32), 2 * RATE, 8 * RATE) == 8 * RATE
