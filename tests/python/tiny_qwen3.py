"""A random Qwen3-ASR (or aligner), small enough to be made in a moment, in both published layouts.

`make(aligner=...)` gives weights under the original layout's names as bfloat16 bits; `write_original` and
`write_hf` save them the way the two kinds of repositories have them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.encoding import bf16_bits
from rustasr.convert.qwen3_tokenizer import SPLIT_PATTERN
from rustasr.convert.whisper_tokenizer import byte_to_char

TEXT = "language English none asr the quick brown fox jumps over the lazy dog привет как дела " * 2
N_MERGES = 40
ADDED = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>",
    "<asr_text>", "<timestamp>",
)  # fmt: skip
N_BASE = 256 + N_MERGES
AUDIO = {
    "num_mel_bins": 16, "encoder_layers": 2, "d_model": 32, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "downsample_hidden_size": 32, "n_window": 8, "n_window_infer": 32,
    "activation_function": "gelu", "scale_embedding": False, "output_dim": 64,
}  # fmt: skip
TEXT_MODEL = {
    "vocab_size": N_BASE + len(ADDED) + 8, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "attention_bias": False,
}  # fmt: skip
N_CLASSES = 50
_HF_NAMES = (
    ("thinker.model.", "model.language_model."),
    ("thinker.audio_tower.proj1.", "model.multi_modal_projector.linear_1."),
    ("thinker.audio_tower.proj2.", "model.multi_modal_projector.linear_2."),
    ("thinker.audio_tower.", "model.audio_tower."),
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights as bfloat16 bits by the original layout's names, and the tokenizer's parts."""

    tensors: dict[str, NDArray[np.uint16]]
    vocab: dict[str, int]
    merges: list[str]
    aligner: bool


def make(*, aligner: bool = False, seed: int = 0) -> Checkpoint:
    """Weights of mixed size, so that a wrong place shows; the recogniser's output matrix is its embedding."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(aligner).items():
        scale = 1.0 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:]))
        values = random.standard_normal(shape) * scale * (0.3 if name.endswith("bias") else 1.0)
        if name.endswith("norm.weight"):
            values = 1.0 + 0.2 * values
        tensors[name] = bf16_bits(values.astype(np.float32))
    if not aligner:
        tensors["thinker.lm_head.weight"] = tensors["thinker.model.embed_tokens.weight"]
    vocab, merges = make_vocabulary()
    return Checkpoint(tensors, vocab, merges, aligner)


def shapes(aligner: bool) -> dict[str, tuple[int, ...]]:
    """All tensors but the recogniser's stored copy of the embedding."""
    a, t = AUDIO, TEXT_MODEL
    d, c = int(a["d_model"]), int(a["downsample_hidden_size"])
    h, m = int(t["hidden_size"]), int(t["intermediate_size"])
    q, kv = (int(t[key]) * int(t["head_dim"]) for key in ("num_attention_heads", "num_key_value_heads"))
    out: dict[str, tuple[int, ...]] = {}
    tower = "thinker.audio_tower."
    for i, n_in in ((1, 1), (2, c), (3, c)):
        out[f"{tower}conv2d{i}.weight"], out[f"{tower}conv2d{i}.bias"] = (c, n_in, 3, 3), (c,)
    out[f"{tower}conv_out.weight"] = (d, c * 2)  # 16 mels, halved three times
    for i in range(int(a["encoder_layers"])):
        layer = f"{tower}layers.{i}."
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            out[f"{layer}{norm}.weight"] = out[f"{layer}{norm}.bias"] = (d,)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out[f"{layer}self_attn.{part}.weight"], out[f"{layer}self_attn.{part}.bias"] = (d, d), (d,)
        n_ff = int(a["encoder_ffn_dim"])
        out[f"{layer}fc1.weight"], out[f"{layer}fc1.bias"] = (n_ff, d), (n_ff,)
        out[f"{layer}fc2.weight"], out[f"{layer}fc2.bias"] = (d, n_ff), (d,)
    out[f"{tower}ln_post.weight"] = out[f"{tower}ln_post.bias"] = (d,)
    out[f"{tower}proj1.weight"], out[f"{tower}proj1.bias"] = (d, d), (d,)
    out[f"{tower}proj2.weight"], out[f"{tower}proj2.bias"] = (h, d), (h,)
    model = "thinker.model."
    out[f"{model}embed_tokens.weight"] = (int(t["vocab_size"]), h)
    for i in range(int(t["num_hidden_layers"])):
        layer = f"{model}layers.{i}."
        out[f"{layer}input_layernorm.weight"] = out[f"{layer}post_attention_layernorm.weight"] = (h,)
        out[f"{layer}self_attn.q_proj.weight"] = (q, h)
        out[f"{layer}self_attn.k_proj.weight"] = out[f"{layer}self_attn.v_proj.weight"] = (kv, h)
        out[f"{layer}self_attn.o_proj.weight"] = (h, q)
        norm = (int(t["head_dim"]),)
        out[f"{layer}self_attn.q_norm.weight"] = out[f"{layer}self_attn.k_norm.weight"] = norm
        out[f"{layer}mlp.gate_proj.weight"] = out[f"{layer}mlp.up_proj.weight"] = (m, h)
        out[f"{layer}mlp.down_proj.weight"] = (h, m)
    out[f"{model}norm.weight"] = (h,)
    if aligner:
        out["thinker.lm_head.weight"] = (N_CLASSES, h)
    return out


