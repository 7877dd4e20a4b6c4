#!/usr/bin/env python3
"""Silero VAD 6.2 on one core: the compiled core beside the official ONNX models in ONNX Runtime.

    silero.py AUDIO [--seconds 600] [--rounds 5] [--out rows.jsonl]

Needs silero-vad==6.2.3, onnxruntime and torch in this Python. The recording is repeated to `seconds`. Engines
take turns in every round; the figures are the best round (time / length of the audio) with the range of all,
and the largest difference of a probability from the official network's:

    rustasr     all that `load_vad("silero")` does before the rules: samples to probabilities
    official    silero_vad.load_silero_vad(onnx=True), a frame per call, as get_speech_timestamps does it
    sequence    silero_vad_16k_sequence.onnx, the official model for a whole file in one call
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW, CONTEXT = 512, 64
Track = NDArray[np.float32]
Engine = Callable[[Track], Track]


def rustasr_engine() -> Engine:
    from rustasr.vad import SileroNetwork

    network = SileroNetwork.load("silero-vad", "cpu", 1)
    return lambda samples: np.array(list(network([samples])), np.float32)


def official_engine() -> Engine:
    import silero_vad
    import torch

    torch.set_num_threads(1)
    model = silero_vad.load_silero_vad(onnx=True)

    def run(samples: Track) -> Track:
        model.reset_states()
        frames = torch.from_numpy(np.pad(samples, (0, -len(samples) % WINDOW))).split(WINDOW)
        return np.array([model(frame, 16000).item() for frame in frames], np.float32)

    return run


def sequence_engine() -> Engine:
    import onnxruntime
    import silero_vad

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(silero_vad.__file__).parent / "data/silero_vad_16k_sequence.onnx"
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    zeros = np.zeros((1, 1, 128), np.float32)

    def run(samples: Track) -> Track:
        frames = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
        before = np.concatenate([np.zeros((1, CONTEXT), np.float32), frames[:-1, -CONTEXT:]])
        found: Any = session.run(
            ["speech_probs"], {"input": np.hstack([before, frames]), "h": zeros, "c": zeros}
        )[0]
        return np.asarray(found, np.float32).reshape(-1)

    return run


ENGINES = {"rustasr": rustasr_engine, "official": official_engine, "sequence": sequence_engine}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    from rustasr.audio import SAMPLE_RATE, load_audio

    once = load_audio(args.audio)
    samples = np.tile(once, int(args.seconds * SAMPLE_RATE / len(once)) + 1)[
        : int(args.seconds * SAMPLE_RATE)
    ]
    engines = {name: make() for name, make in ENGINES.items()}
    tracks = {name: engine(samples) for name, engine in engines.items()}  # to warm up, and to compare
    factors: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(args.rounds):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine(samples)
            factors[name].append((time.perf_counter() - began) / args.seconds)
    for name, found in factors.items():
        row = {
            "engine": name,
            "rtf": min(found),
            "rtf_worst": max(found),
            "difference": float(np.abs(tracks[name] - tracks["official"]).max()),
        }
        print(f"{name:10}  RTF {row['rtf']:.6f} (to {row['rtf_worst']:.6f}), 1 s of CPU for "
              f"{1 / min(found):.0f} s; difference {row['difference']:.1e}")  # fmt: skip
        if args.out is not None:
            with open(args.out, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
