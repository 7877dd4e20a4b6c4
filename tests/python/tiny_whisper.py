"""A random Whisper, small enough to be made in a moment, with a real (small) byte-level BPE tokenizer.

`make_checkpoint` gives weights and vocabulary under openai-whisper's names; `write_hugging_face` saves them
the way transformers does. The other formats are in whisper_writers.py. As a script:

    python tests/python/tiny_whisper.py FOLDER [--english]
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.whisper import WhisperDims, expected_tensors
from rustasr.convert.whisper_tokenizer import N_TIMESTAMPS, WhisperVocabulary, tokenizers_json

TEXT = (
    "And so my fellow Americans ask not what your country can do for you ask what you can do for your "
    "country. The quick brown fox jumps over the lazy dog, and the dog sleeps on. Привет, как дела? Всё "
    "хорошо, спасибо."
)
N_MERGES = 60
DIMS = WhisperDims(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=128,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=0,  # follows from the vocabulary
    n_text_ctx=448,
    n_text_state=128,
    n_text_head=2,
    n_text_layer=2,
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights by openai-whisper's names (float16 or float32), dimensions and vocabulary."""

    dims: WhisperDims
    tensors: dict[str, NDArray[Any]]
    vocabulary: WhisperVocabulary


def make_vocabulary(languages: tuple[str, ...] = ("en", "zh", "de")) -> WhisperVocabulary:
    """256 bytes and the merges of a BPE trained on TEXT; multilingual ones have the empty token too."""
    tokens = [bytes([byte]) for byte in range(256)]
    words = [[bytes([byte]) for byte in f" {word}".encode()] for word in TEXT.split()]
    for _ in range(N_MERGES):
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        tokens.append(best[0] + best[1])
        words = [_merged(word, best) for word in words]
    if languages:
        tokens.append(b"")
    return WhisperVocabulary(tuple(tokens), languages, "tiny_whisper")


def _merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    result: list[bytes] = []
    index = 0
    while index < len(word):
        whole = tuple(word[index : index + 2]) == pair
        result.append(word[index] + word[index + 1] if whole else word[index])
        index += 2 if whole else 1
    return result


def make_checkpoint(
    *, multilingual: bool = True, seed: int = 0, dtype: str = "f4", dims: WhisperDims = DIMS
) -> Checkpoint:
    """Random weights: matrices of unit gain, norms near one, everything else small."""
    vocabulary = make_vocabulary() if multilingual else make_vocabulary(())
    dims = replace(dims, n_vocab=vocabulary.n_vocab)
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_tensors(dims).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            values = 0.1 * values + (1.0 if "ln" in name.split(".")[-2] and name.endswith("weight") else 0.0)
        else:
            values /= np.sqrt(np.prod(shape[1:], dtype=np.float32))
        tensors[name] = values.astype(dtype)
    return Checkpoint(dims, tensors, vocabulary)


def alignment_heads(dims: WhisperDims) -> list[list[int]]:
    """All heads of the last half of the decoder, as an unknown model gets them."""
    layers = range(dims.n_text_layer // 2, dims.n_text_layer)
    return [[layer, head] for layer in layers for head in range(dims.n_text_head)]


def hugging_face_name(name: str) -> str:
    """openai-whisper's tensor name -> transformers'."""
    if name.endswith("positional_embedding"):
        return f"model.{name.split('.')[0]}.embed_positions.weight"
    for ours, theirs in (
        (".ln_post.", ".layer_norm."), ("decoder.ln.", "decoder.layer_norm."), (".blocks.", ".layers."),
        ("token_embedding", "embed_tokens"), (".cross_attn_ln.", ".encoder_attn_layer_norm."),
        (".attn_ln.", ".self_attn_layer_norm."), (".mlp_ln.", ".final_layer_norm."), (".mlp.0.", ".fc1."),
        (".mlp.2.", ".fc2."), (".cross_attn.", ".encoder_attn."), (".attn.", ".self_attn."),
        (".query.", ".q_proj."), (".key.", ".k_proj."), (".value.", ".v_proj."), (".out.", ".out_proj."),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return f"model.{name}"


def hugging_face_config(dims: WhisperDims) -> dict[str, Any]:
    """config.json of these dimensions."""
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "max_target_positions": dims.n_text_ctx,
        "d_model": dims.n_audio_state,
        "encoder_layers": dims.n_audio_layer,
        "encoder_attention_heads": dims.n_audio_head,
        "decoder_layers": dims.n_text_layer,
        "decoder_attention_heads": dims.n_text_head,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
        "vocab_size": dims.n_vocab,
        "activation_function": "gelu",
        "scale_embedding": False,
    }


def write_hugging_face(folder: Path, checkpoint: Checkpoint, *, shards: int = 1) -> Path:
    """config.json, generation_config.json, safetensors (one or more shards) and tokenizer.json."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        hugging_face_name(name): np.ascontiguousarray(data) for name, data in checkpoint.tensors.items()
    }
    (folder / "config.json").write_text(json.dumps(hugging_face_config(checkpoint.dims)))
    (folder / "generation_config.json").write_text(
        json.dumps({"alignment_heads": alignment_heads(checkpoint.dims)})
    )
    (folder / "tokenizer.json").write_text(tokenizers_json(checkpoint.vocabulary), encoding="utf-8")
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    weight_map = {name: files[index % shards] for index, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name, where in weight_map.items() if where == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


if __name__ == "__main__":
    made = make_checkpoint(multilingual="--english" not in sys.argv)
    write_hugging_face(Path(sys.argv[1]), made)
    print(f"{sys.argv[1]}: {made.dims}, {N_TIMESTAMPS} timestamps")
