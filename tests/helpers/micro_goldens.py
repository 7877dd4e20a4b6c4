"""What the small trained GigaAM and Parakeet checkpoints give, computed with the publishers' own code."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Our name of a stage → the golden's. The checkpoints have four blocks.
STAGES = {
    "subsampling": "subsampling",
    "blocks.0": "block_first",
    "blocks.2": "block_middle",
    "blocks.3": "block_last",
    "output": "encoder",
}


def tensors(folder: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """Clip → stage → values [T, d] (features: [n_mels, T])."""
    clips: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    with np.load(folder / "tensors.npz") as archive:
        for name in archive.files:
            clip, stage = name.split("/")
            clips[clip][stage] = archive[name]
    return dict(clips)


def samples(folder: Path, clip: str) -> NDArray[np.float32]:
    """The clip's PCM, 16 kHz mono."""
    from rustasr.audio import load_audio

    return np.asarray(load_audio(folder / "dev" / f"{clip}.flac"), np.float32)
