"""The small trained Qwen3-ASR and aligner with what the official code says on them, and how to ask ours."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ASR, ALIGNER = "qwen3-asr-micro", "forced-aligner-micro"
MIN_SAMPLES = 8000
N_LAYER = {"audio": 3, "text": 4}


@cache
def goldens(folder: Path) -> dict[str, Any]:
    """goldens.json of a checkpoint's folder."""
    data: dict[str, Any] = json.loads((folder / "goldens.json").read_text(encoding="utf-8"))
    return data


@cache
def tensors(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "tensors.npz") as arrays:
        return dict(arrays)


def item(folder: Path, name: str, variant: str | None = "plain") -> dict[str, Any]:
    return next(i for i in goldens(folder)["items"] if i["id"] == name and i.get("variant") == variant)


def samples(folder: Path, golden: dict[str, Any]) -> np.ndarray:
    """The sound of a golden: a file, or files joined with silence; short ones padded as the official code
    does."""
    parts = [golden["audio"]] if golden["audio"] else golden["parts"]
    gap = np.zeros(golden.get("gap_samples", 0), np.float32)
    pieces: list[np.ndarray] = []
    for part in parts:
        pieces += [gap] if pieces else []
        pieces.append(soundfile.read(folder / part, dtype="float32")[0])
    joined = np.concatenate(pieces)
    return np.pad(joined, (0, max(0, MIN_SAMPLES - len(joined))))


def features(session: Any, pcm: np.ndarray) -> np.ndarray:
    """Normalised log mel [T, 128] of a clip."""
    import rustasr

    raw = session.features(np.ascontiguousarray(pcm, np.float32))
    return np.asarray(rustasr._core.normalize_log_mel(raw, float(raw.max())))


def log_probs(logits: np.ndarray) -> np.ndarray:
    """Log-softmax of the rows, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def forced_log_probs(
    session: Any, encoded: Any, window: int, prompt: list[int], said: list[int]
) -> np.ndarray:
    """The log-probability of each token of `said` after the prompt and those before it, in one pass."""
    logits = session.decode_taps(encoded, window, [*prompt, *said], ["logits"])["logits"]
    return log_probs(logits)[np.arange(len(prompt) - 1, len(prompt) + len(said) - 1), said]
