"""Hugging Face Whisper folders: config.json and generation_config.json -> dimensions, names -> openai's."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from rustasr.convert.common import Checkpoint
from rustasr.convert.whisper import WhisperDims
from rustasr.errors import ModelFileError, UnsupportedModelError

_DIMS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
_TOP = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
    "decoder.embed_tokens": "decoder.token_embedding",
}
_POSITIONS = {
    "encoder.embed_positions.weight": "encoder.positional_embedding",
    "decoder.embed_positions.weight": "decoder.positional_embedding",
}
_IN_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    **{
        f"{theirs}.{short}_proj": f"{ours}.{long}"
        for theirs, ours in (("self_attn", "attn"), ("encoder_attn", "cross_attn"))
        for short, long in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out"))
    },
}
_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d{1,4})\.(.+)\.(weight|bias)")
_OUTPUT = "proj_out.weight"


def whisper_dims(config: dict[str, Any], where: str) -> WhisperDims:
    """Dimensions from config.json; what this network does not do is an UnsupportedModelError."""
    if config.get("model_type") != "whisper":
        raise UnsupportedModelError(
            f"{where}: model_type is {config.get('model_type')!r}, expected 'whisper'"
        )
    missing = [key for key in _DIMS.values() if key not in config]
    if missing:
        raise ModelFileError(f"{where}: {missing[0]!r} is missing")
    dims = WhisperDims(**{ours: config[theirs] for ours, theirs in _DIMS.items()})
    dims.check(where)
    fixed = {
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "encoder_ffn_dim": 4 * dims.n_audio_state,
        "decoder_ffn_dim": 4 * dims.n_text_state,
    }
    for key, expected in fixed.items():
        if config.get(key, expected) != expected:
            raise UnsupportedModelError(
                f"{where}: {key} is {config[key]!r}, only {expected!r} is implemented"
            )
    return dims


def whisper_tensors(found: Checkpoint, where: str) -> Checkpoint:
    """The same tensors under openai-whisper's names; a stored output projection must be the tied one."""
    names = {name.removeprefix("model."): name for name in found}
    if len(names) != len(found):
        raise ModelFileError(f"{where}: a tensor is there with and without the prefix 'model.'")
    if _OUTPUT in names:
        _check_tied(found, names, where)
    return {_openai_name(name, where): found[full] for name, full in names.items() if name != _OUTPUT}


def _openai_name(name: str, where: str) -> str:
    if name in _POSITIONS:
        return _POSITIONS[name]
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    match = _LAYER.fullmatch(name)
    if match is None or match[3] not in _IN_LAYER:
        raise ModelFileError(f"{where}: unexpected tensor {name!r}")
    return f"{match[1]}.blocks.{int(match[2])}.{_IN_LAYER[match[3]]}.{match[4]}"


def _check_tied(found: Checkpoint, names: dict[str, str], where: str) -> None:
    embedding = names.get("decoder.embed_tokens.weight")
    output = found[names[_OUTPUT]]
    if embedding is None or output.shape != found[embedding].shape:
        raise UnsupportedModelError(
            f"{where}: {_OUTPUT} is not the token embedding; an untied one is not supported"
        )
    if not np.array_equal(output.read(), found[embedding].read()):
        raise UnsupportedModelError(
            f"{where}: {_OUTPUT} differs from the token embedding, expected them tied"
        )
