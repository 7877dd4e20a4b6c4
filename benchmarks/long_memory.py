"""Peak memory and speed over recordings of several lengths: memory must not grow with the recording.

    python benchmarks/long_memory.py MODEL CLIP... --hours 1 --hours 10 [--timestamps word] [--vad webrtc]

The recording is a stream: the clips are read from disk one after the other, in a shuffled order that repeats
itself only in the mean, so nobody holds more of it than a block. Every length is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rustasr.audio import SAMPLE_RATE, open_audio


class Endless:
    """`hours` of shuffled clips as an audio source."""

    sample_rate = SAMPLE_RATE

    def __init__(self, clips: list[Path], hours: float, seed: int = 1) -> None:
        self.name, self.warnings, self.duration = "shuffled clips", list[str](), hours * 3600
        self._clips, self._seed = clips, seed

    def blocks(self, block_s: float) -> Iterator[Any]:
        size, left = round(block_s * SAMPLE_RATE), round(self.duration * SAMPLE_RATE)
        held = np.empty(0, np.float32)
        for samples in self._samples():
            held = np.concatenate([held, samples])
            while len(held) >= size and left > 0:
                yield held[: min(size, left)].copy()
                left -= size
                held = held[size:].copy()
            if left <= 0:
                return

    def _samples(self) -> Iterator[Any]:
        draw = random.Random(self._seed)
        while True:
            yield from open_audio(draw.choice(self._clips)).blocks(5.0)


def measure(model: str, clips: list[Path], hours: float, options: dict[str, Any]) -> dict[str, float]:
    import rustasr

    loaded = rustasr.load_model(model, device="cpu", threads=options.pop("threads"))
    began = time.perf_counter()
    result = loaded.transcribe(Endless(clips, hours), **options)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "hours": result.duration / 3600,
        "words": len(result.text.split()),
        "seconds": seconds,
        "peak_mb": peak / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--hours", action="append", type=float, required=True)
    parser.add_argument("--timestamps", default="segment")
    parser.add_argument("--vad", choices=["webrtc", "silero"])
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = {"timestamps": args.timestamps, "vad": args.vad, "threads": args.threads}
    if args.batch_size is not None:
        options["batch_size"] = args.batch_size
    if args.one:
        print(json.dumps(measure(args.model, args.clips, args.hours[0], options)))
        return
    print("| hours | words | x real time | peak MB |\n| --: | --: | --: | --: |")
    given = iter(sys.argv[1:])
    others = [word for word in given if word != "--hours" or not next(given)]
    for hours in args.hours:
        command = [sys.executable, __file__, *others, "--hours", str(hours), "--one"]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(ran.stdout)
        speed = found["hours"] * 3600 / found["seconds"]
        print(
            f"| {found['hours']:.2f} | {found['words']} | {speed:.0f} | {found['peak_mb']:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