def make_vocabulary() -> tuple[dict[str, int], list[str]]:
    """(token -> id, merges): the 256 bytes in Qwen's order and the merges of a BPE trained on TEXT."""
    tokens = sorted(byte_to_char().values())
    stand_in = byte_to_char()
    words = [[stand_in[byte] for byte in f" {word}".encode()] for word in TEXT.split()]
    merges = []
    for _ in range(N_MERGES):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(f"{left} {right}")
        tokens.append(left + right)
        words = [_merged(word, left, right) for word in words]
    return {token: index for index, token in enumerate(tokens)}, merges


def _merged(word: list[str], left: str, right: str) -> list[str]:
    result: list[str] = []
    for part in word:
        if result and part == right and result[-1] == left:
            result[-1] += part
        else:
            result.append(part)
    return result


def added_tokens() -> dict[int, dict[str, Any]]:
    """id -> entry, as tokenizer_config.json has them."""
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {
        N_BASE + i: {"content": text, "special": text.startswith("<|"), **flags}
        for i, text in enumerate(ADDED)
    }


def write_original(folder: Path, made: Checkpoint, shards: int = 1) -> Path:
    """`thinker.*`, thinker_config, vocab.json + merges.txt."""
    folder.mkdir(parents=True)
    thinker: dict[str, Any] = {
        "model_type": "qwen3_forced_aligner" if made.aligner else "qwen3_asr_thinker",
        "audio_config": AUDIO,
        "text_config": {
            **TEXT_MODEL,
            "rope_theta": 1000000,
            "rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [8, 4, 4]},
        },
        "audio_token_id": N_BASE + ADDED.index("<|audio_pad|>"),
    }
    config: dict[str, Any] = {"model_type": "qwen3_asr", "thinker_config": thinker}
    if made.aligner:
        thinker["classify_num"] = N_CLASSES
        config.update(timestamp_token_id=N_BASE + ADDED.index("<timestamp>"), timestamp_segment_time=80)
    _dump(folder / "config.json", config)
    _dump(folder / "vocab.json", made.vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(made.merges) + "\n", encoding="utf-8")
    _dump(folder / "tokenizer_config.json", {"added_tokens_decoder": added_tokens()})
    write_safetensors(folder, made.tensors, shards)
    return folder


def write_hf(folder: Path, made: Checkpoint, shards: int = 1) -> Path:
    """`model.*`, flat config, tokenizer.json; the tied output matrix is left out."""
    folder.mkdir(parents=True)
    kind = "TokenClassification" if made.aligner else "ConditionalGeneration"
    config: dict[str, Any] = {
        "architectures": [f"Qwen3ASRFor{kind}"],
        "model_type": "qwen3_asr",
        "audio_config": {
            **{key: value for key, value in AUDIO.items() if key != "encoder_attention_heads"},
            "num_attention_heads": AUDIO["encoder_attention_heads"],
        },
        "text_config": {
            **TEXT_MODEL,
            "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        },
        "audio_token_id": N_BASE + ADDED.index("<|audio_pad|>"),
        "timestamp_token_id": N_BASE + ADDED.index("<timestamp>"),
    }
    if made.aligner:
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(N_CLASSES)}
    _dump(folder / "config.json", config)
    extractor = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000, "min_length": 8000, "dither": 0.0}
    _dump(folder / "processor_config.json", {"feature_extractor": extractor, "timestamp_segment_time": 80})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False}
    _dump(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "added_tokens": [{"id": token, **entry} for token, entry in added_tokens().items()],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": made.vocab, "merges": [m.split(" ") for m in made.merges]},
        },
    )
    tensors = {_hf_name(name, made.aligner): value for name, value in made.tensors.items()}
    tensors.pop("lm_head.weight", None)
    write_safetensors(folder, tensors, shards)
    return folder


def _hf_name(name: str, aligner: bool) -> str:
    for theirs, hf in _HF_NAMES:
        if name.startswith(theirs):
            return hf + name.removeprefix(theirs)
    return "score.weight" if aligner else "lm_head.weight"


def _dump(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def write_safetensors(folder: Path, tensors: dict[str, NDArray[np.uint16]], shards: int = 1) -> None:
    """model.safetensors, or shards with their index."""
    names = sorted(tensors)
    files = ["model.safetensors"]
    if shards > 1:
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        weight_map = {name: files[i % shards] for i, name in enumerate(names)}
        _dump(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    for i, file in enumerate(files):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for name in names[i :: len(files)]:
            values = tensors[name]
            end = len(data) + values.nbytes
            header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [len(data), end]}
            data += values.astype("<u2").tobytes()
        text = json.dumps(header).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
