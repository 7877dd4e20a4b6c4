"""Random tracks of speech probabilities, the same on every machine; scripts/make-goldens-vad.py uses it."""

from __future__ import annotations

import random


def random_track(seed: int, sample_rate: int) -> tuple[list[float], int]:
    """Probabilities that wander and jump, a frame each, and the number of samples they stand for."""
    draw = random.Random(seed)
    window = 512 if sample_rate == 16000 else 256
    n_frames = draw.randint(1, 400)
    level, track = draw.random(), list[float]()
    for _ in range(n_frames):
        if draw.random() < draw.choice([0.02, 0.2]):
            level = draw.random()
        track.append(min(1.0, max(0.0, level + draw.uniform(-0.1, 0.1))))
    return track, n_frames * window - draw.randint(0, window - 1)
