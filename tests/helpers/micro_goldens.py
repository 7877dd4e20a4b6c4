"""The small trained GigaAM and Parakeet checkpoints beside what the publishers' code makes of their clips."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

THREADS = int(os.environ.get("RUSTASR_TEST_THREADS", "2"))
# Our name of a stage → the golden's. The checkpoints have four blocks.
STAGES = {
    "subsampling": "subsampling",
    "blocks.0": "block_first",
    "blocks.2": "block_middle",
    "blocks.3": "block_last",
    "output": "encoder",
}


class Checkpoint:
    """A session of a checkpoint in one type, its clips, and its goldens."""

    def __init__(self, folder: Path, gguf: Path) -> None:
        from rustasr import _core

        self.folder = folder
        self.model = _core.Model(str(gguf), "cpu", THREADS)
        self.session = self.model.session()
        # Clip → stage → values [T, d] (features: [n_mels, T]).
        self.tensors: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        with np.load(folder / "tensors.npz") as archive:
            for name in archive.files:
                clip, stage = name.split("/")
                self.tensors[clip][stage] = archive[name]

    def clips(self) -> list[str]:
        """All that lie here, by length of the name: as good as at random."""
        return sorted((path.stem for path in (self.folder / "dev").glob("*.flac")), key=lambda n: (len(n), n))

    def features(self, clip: str) -> NDArray[np.float32]:
        """As the encoder takes them, [T, n_mels]."""
        from rustasr import _core
        from rustasr.audio import load_audio

        raw = self.session.features(np.asarray(load_audio(self.folder / "dev" / f"{clip}.flac"), np.float32))
        per_feature = self.model.metadata["frontend.normalize"] == "per_feature"
        return _core.normalize_per_feature(raw) if per_feature else raw
