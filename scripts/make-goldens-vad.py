#!/usr/bin/env python3
"""Make tests/data/goldens/vad/silero.json: probabilities and spans of the official Silero VAD 6.2.3.

    python scripts/make-goldens-vad.py SHARED_AUDIO

Needs silero-vad==6.2.3, onnxruntime, torch and soundfile. For real recordings (tests/data/jfk.flac and two of
SHARED_AUDIO) the probabilities of its ONNX model, rounded to six places, and the spans that its own
`get_speech_timestamps_from_probs` makes of them under several options; for recordings without speech and for
signals that the test makes anew, the probabilities; for random tracks, also made anew, the spans.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests/data/goldens/vad/silero.json"
sys.path.insert(0, str(ROOT / "tests/python"))

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_speech_duration_s": 3},
    {"max_speech_duration_s": 5, "min_silence_duration_ms": 2000},
    {
        "max_speech_duration_s": 5,
        "min_silence_duration_ms": 2000,
        "use_max_poss_sil_at_max_speech": False,
    },
    {"max_speech_duration_s": 2, "min_silence_duration_ms": 300},
    {"min_speech_duration_ms": 0, "min_silence_duration_ms": 2000, "speech_pad_ms": 400},
    {"threshold": 0.9, "neg_threshold": 0.3, "speech_pad_ms": 37},
]
N_RANDOM = 120


NONSPEECH = ("gen_silence", "gen_white", "sb_noise3", "sb_noise4", "tc_noise", "music_introzik")


def probabilities(samples: NDArray[np.float32]) -> list[float]:
    """The official network's answer, frame by frame."""
    import silero_vad
    import torch

    model = silero_vad.load_silero_vad(onnx=True)
    padded = np.pad(samples, (0, -len(samples) % 512))
    values = [model(torch.from_numpy(frame), 16000).item() for frame in padded.reshape(-1, 512)]
    return [round(value, 6) for value in values]


def read(path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000 and samples.ndim == 1, path
    return samples


def spans(track: list[float], n_samples: int, **options: Any) -> list[list[int]]:
    """The official function's spans."""
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    found = get_speech_timestamps_from_probs(track, audio_length_samples=n_samples, **options)
    return [[span["start"], span["end"]] for span in found]


def random_options(draw: random.Random) -> dict[str, Any]:
    threshold = draw.choice([0.5, 0.3, 0.7, 0.2])
    return {
        "sampling_rate": draw.choice([16000, 16000, 8000]),
        "threshold": threshold,
        "neg_threshold": draw.choice([None, None, 0.01, threshold / 2, threshold]),
        "min_speech_duration_ms": draw.choice([0, 100, 250, 1000]),
        "max_speech_duration_s": draw.choice([math.inf, 0.5, 1, 2, 3.3]),
        "min_silence_duration_ms": draw.choice([0, 50, 100, 400, 2000]),
        "speech_pad_ms": draw.choice([0, 30, 37, 200, 400]),
        "min_silence_at_max_speech": draw.choice([98, 0, 40, 200]),
        "use_max_poss_sil_at_max_speech": draw.random() < 0.6,
    }


def main() -> None:
    from vad_tracks import random_track, signals

    shared = Path(sys.argv[1])
    document: dict[str, Any] = {"recordings": {}, "nonspeech": {}, "signals": {}, "random": []}
    for name, path in {
        "jfk": ROOT / "tests/data/jfk.flac",
        "silero_de": shared / "de/silero_de.flac",
        "LDC93S1": shared / "en/LDC93S1.flac",
    }.items():
        samples = read(path)
        track, n_samples = probabilities(samples), len(samples)
        cases = [{"options": options, "spans": spans(track, n_samples, **options)} for options in OPTIONS]
        document["recordings"][name] = {"n_samples": n_samples, "probabilities": track, "cases": cases}
    for name in NONSPEECH:
        document["nonspeech"][name] = probabilities(read(shared / f"nonspeech/{name}.flac"))
    document["signals"] = {name: probabilities(samples) for name, samples in signals().items()}
    draw = random.Random(20261121)
    for seed in range(N_RANDOM):
        options = random_options(draw)
        track, n_samples = random_track(seed, options["sampling_rate"])
        options = {key: "inf" if value == math.inf else value for key, value in options.items()}
        given = {key: math.inf if value == "inf" else value for key, value in options.items()}
        document["random"].append(
            {"seed": seed, "options": options, "spans": spans(track, n_samples, **given)}
        )
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
