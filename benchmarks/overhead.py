"""How much of a transcription's time is not the model's.

    python benchmarks/overhead.py MODEL FILE [--vad webrtc] [--timestamps word] [--threads N] [--repeat 3]

Every call into the compiled session is timed: `encode`, `decode`, `align` and the like are the model,
`features` (log mel) the front end; the rest of `transcribe`, with a journal on disk from its beginning and
the formats written after it, is overhead: decoding and resampling of audio, policy, times. Voice activity
detection is told apart. The figures are medians over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import rustasr
from rustasr import journal, writers
from rustasr.vad import Span, load_vad


class TimedSession:
    """A session that counts the seconds of its calls."""

    def __init__(self, session: Any, seconds: dict[str, float]) -> None:
        self._session, self._seconds = session, seconds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if not callable(found):
            return found

        def call(*args: Any, **values: Any) -> Any:
            began = time.perf_counter()
            try:
                return found(*args, **values)
            finally:
                self._seconds["features" if name == "features" else "model"] += time.perf_counter() - began

        return call


class TimedVad:
    """A detector that counts its seconds, those of decoding the audio left out."""

    def __init__(self, vad: Any, seconds: dict[str, float]) -> None:
        self._vad, self._seconds, self.options = vad, seconds, vad.options

    def speech(self, blocks: Iterable[Any]) -> list[Span]:
        outside = 0.0

        def counted() -> Iterator[Any]:
            nonlocal outside
            source = iter(blocks)
            while True:
                began = time.perf_counter()
                block = next(source, None)
                outside += time.perf_counter() - began
                if block is None:
                    return
                yield block

        began = time.perf_counter()
        found: list[Span] = self._vad.speech(counted())
        self._seconds["vad"] += time.perf_counter() - began - outside
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--vad", choices=["webrtc", "silero"])
    parser.add_argument("--format", action="append", choices=list(writers.FORMATS), help="default: json, srt")
    parser.add_argument("--timestamps", default="segment")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    journal.PATIENCE_S = 0.0
    model: Any = rustasr.load_model(args.model, device="cpu", threads=args.threads)
    seconds: dict[str, float] = defaultdict(float)
    model._local.session = TimedSession(model.core.session(), seconds)
    vad: Any = None if args.vad is None else TimedVad(load_vad(args.vad), seconds)
    rows = []
    for _ in range(args.repeat):
        seconds.clear()
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            result = model.transcribe(
                args.file, vad=vad, timestamps=args.timestamps, journal=Path(folder) / "j.jsonl"
            )
            for kind in args.format or ["json", "srt"]:
                writers.write_atomic(Path(folder) / kind, writers.render(result, kind))
            total = time.perf_counter() - began
        rows.append((total, seconds["model"], seconds["features"], seconds["vad"]))
    total, in_model, features, in_vad = (statistics.median(column) for column in zip(*rows, strict=True))
    rest = total - in_model - features - in_vad
    print(f"{result.duration:.1f} s of audio in {total:.3f} s ({result.duration / total:.0f} x real time)")
    for name, part in (("model", in_model), ("log mel", features), ("vad", in_vad), ("overhead", rest)):
        print(f"{name:9} {part:8.3f} s  {part / total:6.2%}")


if __name__ == "__main__":
    main()
