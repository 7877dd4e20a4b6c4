#!/usr/bin/env python3
"""Whisper large-v3-turbo at its full published size with random weights: one 30 s window, timed.

    turbo.py --setup PEERS_DIR              make the peers' virtual environment (package index)
    turbo.py --peers PEERS_DIR --dir WORK_DIR --tokenizer TOKENIZER_JSON \\
             [--engines rustasr:q8_0,...] [--threads 2] [--rounds 3] [--audio clip.flac] [--out rows.jsonl]
    turbo.py --make HF_DIR --tokenizer TOKENIZER_JSON      only the checkpoint (1.6 GB)

TOKENIZER_JSON is that of any multilingual Whisper, such as the one in the package with base's weights.
What is missing in WORK_DIR is made first: the checkpoint as a Hugging Face folder in F16, then each
engine's own file (7 GB for the default engines).

The checkpoint makes every engine decode the same 100 words (turbo_checkpoint.py says how); the table shows
how many came.

Every measurement is a fresh process: load, one window to warm up, one that counts. A round runs each
engine once, in turn; the table has medians over the rounds. Peak memory is the process's maximum resident
set (mapped weights that were touched count). CPU seconds tell the cost when other programs took their share
of the wall time. The mel front end is not part of `encode`. The keys and values of the cross-attention are
made in `encode` by rustasr and in `decode` by CTranslate2: compare the sums too.

Engines: rustasr:TYPE (f32 f16 q8_0 q6_k q4_0 ...), ctranslate2:int8, ctranslate2:float32,
transcribe-cpp:f16, transcribe-cpp:q8_0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from compare import PEER_PACKAGES
from measuring import (
    Clock,
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
from turbo_checkpoint import PROMPT, make_checkpoint, requantize_bin

HERE = Path(__file__).resolve().parent
DEFAULT_ENGINES = "rustasr:q8_0,ctranslate2:int8,transcribe-cpp:f16,rustasr:f16,transcribe-cpp:q8_0"


# --- the engines' own files ---


def model_file(engine: str, option: str, args: argparse.Namespace) -> Path:
    """The file or folder that an engine loads, made first where it is missing."""
    folder: Path = args.dir
    hf = folder / "hf"
    if not (hf / "model.safetensors").exists():
        if not args.tokenizer:
            raise SystemExit("--tokenizer is needed to make the checkpoint")
        make_checkpoint(hf, args.tokenizer)
    if engine == "rustasr":
        path = folder / f"turbo-{option}.gguf"
        if not path.exists():
            from rustasr.convert import convert

            convert(hf, path, qtype=option)
        return path
    if engine == "ctranslate2":
        return ctranslate2_folder(hf, folder / f"ct2-{option}", option, args.peers)
    path = folder / f"turbo-{option}.bin"
    if not path.exists() and option == "f16":
        from whisper_bin import write_bin

        write_bin(ctranslate2_folder(hf, folder / "ct2-float16", "float16", args.peers), path)
    elif not path.exists():
        requantize_bin(model_file(engine, "f16", args), path)
    return path


def ctranslate2_folder(hf: Path, out: Path, quantization: str, peers: Path) -> Path:
    if not (out / "model.bin").exists():
        command = [peers / "bin" / "python", HERE / "turbo_checkpoint.py", hf, out, quantization]
        subprocess.run([str(word) for word in command], check=True)
    return out


# --- the measured side: one engine, one process ---


def window(path: str | None) -> npt.NDArray[np.float32]:
    """30 s at 16 kHz: the start of a recording, repeated if it is shorter."""
    import soundfile

    source = path or str(HERE.parent / "tests" / "data" / "jfk.flac")
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    if rate != 16000:
        raise SystemExit(f"{source}: a 16 kHz recording is expected, found {rate} Hz")
    return np.ascontiguousarray(np.resize(samples.mean(axis=1), 480000))


Run = Callable[[Clock], int]


def run_rustasr(model: str, audio: npt.NDArray[np.float32], threads: int, _option: str) -> Run:
    from rustasr import _core

    session = _core.Model(model, "cpu", threads).session()
    options = _core.DecodeOptions(timestamps=False)

    def run(clock: Clock) -> int:
        raw = session.features(audio)
        clock.stop("mel")
        encoded = session.encode([_core.normalize_log_mel(raw, float(raw.max()))])
        clock.stop("encode")
        (result,) = session.decode(encoded, [0], [PROMPT], options)
        clock.stop("decode")
        return len(result.tokens)

    return run


def run_ctranslate2(model: str, audio: npt.NDArray[np.float32], threads: int, option: str) -> Run:
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    loaded = ctranslate2.models.Whisper(model, device="cpu", compute_type=option, intra_threads=threads)
    mel = FeatureExtractor(feature_size=128)

    def run(clock: Clock) -> int:
        features = np.ascontiguousarray(mel(audio)[None, :, :3000], np.float32)
        clock.stop("mel")
        encoded = loaded.encode(ctranslate2.StorageView.from_array(features), to_cpu=False)
        clock.stop("encode")
        (result,) = loaded.generate(encoded, [PROMPT], beam_size=1, max_length=448)
        clock.stop("decode")
        return len(result.sequences_ids[0])

    return run


def run_transcribe_cpp(model: str, audio: npt.NDArray[np.float32], threads: int, _option: str) -> Run:
    import transcribe_cpp

    transcribe_cpp.set_log_callback(lambda *_: None)
    loaded = transcribe_cpp.Model(model, backend="cpu")
    session, never = loaded.session(n_threads=threads), float("inf")
    rules = transcribe_cpp.WhisperRunOptions(
        temperature_inc=0.0, condition_on_prev_tokens=False,
        logprob_thold=-never, compression_ratio_thold=never, no_speech_thold=never,
    )  # fmt: skip

    def run(clock: Clock) -> int:
        result = session.run(audio, language="en", timestamps="none", family=rules)
        clock.stop("all")  # the stages by its own clock, which does not count CPU time
        for stage in ("mel", "encode", "decode"):
            clock.row[stage + "_s"] = getattr(result.timings, stage + "_ms") / 1000
        return len(result.tokens) or len(result.text.split())

    return run


RUNNERS = {"rustasr": run_rustasr, "ctranslate2": run_ctranslate2, "transcribe-cpp": run_transcribe_cpp}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    audio = window(job["audio"])
    clock = Clock()
    run = RUNNERS[job["engine"]](job["model"], audio, job["threads"], job["option"])
    clock.stop("load")
    loaded = clock.row["load_s"]
    run(clock)
    clock = Clock()
    tokens = run(clock)
    row = clock.row
    cpu = row.get("all_cpu_s") or sum(v for k, v in row.items() if k.endswith("_cpu_s"))
    return {"load_s": loaded, "peak_mb": peak_mb(), "tokens": tokens, "cpu_s": cpu, **row}


# --- the measuring side ---


def run_once(spec: str, args: argparse.Namespace) -> Row:
    engine, _, option = spec.partition(":")
    job = {
        "engine": engine, "option": option, "model": str(model_file(engine, option, args)),
        "threads": args.threads, "audio": str(args.audio) if args.audio else None,
    }  # fmt: skip
    return fresh_process(__file__, engine_python(engine, args.peers), spec, job)


COLUMNS = ["encode s (best)", "encode CPU s", "decode s", "ms a token", "all CPU s", "load s", "peak MB",
           "words"]  # fmt: skip


def cells(rows: list[Row]) -> list[str]:
    """Medians over the rounds; the best encode in brackets."""
    words = rows[-1]["tokens"]
    return [
        f"{median(rows, 'encode_s'):.2f} ({min(row['encode_s'] for row in rows):.2f})",
        f"{median(rows, 'encode_cpu_s'):.2f}", f"{median(rows, 'decode_s'):.2f}",
        f"{1000 * median(rows, 'decode_s') / max(1, words):.1f}", f"{median(rows, 'cpu_s'):.2f}",
        f"{median(rows, 'load_s'):.2f}", f"{median(rows, 'peak_mb'):.0f}", str(words),
    ]  # fmt: skip


def main() -> None:
    options = parser(__doc__, DEFAULT_ENGINES)
    options.add_argument("--make", type=Path, metavar="DIR", help="make the checkpoint and stop")
    options.add_argument("--dir", type=Path, help="where the checkpoint and the engines' files are kept")
    options.add_argument("--tokenizer", type=Path, help="tokenizer.json of a multilingual Whisper")
    options.add_argument("--audio", type=Path, help="16 kHz recording (default: tests/data/jfk.flac)")
    args = options.parse_args()
    if args.job:
        report(measure(json.loads(args.job)))
    elif args.setup:
        make_peers(args.setup, PEER_PACKAGES)
    elif args.make and args.tokenizer:
        make_checkpoint(args.make, args.tokenizer)
    elif args.dir and args.peers:
        print(table(in_turn(args, lambda spec: run_once(spec, args)), COLUMNS, cells))
    else:
        options.error("--dir and --peers are needed")


if __name__ == "__main__":
    main()
