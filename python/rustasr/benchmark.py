"""Speed, memory and accuracy of models on this machine, measured so that the numbers can be trusted.

Every model runs in a process of its own, so that its peak memory is its own. Rounds are interleaved
(A, B, A, B, ...), so that a busy spell of the machine hits all alike, and the median of the rounds is
reported with the fastest and the slowest. A hash of the text is the proof that the work was done.

`python -m rustasr.benchmark` is the worker: it reads a job and then commands, a line of JSON each.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rustasr.errors import AudioError, ModelError, OptionError, RustAsrError
from rustasr.scoring import SpeakerErrors, error_rates, speaker_errors
from rustasr.types import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rustasr.model import AsrModel
    from rustasr.progress import Progress


@dataclass(frozen=True, slots=True)
class Job:
    """What every model is to do. `audio`, `references` (texts, or none) and `turns` (who speaks when, or
    none) belong together in order; with turns speakers are looked for as well, in speech that `vad` finds.
    """

    audio: tuple[str, ...]
    references: tuple[str, ...] = ()
    device: str = "auto"
    threads: int = 0
    repeat: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    turns: tuple[tuple[Turn, ...], ...] = ()
    vad: str = "silero"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model's numbers. Times in seconds, memory in bytes; `seconds` has the work time of each round."""

    model: str
    device: str
    load_seconds: float
    first_text_seconds: float | None
    audio_seconds: float
    seconds: tuple[float, ...]
    peak_rss_bytes: int | None
    text_sha256: str
    wer: float | None = None
    cer: float | None = None
    speakers: SpeakerErrors | None = None

    @property
    def der(self) -> float | None:
        """Diarization error rate; None where nobody's turns are known."""
        return None if self.speakers is None else self.speakers.rate

    @property
    def rtf(self) -> float:
        """Median real-time factor."""
        return median(self.seconds) / self.audio_seconds

    @property
    def rtf_range(self) -> tuple[float, float]:
        """Fastest and slowest round."""
        return min(self.seconds) / self.audio_seconds, max(self.seconds) / self.audio_seconds

    def to_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        low, high = self.rtf_range
        return {**asdict(self), "rtf": self.rtf, "rtf_min": low, "rtf_max": high, "der": self.der}


def run(
    models: Sequence[str], job: Job, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, Measurement | RustAsrError]:
    """Measure models, rounds interleaved; a model that fails has its error in place of its numbers."""
    workers: dict[str, _Worker] = {}
    results: dict[str, Measurement | RustAsrError] = {}
    report = progress or (lambda _done, _total, _what: None)
    total = len(models) * job.repeat
    try:
        for model in models:
            try:
                workers[model] = _Worker(model, job)
            except RustAsrError as error:
                results[model] = error
        for turn in range(job.repeat):
            for model in list(workers):
                report(turn * len(models) + models.index(model), total, model)
                try:
                    workers[model].round()
                except RustAsrError as error:
                    results[model] = error
                    workers.pop(model).close()
        for model, worker in workers.items():
            results[model] = worker.measurement(job)
        report(total, total, "done")
    finally:
        for worker in workers.values():
            worker.close()
    return {model: results[model] for model in models}


