#!/usr/bin/env python3
"""GigaAM v3 and Parakeet TDT v3 at full size with random weights: 30 s of audio, timed beside the official
PyTorch encoder and ONNX Runtime.

    conformer.py --setup PEERS_DIR          make the peers' virtual environment (package index)
    conformer.py --peers PEERS_DIR --dir WORK_DIR --family parakeet|gigaam [--gigaam SOURCE]
                 [--engines rustasr:q8_0,...] [--threads 2] [--rounds 3] [--seconds 30] [--out rows.jsonl]

What is missing in WORK_DIR is made first (conformer_checkpoint.py); SOURCE is a checkout of
github.com/salute-developers/GigaAM, needed for its official code.

Every measurement is a fresh process: load, one pass to warm up, three that count (the best is kept). A round
runs each engine once, in turn; the table has medians over the rounds. Peers run the encoder only, on features
that are random numbers; rustasr's front end and decoding are timed beside it.

Engines: rustasr:TYPE (f32 f16 q8_0 q6_k q4_0), onnx:float32, onnx:int8 (dynamic), torch:float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    spread,
    table,
)

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = ["torch", "transformers==5.23.0", "onnx", "onnxruntime", "omegaconf", "hydra-core",
                 "sentencepiece", "soundfile", "tqdm"]  # fmt: skip
DEFAULT_ENGINES = "rustasr:q8_0,onnx:int8,rustasr:q6_k,onnx:float32,rustasr:f16,torch:float32"
N_MELS = {"parakeet": 128, "gigaam": 64}
Stages = Callable[[], dict[str, float]]


def model_file(engine: str, option: str, args: argparse.Namespace) -> Path:
    """The file or folder that an engine loads, made first where it is missing."""
    folder: Path = args.dir / args.family
    if not (folder / "encoder-int8.onnx").exists():
        words = [args.peers / "bin" / "python", HERE / "conformer_checkpoint.py", args.family, folder]
        words += [args.gigaam] if args.gigaam else []
        subprocess.run([str(word) for word in words], check=True)
    if engine == "onnx":
        return folder / ("encoder-int8.onnx" if option == "int8" else "encoder.onnx")
    if engine == "torch":
        return folder
    path: Path = args.dir / f"{args.family}-{option}.gguf"
    if not path.exists():
        from rustasr.convert import convert

        source = folder if args.family == "parakeet" else folder / "v3_e2e_ctc.ckpt"
        convert(source, path, qtype=option)
    return path


# --- the measured side: one engine, one process ---


def run_rustasr(job: dict[str, Any]) -> Stages:
    from rustasr import _core

    session = _core.Model(job["model"], "cpu", job["threads"]).session()
    audio = np.random.default_rng(0).normal(0, 0.05, 16000 * job["seconds"]).astype(np.float32)
    search = _core.SearchOptions()

    def stages() -> dict[str, float]:
        begin = time.perf_counter()
        features = session.features(audio)
        if job["family"] == "parakeet":
            features = _core.normalize_per_feature(features)
        heard = time.perf_counter()
        encoded = session.encode([features])
        seen = time.perf_counter()
        (found,) = session.recognize(encoded, [0], search)
        done = time.perf_counter()
        return {"mel_s": heard - begin, "encode_s": seen - heard, "decode_s": done - seen,
                "tokens": len(found.tokens)}  # fmt: skip

    return stages


def features_of(job: dict[str, Any]) -> np.ndarray:
    shape = (1, N_MELS[job["family"]], 100 * job["seconds"])
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def timed(call: Callable[[], Any]) -> Stages:
    def stages() -> dict[str, float]:
        begin = time.perf_counter()
        call()
        return {"encode_s": time.perf_counter() - begin}

    return stages


def run_onnx(job: dict[str, Any]) -> Stages:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    features = features_of(job)
    return timed(lambda: session.run(None, {"features": features}))


def run_torch(job: dict[str, Any]) -> Stages:
    import torch

    torch.set_num_threads(job["threads"])
    features = torch.from_numpy(features_of(job))
    encoder: Any
    if job["family"] == "parakeet":
        from conformer_checkpoint import ParakeetEncoder
        from transformers import ParakeetForTDT

        encoder = ParakeetEncoder(ParakeetForTDT.from_pretrained(job["model"]).encoder).eval()
    else:
        from conformer_checkpoint import GigaamEncoder, stand_in_for_torchaudio

        stand_in_for_torchaudio()
        sys.path.insert(0, job["gigaam"])
        encoder = GigaamEncoder(torch.load(Path(job["model"]) / "encoder.pt", weights_only=False)).eval()

    def call() -> Any:
        with torch.inference_mode():
            return encoder(features)

    return timed(call)


RUNNERS = {"rustasr": run_rustasr, "onnx": run_onnx, "torch": run_torch}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    stages = RUNNERS[job["engine"]](job)
    loaded = time.perf_counter() - begin
    stages()
    rows = [stages() for _ in range(3)]
    best = {key: min(row[key] for row in rows) for key in rows[0]}
    return {"load_s": loaded, "peak_mb": peak_mb(), **best}


# --- the measuring side ---


def run_once(spec: str, args: argparse.Namespace) -> Row:
    engine, _, option = spec.partition(":")
    job = {"engine": engine, "model": str(model_file(engine, option, args)), "threads": args.threads,
           "seconds": args.seconds, "family": args.family, "gigaam": str(args.gigaam)}  # fmt: skip
    return fresh_process(__file__, engine_python(engine, args.peers), spec, job)


COLUMNS = ["encode s (range)", "mel s", "decode s", "load s", "peak MB"]


def cells(rows: list[Row]) -> list[str]:
    """Medians over the rounds, the range of the encoder's in brackets."""

    def told(key: str, digits: int) -> str:
        return f"{median(rows, key):.{digits}f}" if key in rows[0] else ""

    return [spread(rows, "encode_s"), told("mel_s", 3), told("decode_s", 3), told("load_s", 2),
            told("peak_mb", 0)]  # fmt: skip


def main() -> None:
    options = parser(__doc__, DEFAULT_ENGINES)
    options.add_argument("--dir", type=Path, help="where the checkpoints and the engines' files are kept")
    options.add_argument("--family", choices=tuple(N_MELS))
    options.add_argument("--gigaam", type=Path, help="checkout of the official GigaAM source")
    options.add_argument("--seconds", type=int, default=30)
    args = options.parse_args()
    if args.job:
        report(measure(json.loads(args.job)))
    elif args.setup:
        make_peers(args.setup, PEER_PACKAGES)
    elif args.dir and args.peers and args.family:
        rows = in_turn(args, lambda spec: run_once(spec, args), {"family": args.family})
        print(table(rows, COLUMNS, cells))
    else:
        options.error("--dir, --peers and --family are needed")


if __name__ == "__main__":
    main()
