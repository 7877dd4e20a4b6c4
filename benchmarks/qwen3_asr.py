#!/usr/bin/env python3
"""Qwen3-ASR 0.6B at full size with random weights: encode, prefill, tokens a second, peak memory.

    qwen3_asr.py --setup PEERS_DIR          make the peers' virtual environment (package index)
    qwen3_asr.py --peers PEERS_DIR --dir WORK_DIR [--transcribe-cpp SOURCE] [--engines rustasr:q8_0,...]
                 [--threads 2] [--rounds 3] [--seconds 30] [--audio clip.flac] [--out rows.jsonl]

What is missing in WORK_DIR is made first (qwen3_checkpoint.py); SOURCE is a checkout of
github.com/handy-computer/transcribe.cpp, needed for its converter. The checkpoint makes every engine say the
same 200 words; the table shows how many came.

Every measurement is a fresh process: load, one pass to warm up, `--passes` that count (medians). A round
runs each engine once, in turn; the table has medians over the rounds. Prefill is the prompt with the vectors
of the audio; a token is one step after it. Four sequences are decoded together where an engine can
(`tokens/s x4`).
Peak memory is the largest resident set, of load and one recording at a time; mapped weights that were
touched count.

`bandwidth` reads memory with all threads (NumPy) in the same rounds. What a step must read at least is every
matrix of the language model once, its output matrix included, and the keys and values of the tokens before
it: `of bandwidth` is that divided by the time of a step and by the bandwidth.

Engines: rustasr:TYPE (f32 f16 bf16 q8_0 q6_k q4_0), transcribe-cpp:bf16, transcribe-cpp:q8_0, torch:float32,
torch:bfloat16, bandwidth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
    spread,
    table,
)
from qwen3_checkpoint import IM_END, N_WORDS, TEXT, make_checkpoint, planted_text

HERE = Path(__file__).resolve().parent
PEER_PACKAGES = ["torch", "transformers==5.23.0", "transcribe-cpp==0.4.1", "gguf", "safetensors", "soundfile"]
DEFAULT_ENGINES = (
    "bandwidth,rustasr:q8_0,rustasr:q4_0,rustasr:f16,transcribe-cpp:q8_0,transcribe-cpp:bf16,torch:float32"
)
TOGETHER = 4
BEFORE, PAD = [151644, 8948, 198, 151645, 198, 151644, 872, 198, 151669], 151676
AFTER = [151670, 151645, 198, 151644, 77091, 198]
Audio = npt.NDArray[np.float32]
Pass = Callable[[], dict[str, float]]


def model_file(engine: str, option: str, args: argparse.Namespace) -> Path:
    """The file or folder that an engine loads, made first where it is missing."""
    hf: Path = args.dir / "hf"
    if not (hf / "model.safetensors").exists():
        make_checkpoint(hf)
    if engine == "torch":
        return hf
    path: Path = args.dir / f"{engine}-{option}.gguf"
    if path.exists():
        return path
    if engine == "rustasr":
        from rustasr.convert import convert

        convert(hf, path, qtype=option)
    elif args.transcribe_cpp:
        words = [args.peers / "bin" / "python", HERE / "qwen3_checkpoint.py", hf, path, option]
        subprocess.run([str(word) for word in (*words, args.transcribe_cpp)], check=True)
    else:
        raise SystemExit("--transcribe-cpp is needed to make the peer's file")
    return path


# --- the measured side: one engine, one process ---


def recording(path: str | None, seconds: int) -> Audio:
    """So many seconds at 16 kHz: the start of a recording, repeated if it is shorter."""
    import soundfile

    source = path or str(HERE.parent / "tests" / "data" / "jfk.flac")
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    if rate != 16000:
        raise SystemExit(f"{source}: a 16 kHz recording is expected, found {rate} Hz")
    return np.ascontiguousarray(np.resize(samples.mean(axis=1), 16000 * seconds))


def run_rustasr(job: Row, audio: Audio) -> Pass:
    from rustasr import _core

    session = _core.Model(job["model"], "cpu", job["threads"]).session()
    first = _core.DecodeOptions(max_tokens=1)
    # As many tokens whatever is said: nothing stops a text that may not end.
    forced = _core.DecodeOptions(max_tokens=N_WORDS, suppress=[IM_END, 151643])

    def one() -> dict[str, float]:
        clock = Clock()
        raw = session.features(audio)
        clock.stop("mel")
        encoded = session.encode([_core.normalize_log_mel(raw, float(raw.max()))])
        clock.stop("encode")
        prompt = [*BEFORE, *[PAD] * encoded.lengths[0], *AFTER]
        session.decode(encoded, [0], [prompt], first)
        clock.stop("prefill")
        # The prompt is known now, but for its last token, which is a step like the others.
        (found,) = session.decode(encoded, [0], [prompt], forced)
        clock.stop("decode")
        tokens = len(found.tokens)
        return {**clock.row, "tokens": tokens, "context": len(prompt) + tokens / 2,
                "ms_per_token": 1000 * clock.row["decode_s"] / tokens}  # fmt: skip

    def together() -> dict[str, float]:
        row = one()
        row["peak_mb"] = peak_mb()
        raw = session.features(audio)
        encoded = session.encode([_core.normalize_log_mel(raw, float(raw.max()))] * TOGETHER)
        prompts = [[*BEFORE, *[PAD] * n, *AFTER] for n in encoded.lengths]
        session.decode(encoded, range(TOGETHER), prompts, first)
        clock = Clock()
        found = session.decode(encoded, range(TOGETHER), prompts, forced)
        clock.stop("together")
        row["together_tokens_per_s"] = sum(len(text.tokens) for text in found) / clock.row["together_s"]
        return row

    return together if job["together"] else one


def run_transcribe_cpp(job: Row, audio: Audio) -> Pass:
    import transcribe_cpp

    transcribe_cpp.set_log_callback(lambda *_: None)
    session = transcribe_cpp.Model(job["model"], backend="cpu").session(n_threads=job["threads"])
    words = planted_text()

    def one() -> dict[str, float]:
        # A forced language leads to the end at once: its decoding is the prefill and one step.
        short, long = (session.run(audio, language=language) for language in ("en", None))
        tokens = N_WORDS if long.text.strip() == words else 0
        step = (long.timings.decode_ms - short.timings.decode_ms) / max(1, tokens)
        times = {"mel_s": long.timings.mel_ms, "encode_s": long.timings.encode_ms,
                 "prefill_s": short.timings.decode_ms}  # fmt: skip
        return {**{k: v / 1000 for k, v in times.items()}, "ms_per_token": step, "tokens": tokens}

    return one


def load_torch(job: Row) -> Any:
    """The official class, with the tensors of the original layout under its own names."""
    import torch
    from safetensors import safe_open
    from transformers import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

    folder = Path(job["model"])
    thinker = json.loads((folder / "config.json").read_text(encoding="utf-8"))["thinker_config"]
    audio, text = thinker["audio_config"], thinker["text_config"]
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    text.pop("rope_scaling")
    config = Qwen3ASRConfig(
        audio_config={**audio, "model_type": "qwen3_asr_encoder", "max_position_embeddings": 13},
        text_config={**text, "model_type": "qwen3", "rope_parameters": rope},
        audio_token_id=PAD, timestamp_token_id=151705, tie_word_embeddings=True,
    )  # fmt: skip
    dtype = getattr(torch, job["option"])
    model = Qwen3ASRForConditionalGeneration(config).eval().to(dtype)
    renames = {"thinker.model.": "model.language_model.", "thinker.lm_head.": "lm_head.",
               "thinker.audio_tower.proj1.": "model.multi_modal_projector.linear_1.",
               "thinker.audio_tower.proj2.": "model.multi_modal_projector.linear_2.",
               "thinker.": "model."}  # fmt: skip
    state = {}
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping
            prefix = next(p for p in renames if name.startswith(p))
            state[renames[prefix] + name[len(prefix) :]] = tensors.get_tensor(name).to(dtype)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all("position" in name or "inv_freq" in name for name in missing), missing
    model.tie_weights()
    return model


def run_torch(job: Row, audio: Audio) -> Pass:
    import torch
    from transformers import Qwen3ASRFeatureExtractor

    torch.set_num_threads(job["threads"])
    model, extractor = load_torch(job), Qwen3ASRFeatureExtractor()
    text = model.model.language_model

    @torch.inference_mode()
    def one() -> dict[str, float]:
        clock = Clock()
        mel = extractor(audio, sampling_rate=16000, return_attention_mask=True, return_tensors="pt")
        clock.stop("mel")
        features = mel["input_features"].to(model.dtype)
        vectors = model.get_audio_features(features, mel["attention_mask"], return_dict=True).pooler_output
        clock.stop("encode")
        prompt = torch.tensor([[*BEFORE, *[PAD] * len(vectors), *AFTER]])
        embedded = text.embed_tokens(prompt).clone()
        embedded[0, prompt[0] == PAD] = vectors.to(embedded.dtype)
        state = text(inputs_embeds=embedded, use_cache=True)
        token = int(model.lm_head(state.last_hidden_state[:, -1]).argmax())
        clock.stop("prefill")
        tokens = 0
        while token != IM_END and tokens < N_WORDS:
            state = text(
                input_ids=torch.tensor([[token]]), past_key_values=state.past_key_values, use_cache=True
            )
            token, tokens = int(model.lm_head(state.last_hidden_state[:, -1]).argmax()), tokens + 1
        clock.stop("decode")
        return {**clock.row, "tokens": tokens, "ms_per_token": 1000 * clock.row["decode_s"] / max(1, tokens)}

    return one


def run_bandwidth(job: Row, _audio: Audio) -> Pass:
    """Reads 512 MiB with each thread, far more than any cache holds."""
    shares = [np.ones(1 << 26, np.int64) for _ in range(job["threads"])]

    def one() -> dict[str, float]:
        with ThreadPoolExecutor(len(shares)) as pool:
            begin = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, shares))
            return {"gb_per_s": sum(s.nbytes for s in shares) / (time.perf_counter() - begin) / 1e9}

    return one


RUNNERS = {"rustasr": run_rustasr, "transcribe-cpp": run_transcribe_cpp, "torch": run_torch,
           "bandwidth": run_bandwidth}  # fmt: skip


def measure(job: Row) -> Row:
    audio = recording(job["audio"], job["seconds"])
    begin = time.perf_counter()
    run = RUNNERS[job["engine"]](job, audio)
    loaded = time.perf_counter() - begin
    first = run()
    rows = [run() for _ in range(job["passes"])]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {"load_s": loaded, **medians, "peak_mb": first.get("peak_mb") or peak_mb()}


# --- the measuring side ---


def step_bytes(path: Path, context: float) -> float:
    """What a step reads at least: every matrix of the language model, and keys and values (F16) of `context`
    tokens."""
    import gguf

    cell = 2 * TEXT["num_hidden_layers"] * TEXT["num_key_value_heads"] * TEXT["head_dim"] * 2
    return context * cell + sum(
        int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors
        if tensor.name.startswith("language_model.") and len(tensor.shape) == 2
    )  # fmt: skip


def run_once(spec: str, args: argparse.Namespace) -> Row:
    engine, _, option = spec.partition(":")
    job = {"engine": engine, "option": option, "threads": args.threads, "seconds": args.seconds,
           "passes": args.passes, "together": not args.alone,
           "audio": str(args.audio) if args.audio else None}  # fmt: skip
    if engine == "bandwidth":
        return fresh_process(__file__, engine_python("rustasr", args.peers), spec, job)
    path = model_file(engine, option, args)
    row = fresh_process(__file__, engine_python(engine, args.peers), spec, {**job, "model": str(path)})
    if engine == "rustasr":
        row["file_mb"] = path.stat().st_size / (1 << 20)
    if "context" in row:
        row["step_mb"] = step_bytes(path, row["context"]) / 1e6
    return row


COLUMNS = ["encode s (range)", "prefill s (range)", "ms a token (range)", "of bandwidth", "tokens/s x4",
           "load s", "peak MB", "file MB", "tokens"]  # fmt: skip


def summary(rows: list[Row]) -> str:
    """Medians over the rounds, ranges in brackets."""
    bandwidth = median(rows, "gb_per_s")

    def cells(good: list[Row]) -> list[str]:
        if good[0]["spec"] == "bandwidth":
            return ["", "", "", f"{spread(good, 'gb_per_s', 1)} GB/s", "", "", "", "", ""]
        share = median(good, "step_mb") / median(good, "ms_per_token") / bandwidth

        def told(key: str, digits: int) -> str:
            value = median(good, key)
            return "" if np.isnan(value) else f"{value:.{digits}f}"

        return [
            spread(good, "encode_s", 3), spread(good, "prefill_s", 3), spread(good, "ms_per_token", 1),
            "" if np.isnan(share) else f"{100 * share:.0f} %", told("together_tokens_per_s", 0),
            told("load_s", 2), told("peak_mb", 0), told("file_mb", 0), told("tokens", 0),
        ]  # fmt: skip

    return table(rows, COLUMNS, cells)


def main() -> None:
    options = parser(__doc__, DEFAULT_ENGINES)
    options.add_argument("--dir", type=Path, help="where the checkpoint and the engines' files are kept")
    options.add_argument("--transcribe-cpp", type=Path, help="checkout of transcribe.cpp")
    options.add_argument("--audio", type=Path, help="16 kHz recording (default: tests/data/jfk.flac)")
    options.add_argument("--seconds", type=int, default=30)
    options.add_argument("--passes", type=int, default=3, help="that count, after one to warm up")
    options.add_argument("--alone", action="store_true", help="leave out the four sequences (peak memory)")
    args = options.parse_args()
    if args.job:
        report(measure(json.loads(args.job)))
    elif args.setup:
        make_peers(args.setup, PEER_PACKAGES)
    elif args.dir and args.peers:
        print(summary(in_turn(args, lambda spec: run_once(spec, args), {"seconds": args.seconds})))
    else:
        options.error("--dir and --peers are needed")


if __name__ == "__main__":
    main()