class _Worker:
    """A model in a process of its own."""

    def __init__(self, model: str, job: Job) -> None:
        self._model = model
        self._rounds: list[dict[str, Any]] = []
        package_parent = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rustasr.benchmark"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        self._loaded = self._ask({"model": model, **asdict(job)})

    def round(self) -> None:
        self._rounds.append(self._ask({"command": "round"}))

    def measurement(self, job: Job) -> Measurement:
        last = self._rounds[-1]
        texts: list[str] = last["texts"]
        languages: list[str] = last["languages"]
        wer, cer = error_rates(job.references, texts, languages) if job.references else (None, None)
        first = [r["first_text"] for r in self._rounds if r["first_text"] is not None]
        return Measurement(
            model=self._model,
            device=self._loaded["device"],
            load_seconds=self._loaded["load_seconds"],
            first_text_seconds=median(first) if first else None,
            audio_seconds=last["audio_seconds"],
            seconds=tuple(r["seconds"] for r in self._rounds),
            peak_rss_bytes=last["peak_rss_bytes"],
            text_sha256=hashlib.sha256("\n".join(texts).encode()).hexdigest(),
            wer=wer,
            cer=cer,
            speakers=_speaker_errors(job, last),
        )

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # the worker's loop ends
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ModelError(f"{self._model}: the benchmark process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self.close()
            raise _ERRORS.get(answer["kind"], ModelError)(answer["error"])
        return answer


_ERRORS: dict[str, type[RustAsrError]] = {"audio": AudioError, "model": ModelError, "option": OptionError}


def _speaker_errors(job: Job, last: dict[str, Any]) -> SpeakerErrors | None:
    """Over all recordings together, each from its beginning to its end."""
    total: SpeakerErrors | None = None
    for reference, found, seconds in zip(job.turns, last["turns"], last["durations"], strict=False):
        errors = speaker_errors(reference, (Turn(*turn) for turn in found), [(0.0, seconds)])
        total = errors if total is None else total + errors
    return total


# --- in the worker's process


def serve() -> None:
    """Load the model of the first line's job, then do a round for every further line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may write between the answers
    try:
        job = json.loads(sys.stdin.readline())
        start = time.perf_counter()
        from rustasr.model import load_model

        model = load_model(job["model"], device=job["device"], threads=job["threads"])
        load_seconds = time.perf_counter() - start
        device = getattr(getattr(model, "core", None), "device", job["device"])
        print(json.dumps({"load_seconds": load_seconds, "device": device}), file=answers, flush=True)
        for _ in sys.stdin:
            print(json.dumps(_round(model, job)), file=answers, flush=True)
    except RustAsrError as error:
        kinds = {AudioError: "audio", OptionError: "option"}
        kind = next((name for cls, name in kinds.items() if isinstance(error, cls)), "model")
        print(json.dumps({"error": str(error), "kind": kind}), file=answers, flush=True)
    except KeyboardInterrupt:  # Ctrl-C reaches the whole process group; the parent reports it
        sys.exit(130)


def _round(model: AsrModel, job: dict[str, Any]) -> dict[str, Any]:
    """All recordings once; decoding of the file is part of the time, as for a user."""
    from rustasr.system import peak_rss_bytes

    options: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in job["options"].items()
    }
    first: list[float] = []
    start = time.perf_counter()

    def note(progress: Progress) -> None:
        if not first and len(progress.segments_so_far):
            first.append(time.perf_counter() - start)

    if job["turns"]:
        from rustasr.diarization import diarize

        results = [diarize(model, path, vad=job["vad"], progress=note, **options) for path in job["audio"]]
    else:
        results = [model.transcribe(path, progress=note, **options) for path in job["audio"]]
    return {
        "seconds": time.perf_counter() - start,
        "first_text": first[0] if first else None,
        "audio_seconds": sum(result.duration for result in results),
        "durations": [result.duration for result in results],
        "texts": [result.text for result in results],
        "languages": [result.language for result in results],
        "turns": [[astuple(turn) for turn in result.turns or ()] for result in results],
        "peak_rss_bytes": peak_rss_bytes(),
    }


# --- reports


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import rustasr
    from rustasr.system import cpu_name

    return {
        "rustasr": rustasr.__version__,
        "core": dict(rustasr._core.version()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "logical_cpus": os.cpu_count(),
    }


def to_json(results: dict[str, Measurement | RustAsrError], job: Job) -> str:
    """The report as a document: `rustasr.benchmark`, version 1."""
    document = {
        "schema": "rustasr.benchmark",
        "version": 1,
        "machine": machine(),
        "job": {
            **asdict(job),
            "audio": [Path(path).name for path in job.audio],
            "references": len(job.references),
            "turns": len(job.turns),
        },
        "results": [
            result.to_dict() if isinstance(result, Measurement) else {"model": model, "error": str(result)}
            for model, result in results.items()
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


ROW, LABELS, BARS, VALUES = 34, 220, 480, 120  # pixels: a model's height, names, the longest bar, numbers
BAR, TITLE = 22, 46  # a bar's height; a panel's title with the space behind the panel


def to_svg(measurements: Sequence[Measurement]) -> str:
    """Bars of speed (times real time, median) with a line from the slowest to the fastest round; then, where
    they are known, of word, character and diarization error rates.
    """
    speeds = [(m.model, 1 / m.rtf, (1 / m.rtf_range[1], 1 / m.rtf_range[0])) for m in measurements]
    panels = [("Speed, times real time (median; line: range)", speeds)]
    for title, rates in (
        ("Word error rate, %", [m.wer for m in measurements]),
        ("Character error rate, %", [m.cer for m in measurements]),
        ("Diarization error rate, % (collar 0.25 s, overlap scored)", [m.der for m in measurements]),
    ):
        known = [(m.model, 100 * r) for m, r in zip(measurements, rates, strict=True) if r is not None]
        if known:
            panels.append((title, [(model, rate, (rate, rate)) for model, rate in known]))
    heights = [TITLE + ROW * len(rows) for _, rows in panels]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABELS + BARS + VALUES}" height="{sum(heights)}" '
        'font-family="sans-serif" font-size="13">',
    ]
    for i, (title, rows) in enumerate(panels):
        parts += _panel(title, rows, sum(heights[:i]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, rows: Sequence[tuple[str, float, tuple[float, float]]], top: int) -> Iterator[str]:
    """A bar for each (model, value, (least, most)), from `top` on."""
    from xml.sax.saxutils import escape

    scale = BARS / (max(most for _, _, (_, most) in rows) or 1.0)
    yield f'<text x="10" y="{top + 20}" font-weight="bold">{escape(title)}</text>'
    for index, (model, value, (least, most)) in enumerate(rows):
        y = top + 34 + index * ROW
        end = LABELS + most * scale
        name = escape(Path(model).name[:30])
        yield f'<text x="{LABELS - 10}" y="{y + 16}" text-anchor="end">{name}</text>'
        yield f'<rect x="{LABELS}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="#4477aa"/>'
        if least < most:
            yield f'<path d="M{LABELS + least * scale:.1f} {y + 11}H{end:.1f}" stroke="#222"/>'
        yield f'<text x="{end + 8:.1f}" y="{y + 16}">{value:.1f}</text>'


if __name__ == "__main__":
    serve()
