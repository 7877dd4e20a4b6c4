"""What the goldens of the segmentation network are made of, for the script that makes them and the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

Array = np.ndarray[Any, Any]
JFK = Path(__file__).parent.parent / "data/jfk.flac"
WINDOW = 160_000  # samples


def windows() -> dict[str, Array]:
    """Windows of 10 s: the beginning of the recording, its last second before silence, and the recording with
    itself a second later.
    """
    samples, _ = soundfile.read(JFK, dtype="float32")
    end = np.zeros(WINDOW, np.float32)
    end[: len(samples) - WINDOW] = samples[WINDOW:]
    return {
        "beginning": samples[:WINDOW],
        "end": end,
        "mixed": samples[:WINDOW] + samples[16_000 : 16_000 + WINDOW],
    }


def stage(values: Array) -> Array:
    """Some frames and channels of [frames, channels]."""
    return values[:: len(values) // 30, :: max(1, values.shape[1] // 12)]
