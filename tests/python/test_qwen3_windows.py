"""Qwen3-ASR's windows: cut as the official code cuts, and their time shared out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.families.qwen3_windows import LONGEST_BATCH_S, SpeechClock, batches, halves, windows
from rustasr.longform import Window, spans_of

RATE = 16000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Multiples of 1/32768, as from a 16-bit file, so that sums are exact."""
    samples = np.random.default_rng(seed).integers(-20000, 20000, round(seconds * RATE))
    return (samples / 32768).astype(np.float32)


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def official(samples: np.ndarray, length: int, search: int) -> list[int]:
    """Lengths of the pieces by the rule of qwen-asr's `split_audio_into_chunks`, on the whole signal."""
    start, lengths = 0, []
    while len(samples) - start > length:
        left = max(start, start + length - search)
        right = min(len(samples), start + length + search)
        sums = np.convolve(np.abs(samples[left:right]).astype(np.float64), np.ones(1600), mode="valid")
        first = left + int(np.argmin(sums))
        cut = first + int(np.argmin(np.abs(samples[first : first + 1600])))
        lengths.append(cut - start)
        start = cut
    return [*lengths, len(samples) - start]


@settings(max_examples=12, deadline=None)
@given(
    quiet=st.lists(st.integers(0, 60 * 10), max_size=8),
    n=st.integers(1, 60 * 20),
    block=st.integers(4000, 12 * RATE),
)
def test_windows_are_the_official_pieces(quiet: list[int], n: int, block: int) -> None:
    samples = noise(n / 20)
    for at in quiet:
        samples[at * 1600 : at * 1600 + 2400] *= 0.25
    found = list(windows(blocks(samples, block), 20.0, [(0, None)]))
    assert [len(w.samples) for w in found] == official(samples, 20 * RATE, 5 * RATE)
    assert np.array_equal(np.concatenate([w.samples for w in found]), samples)
    assert all(a.start + len(a.samples) == b.start for a, b in pairwise(found))


def test_a_cut_lies_in_the_pause_nearest_to_silence() -> None:
    samples = noise(50)
    samples[27 * RATE : 27 * RATE + 3200] *= 0.1
    samples[32 * RATE : 32 * RATE + 3200] *= 0.05
    first, second = windows([samples], 30.0, [(0, None)])
    assert 32.0 <= second.offset <= 32.2 and first.duration == second.offset
    assert abs(samples[second.start]) == np.abs(samples[second.start - 10 : second.start + 10]).min()


def test_a_recording_that_fits_is_one_window() -> None:
    samples = noise(20)
    (only,) = windows(blocks(samples, 1000), 20.0, [(0, None)])
    assert np.array_equal(only.samples, samples)
    assert list(windows([], 20.0, [(0, None)])) == []


def test_short_windows_stay_near_their_length() -> None:
    found = list(windows([noise(30)], 2.0, [(0, None)]))
    assert all(1.5 <= w.duration <= 2.5 for w in found[:-1])


def test_only_the_spans_are_read() -> None:
    samples = noise(30)
    spans = spans_of((1.0, 3.0, 10.0, 18.0, 29.5))
    found = list(windows(blocks(samples, 7777), 5.0, spans))
    kept = np.concatenate([w.samples for w in found])
    assert np.array_equal(
        kept,
        np.concatenate([samples[a * RATE // 2 : b * RATE // 2] for a, b in ((2, 6), (20, 36), (59, 60))]),
    )
    assert found[0].offset == 1.0 and found[-1].offset == 29.5


@pytest.mark.parametrize(
    ("seconds", "most", "sizes"),
    [
        ([60] * 9, 4, [4, 4, 1]),
        ([60] * 15, 64, [10, 5]),
        ([1200, 1, 1], 4, [1, 2]),
        ([599, 1, 1], 4, [2, 1]),
        ([], 4, []),
    ],
)
def test_batches_hold_ten_minutes_at_most(seconds: list[int], most: int, sizes: list[int]) -> None:
    found = [Window(i, np.zeros(16000 * n, np.float32)) for i, n in enumerate(seconds)]
    made = list(batches(found, most))
    assert [len(batch) for batch in made] == sizes
    assert [window for batch in made for window in batch] == found
    assert all(len(b) == 1 or sum(w.duration for w in b) <= LONGEST_BATCH_S for b in made)


def test_a_full_batch_does_not_wait_for_the_next_window() -> None:
    read = []

    def windows_read() -> Iterator[Window]:
        for i in range(3):
            read.append(i)
            yield Window(i, np.zeros(16000, np.float32))

    assert len(next(batches(windows_read(), 2))) == 2
    assert read == [0, 1]


def test_halves_are_the_window() -> None:
    samples = noise(12)
    samples[7 * RATE : 7 * RATE + 3200] = 0
    first, second = halves(Window(160, samples))
    assert np.array_equal(np.concatenate([first.samples, second.samples]), samples)
    assert (first.start, second.start) == (160, 160 + len(first.samples))
    assert 7.0 <= first.duration <= 7.2


# --- when it was said


def spoken(seconds: float, *loud: tuple[float, float]) -> Window:
    """Faint noise with loud stretches."""
    samples = noise(seconds) * np.float32(0.01)
    for start, end in loud:
        samples[round(start * RATE) : round(end * RATE)] *= 80
    return Window(10 * RATE, samples)


def test_text_is_where_it_is_loud() -> None:
    clock = SpeechClock(spoken(30, (2, 4), (20, 26)))
    assert clock.span(0, 1) == pytest.approx((12, 36))
    assert clock.span(0, 0.25) == pytest.approx((12, 14))
    assert clock.span(0.25, 1) == pytest.approx((30, 36))
    assert clock.span(0.5, 0.625) == pytest.approx((32, 33))


@given(
    n=st.integers(1, 60_000),
    marks=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_times_rise_and_stay_inside(n: int, marks: list[float], seed: int) -> None:
    clock = SpeechClock(Window(0, noise(n / RATE, seed)))
    fractions = [0.0, *sorted(marks), 1.0]
    spans = [clock.span(a, b) for a, b in pairwise(fractions)]
    times = [time for span in spans for time in span]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= n / RATE + 1e-9


def test_a_silent_window_is_shared_out_whole() -> None:
    clock = SpeechClock(Window(0, np.zeros(2 * RATE, np.float32)))
    assert clock.span(0, 1) == (0, 2)
