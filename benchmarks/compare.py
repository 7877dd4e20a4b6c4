#!/usr/bin/env python3
"""Time rustasr beside other Whisper runtimes: same machine, same threads, same audio, interleaved.

    compare.py --setup PEERS_DIR            make the peers' virtual environment (package index)
    compare.py --peers PEERS_DIR --model tiny.en --weights CT2_FOLDER --audio long.flac \\
               [--reference long.txt] [--gguf-dir DIR] [--engines NAME,...] [--threads 2] [--rounds 3]
               [--out results.jsonl]

Every measurement is a fresh process: load the model, transcribe the whole recording once, report. A round
runs each engine once, in turn, so that a slow minute of the machine hits them all; medians are over the
rounds. Peak memory is the process's own maximum resident set (mapped weights that were touched count) and
includes the Python interpreter and the decoded audio. CPU seconds (user + system) say what the work cost
when other programs took part of the wall time.

Rules for all: greedy, temperature 0 without retries, timestamps on, the language given, earlier text not
fed back, no voice activity detection except where the name says `batched`.

Engines: rustasr:TYPE[:bN] (TYPE f32 f16 q8_0 q6_k q4_0 ..., N windows in a batch), transcribe-cpp,
pywhispercpp, faster-whisper:float32, faster-whisper:int8, faster-whisper-batched:int8.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from measuring import (
    Row,
    engine_python,
    fresh_process,
    in_turn,
    make_peers,
    median,
    parser,
    peak_mb,
    report,
    table,
)

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = [
    "faster-whisper==1.2.1",
    "transcribe-cpp==0.4.1",
    "pywhispercpp==1.5.1",
    "numpy",
    "soundfile",
]
DEFAULT_ENGINES = (
    "rustasr:q8_0,rustasr:f16,rustasr:q4_0,rustasr:q6_k,transcribe-cpp,"
    "faster-whisper:float32,faster-whisper:int8,pywhispercpp"
)


# --- the measured side: one engine, one process ---


def run_rustasr(model: str, audio: Any, threads: int, language: str, option: str) -> Any:
    from rustasr import load_model

    asr = load_model(model, device="cpu", threads=threads)
    options: dict[str, Any] = {
        "language": language,
        "temperature": 0.0,
        "condition_on_previous_text": False,
    }
    if option:
        options["batch_size"] = int(option)
    return lambda: asr.transcribe(audio, **options).text


def run_transcribe_cpp(model: str, audio: Any, threads: int, language: str, _option: str) -> Any:
    import transcribe_cpp

    transcribe_cpp.set_log_callback(lambda *_: None)
    loaded = transcribe_cpp.Model(model, backend="cpu")
    session = loaded.session(n_threads=threads)
    rules = transcribe_cpp.WhisperRunOptions(
        temperature=0.0, temperature_inc=0.0, condition_on_prev_tokens=False
    )
    return lambda: session.run(audio, language=language, timestamps="segment", family=rules).text


def run_pywhispercpp(model: str, audio: Any, threads: int, language: str, _option: str) -> Any:
    from pywhispercpp.model import Model

    loaded = Model(
        model, n_threads=threads, print_progress=False, print_realtime=False, print_timestamps=False
    )
    rules = {
        "language": language,
        "temperature": 0.0,
        "temperature_inc": 0.0,
        "no_context": True,
        "greedy": {"best_of": 1},
    }
    return lambda: " ".join(s.text.strip() for s in loaded.transcribe(audio, **rules))


def run_faster_whisper(model: str, audio: Any, threads: int, language: str, option: str) -> Any:
    from faster_whisper import WhisperModel

    loaded = WhisperModel(model, device="cpu", compute_type=option, cpu_threads=threads)
    rules = {"language": language, "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
    return lambda: "".join(s.text for s in loaded.transcribe(audio, **rules)[0])


def run_faster_whisper_batched(model: str, audio: Any, threads: int, language: str, option: str) -> Any:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    pipeline = BatchedInferencePipeline(
        WhisperModel(model, device="cpu", compute_type=option, cpu_threads=threads)
    )
    rules = {
        "language": language,
        "beam_size": 1,
        "temperature": 0.0,
        "batch_size": 8,
        "without_timestamps": False,
    }
    return lambda: "".join(s.text for s in pipeline.transcribe(audio, **rules)[0])


RUNNERS = {
    "rustasr": run_rustasr,
    "transcribe-cpp": run_transcribe_cpp,
    "pywhispercpp": run_pywhispercpp,
    "faster-whisper": run_faster_whisper,
    "faster-whisper-batched": run_faster_whisper_batched,
}


def measure(job: Row) -> Row:
    """Run one job in this process. The audio is read before the clock starts."""
    import numpy as np
    import soundfile

    samples, rate = soundfile.read(job["audio"], dtype="float32", always_2d=True)
    if rate != 16000:
        raise SystemExit(f"{job['audio']}: a 16 kHz recording is expected, found {rate} Hz")
    audio = np.ascontiguousarray(samples.mean(axis=1))
    del samples
    before = peak_mb()
    began = time.perf_counter()
    transcribe = RUNNERS[job["engine"]](job["model"], audio, job["threads"], job["language"], job["option"])
    loaded = time.perf_counter()
    cpu = time.process_time()
    text = transcribe()
    done = time.perf_counter()
    return {
        "load_s": loaded - began,
        "wall_s": done - loaded,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "baseline_mb": before,
        "audio_s": len(audio) / 16000,
        "text": text,
    }


# --- the measuring side ---


def model_file(engine: str, option: str, args: argparse.Namespace) -> str:
    """The file or folder that an engine loads, made first where it is missing."""
    if engine.startswith("faster-whisper"):
        return str(args.weights)
    if engine == "rustasr":
        return str(args.gguf_dir / f"whisper-{args.model}-{option}.gguf")
    path: Path = args.gguf_dir / f"whisper-{args.model}-f16.bin"
    if not path.exists():
        from whisper_bin import write_bin

        write_bin(args.weights, path)
    return str(path)


def run_once(spec: str, args: argparse.Namespace) -> Row:
    engine, _, rest = spec.partition(":")
    option, _, batch = rest.partition(":b")
    job = {
        "engine": engine,
        "option": batch if engine == "rustasr" else option,
        "model": model_file(engine, option, args),
        "audio": str(args.audio),
        "threads": args.threads,
        "language": args.language,
    }
    return fresh_process(__file__, engine_python(engine, args.peers), spec, job)


COLUMNS = ["× real time (best)", "wall s", "CPU s", "load s", "peak MB", "WER %", "text"]


def summary(rows: list[Row], reference: str | None) -> str:
    """The table: medians over the rounds, and the error rate of the text."""
    from wer import word_errors

    def cells(good: list[Row]) -> list[str]:
        wall, best, audio = median(good, "wall_s"), min(r["wall_s"] for r in good), good[0]["audio_s"]
        rate = f"{100 * word_errors(reference, good[-1]['text']).rate:.2f}" if reference else ""
        digest = hashlib.sha256(re.sub(r"\s+", " ", good[-1]["text"]).strip().encode()).hexdigest()[:8]
        return [
            f"{audio / wall:.1f} ({audio / best:.1f})", f"{wall:.2f}", f"{median(good, 'cpu_s'):.2f}",
            f"{median(good, 'load_s'):.2f}", f"{median(good, 'peak_mb'):.0f}", rate, digest,
        ]  # fmt: skip

    return table(rows, COLUMNS, cells)


def main() -> None:
    options = parser(__doc__, DEFAULT_ENGINES)
    options.add_argument("--model", default="tiny.en", help="model size, for file names: tiny.en, base, ...")
    options.add_argument("--weights", type=Path, help="CTranslate2 folder of that model")
    options.add_argument(
        "--gguf-dir", type=Path, default=Path(), help="folder of whisper-MODEL-TYPE.gguf and the .bin"
    )
    options.add_argument("--audio", type=Path)
    options.add_argument("--reference", type=Path, help="text of the recording, for the error rate")
    options.add_argument("--language", default="en")
    args = options.parse_args()
    if args.setup:
        make_peers(args.setup, PEER_PACKAGES)
    elif args.job:
        report(measure(json.loads(args.job)))
    elif args.audio and args.weights:
        meta = {"model": args.model, "audio": args.audio.name}
        rows = in_turn(args, lambda spec: run_once(spec, args), meta)
        print(summary(rows, args.reference.read_text(encoding="utf-8") if args.reference else None))
    else:
        options.error("--audio and --weights are needed")


if __name__ == "__main__":
    main()
