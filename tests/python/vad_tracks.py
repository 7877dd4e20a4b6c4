"""Made tracks of speech probabilities and made signals, the same on every machine;
scripts/make-goldens-vad.py uses them."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray


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


def signals() -> dict[str, NDArray[np.float32]]:
    """Samples at 16 kHz that no microphone gives: lengths around a frame's, silence, noise, tones, clips."""
    noise = np.random.RandomState(20261121).standard_normal(16_000)  # a stream that NumPy keeps for ever
    seconds = np.arange(16_000) / 16_000
    made = {
        "one sample": noise[:1],
        "511 samples": noise[:511] * 0.1,
        "512 samples": noise[:512] * 0.1,
        "513 samples": noise[:513] * 0.1,
        "silence": np.zeros(4_000),
        "constant": np.full(4_000, 0.5),
        "faint noise": noise * 1e-5,
        "loud noise": np.clip(noise, -1, 1),
        "swept tone": 0.5 * np.sin(2 * np.pi * (100 + 3_000 * seconds) * seconds),
        "square wave": np.sign(np.sin(2 * np.pi * 150 * seconds)),
        "pulses": np.where(np.arange(16_000) % 110 < 4, 0.9, 0.0),
        "beyond full scale": 30 * np.sin(2 * np.pi * 200 * seconds),
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}
