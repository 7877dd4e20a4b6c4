"""Qwen3-ASR and Qwen3-ForcedAligner checkpoints -> GGUF.

Two published layouts of the same network, both Hugging Face folders with BF16 safetensors:

    original   thinker.{audio_tower, model, lm_head}, config.json with thinker_config, vocab.json + merges.txt
    -hf        model.{audio_tower, multi_modal_projector, language_model}, lm_head | score, tokenizer.json

Both are renamed to one scheme, checked against the configuration and laid out for the graphs: dense
convolutions as matrices whose rows run over time tap, mel tap, channel (channel fastest), conv_out's inputs
re-ordered to match, query|key|value and gate|up fused. The output head of the recogniser is the embedding
itself and is not written twice; the aligner has a head of its own.

Follows transformers 5.23, models/qwen3_asr (configuration, modeling, convert_qwen3_asr_to_hf.py) and
qwen-asr 0.0.6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr import registry
from rustasr.convert.common import (
    Checkpoint,
    FamilyPlan,
    Field,
    Metadata,
    OutputTensor,
    SourceTensor,
    check_tensors,
)
from rustasr.convert.config import Config
from rustasr.convert.mel import hann_window, slaney_filterbank
from rustasr.convert.qwen3_tokenizer import QwenVocabulary, read_tokenizer, tokenizers_json
from rustasr.convert.sources import Source, read_config
from rustasr.convert.whisper import HOP_LENGTH, N_FFT, SAMPLE_RATE, frontend_metadata
from rustasr.errors import ModelFileError, UnsupportedModelError

ARCHITECTURE = "qwen3_asr"
# Shorter clips are padded with zeros at their end: transformers' feature extractor, `min_length`.
MIN_SAMPLES = 8000
# The languages by the names that the model says: qwen-asr 0.0.6, inference/utils.py SUPPORTED_LANGUAGES, and
# the aligner's, Qwen3-ForcedAligner's model card.
LANGUAGES = (
    "Chinese", "English", "Cantonese", "Arabic", "German", "French", "Spanish", "Portuguese", "Indonesian",
    "Italian", "Korean", "Russian", "Thai", "Vietnamese", "Japanese", "Turkish", "Hindi", "Malay", "Dutch",
    "Swedish", "Danish", "Finnish", "Polish", "Czech", "Filipino", "Persian", "Greek", "Romanian",
    "Hungarian", "Macedonian",
)  # fmt: skip
ALIGNER_LANGUAGES = (
    "Chinese", "English", "Cantonese", "French", "German", "Italian", "Japanese", "Korean", "Portuguese",
    "Russian", "Spanish",
)  # fmt: skip
# metadata name -> token of the vocabulary
_TOKENS = {
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "audio_start": "<|audio_start|>",
    "audio_end": "<|audio_end|>",
    "audio_pad": "<|audio_pad|>",
    "asr_text": "<asr_text>",
    "timestamp": "<timestamp>",
}


@dataclass(frozen=True)
class AudioDims:
    """The audio encoder. `chunk_frames` and `window_frames` count mel frames."""

    n_mels: int
    n_layer: int
    d_model: int
    n_head: int
    d_ff: int
    conv_channels: int
    chunk_frames: int
    window_frames: int

    @property
    def chunk_positions(self) -> int:
        """Vectors of a full chunk: three convolutions of stride 2."""
        return _halved(self.chunk_frames, 3)

    @property
    def conv_mels(self) -> int:
        """Mel rows that are left after the convolutions."""
        return _halved(self.n_mels, 3)


@dataclass(frozen=True)
class TextDims:
    """The language model."""

    n_vocab: int
    n_layer: int
    d_model: int
    n_head: int
    n_kv_head: int
    d_head: int
    d_ff: int
    n_ctx: int


@dataclass(frozen=True)
class Qwen3Source:
    """A checkpoint ready to be laid out, its tensors under this module's names.

    `n_classes` is 0 for the recogniser. `segment_ms` is the aligner's time step.
    """

    where: str
    audio: AudioDims
    text: TextDims
    rope_base: float
    norm_eps: float
    n_classes: int
    segment_ms: int
    languages: tuple[str, ...]
    audio_token_id: int
    timestamp_token_id: int | None
    tensors: Checkpoint

    @property
    def is_aligner(self) -> bool:
        """Whether it gives a class per position instead of the next token."""
        return self.n_classes > 0


def _halved(n: int, times: int) -> int:
    for _ in range(times):
        n = (n - 1) // 2 + 1
    return n


# --- configuration ---


def _audio_dims(config: Config) -> AudioDims:
    config.fixed(activation_function="gelu", scale_embedding=False)
    n_layer = "encoder_layers" if config.has("encoder_layers") else "num_hidden_layers"
    n_head = "encoder_attention_heads" if config.has("encoder_attention_heads") else "num_attention_heads"
    dims = AudioDims(
        n_mels=config.integer("num_mel_bins", 8, 512),
        n_layer=config.integer(n_layer, 1, 256),
        d_model=config.integer("d_model", 8, 1 << 13),
        n_head=config.integer(n_head, 1, 256),
        d_ff=config.integer("encoder_ffn_dim", 1, 1 << 16),
        conv_channels=config.integer("downsample_hidden_size", 1, 1 << 12),
        chunk_frames=2 * config.integer("n_window", 1, 1 << 11),
        window_frames=config.integer("n_window_infer", 1, 1 << 16),
    )
    _multiple(config, "d_model", dims.d_model, 2 * dims.n_head)
    _multiple(config, "n_window_infer", dims.window_frames, dims.chunk_frames)
    return dims


def _text_dims(config: Config) -> TextDims:
    config.fixed(hidden_act="silu", attention_bias=False, use_sliding_window=False)
    dims = TextDims(
        n_vocab=config.integer("vocab_size", 1, 1 << 20),
        n_layer=config.integer("num_hidden_layers", 1, 256),
        d_model=config.integer("hidden_size", 8, 1 << 14),
        n_head=config.integer("num_attention_heads", 1, 256),
        n_kv_head=config.integer("num_key_value_heads", 1, 256),
        d_head=config.integer("head_dim", 8, 256),
        d_ff=config.integer("intermediate_size", 1, 1 << 16),
        n_ctx=config.integer("max_position_embeddings", 1, 1 << 20),
    )
    _multiple(config, "num_attention_heads", dims.n_head, dims.n_kv_head)
    _multiple(config, "head_dim", dims.d_head, 8)
    return dims


def _multiple(config: Config, key: str, value: int, unit: int) -> None:
    if value % unit:
        raise ModelFileError(f"{config.where}: {config.path}.{key} is {value}, expected a multiple of {unit}")


def _rope_base(config: Config) -> float:
    """The rotary base. The three axes of the multimodal positions are always equal here, so that
    mrope_section changes nothing; a scaled rope would."""
    for key in ("rope_scaling", "rope_parameters"):
        if config.has(key):
            config.section(key).fixed(rope_type="default", type="default")
    where = config if config.has("rope_theta") else config.section("rope_parameters")
    return where.number("rope_theta", 1.0, 1e12)


def _languages(config: Config, is_aligner: bool) -> tuple[str, ...]:
    found = config.value("support_languages", None)
    if is_aligner or found is None:
        return ALIGNER_LANGUAGES if is_aligner else LANGUAGES
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
        raise ModelFileError(
            f"{config.where}: 'support_languages' is {found!r:.60}, expected names of languages"
        )
    return tuple(found)


def read_source(source: Source) -> Qwen3Source:
    """The checkpoint of an opened folder, its tensors not checked yet."""
    config, where = source.config, source.where
    config.choice("model_type", ("qwen3_asr",))
    body = config.section("thinker_config") if config.has("thinker_config") else config
    is_aligner = body.value("model_type") == "qwen3_forced_aligner" or config.value(
        "architectures", None
    ) == ["Qwen3ASRForTokenClassification"]
    processor = _processor(source.found.folder)
    if processor.has("feature_extractor"):
        processor.section("feature_extractor").fixed(
            n_fft=N_FFT, hop_length=HOP_LENGTH, sampling_rate=SAMPLE_RATE, dither=0.0, min_length=MIN_SAMPLES
        )
    timestamp: int | None = None
    segment_ms, n_classes = 0, 0
    if is_aligner:
        config.fixed(token_classification_bias=False)
        n_classes = _n_classes(body)
        timestamp = config.integer("timestamp_token_id", 0, 1 << 20)
        timing = config if config.has("timestamp_segment_time") else processor
        segment_ms = timing.integer("timestamp_segment_time", 1, 10_000)
    text = body.section("text_config")
    checkpoint = Qwen3Source(
        where=where,
        audio=_audio_dims(body.section("audio_config")),
        text=_text_dims(text),
        rope_base=_rope_base(text),
        norm_eps=text.number("rms_norm_eps", 1e-12, 1.0),
        n_classes=n_classes,
        segment_ms=segment_ms,
        languages=_languages(config, is_aligner),
        audio_token_id=body.integer("audio_token_id", 0, 1 << 20),
        timestamp_token_id=timestamp,
        tensors=_renamed(source.state, where),
    )
    return checkpoint if is_aligner else _without_tied_head(checkpoint)


def _processor(folder: Path) -> Config:
    """processor_config.json, which the original layout does not have."""
    path = folder / "processor_config.json"
    return Config(read_config(path) if path.is_file() else {}, str(path))


def _n_classes(config: Config) -> int:
    """`classify_num`, `num_labels`, or the labels that transformers writes in its place."""
    if config.has("classify_num"):
        return config.integer("classify_num", 1, 1 << 16)
    labels = config.value("id2label", None)
    if not config.has("num_labels") and isinstance(labels, dict) and labels:
        return len(labels)
    return config.integer("num_labels", 1, 1 << 16)


# --- tensors ---

_PREFIXES = (
    ("thinker.audio_tower.proj1.", "projector.0."),
    ("thinker.audio_tower.proj2.", "projector.2."),
    ("thinker.audio_tower.", "audio_tower."),
    ("thinker.model.", "language_model."),
    ("thinker.lm_head.", "head."),
    ("model.multi_modal_projector.linear_1.", "projector.0."),
    ("model.multi_modal_projector.linear_2.", "projector.2."),
    ("model.audio_tower.", "audio_tower."),
    ("model.language_model.", "language_model."),
    ("lm_head.", "head."),
    ("score.", "head."),
)
_IN_LAYER = {
    "audio_tower": {
        "self_attn_layer_norm": "attn_ln",
        **{f"self_attn.{part}_proj": f"attn.{part}" for part in ("q", "k", "v", "out")},
        "final_layer_norm": "mlp_ln",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
    },
    "language_model": {
        "input_layernorm": "attn_norm",
        **{f"self_attn.{part}_proj": f"attn.{part}" for part in ("q", "k", "v")},
        "self_attn.o_proj": "attn.out",
        "self_attn.q_norm": "attn.q_norm",
        "self_attn.k_norm": "attn.k_norm",
        "post_attention_layernorm": "mlp_norm",
        **{f"mlp.{part}_proj": f"mlp.{part}" for part in ("gate", "up", "down")},
    },
}
_LAYER = re.compile(r"(audio_tower|language_model)\.layers\.(\d{1,4})\.(.+)\.(weight|bias)")
_TOP = {"conv2d1": "conv1", "conv2d2": "conv2", "conv2d3": "conv3", "embed_tokens": "token_embedding"}


def _renamed(found: Checkpoint, where: str) -> Checkpoint:
    """The same tensors under this module's names (the output's, before fusing)."""
    result: Checkpoint = {}
    for name, tensor in found.items():
        new = _our_name(name, where)
        if new in result:
            raise ModelFileError(f"{where}: tensor {name!r} is there in both layouts")
        result[new] = tensor
    return result


def _our_name(name: str, where: str) -> str:
    prefixes = ((ours, name.removeprefix(theirs)) for theirs, ours in _PREFIXES if name.startswith(theirs))
    ours, rest = next(prefixes, ("", name))
    if not ours:
        raise ModelFileError(f"{where}: unexpected tensor {name!r:.100}")
    stem, _, kind = rest.rpartition(".")
    if stem in _TOP:
        return f"{ours}{_TOP[stem]}.{kind}"
    match = _LAYER.fullmatch(ours + rest)
    if match is None or match[3] not in _IN_LAYER[match[1]]:
        return ours + rest
    return f"{match[1]}.blocks.{int(match[2])}.{_IN_LAYER[match[1]][match[3]]}.{match[4]}"


def _without_tied_head(source: Qwen3Source) -> Qwen3Source:
    """The recogniser's output matrix is its embedding; a stored copy must be equal to it."""
    tensors = dict(source.tensors)
    head, embedding = tensors.pop("head.weight", None), tensors.get("language_model.token_embedding.weight")
    if head is not None and (embedding is None or not _equal(head, embedding)):
        raise UnsupportedModelError(
            f"{source.where}: lm_head differs from the token embedding, expected them tied"
        )
    return replace(source, tensors=tensors)


def _equal(left: SourceTensor, right: SourceTensor, step: int = 4096) -> bool:
    """Compared a few rows at a time: an embedding in float32 is a gigabyte."""
    if left.shape != right.shape:
        return False
    rows = (slice(start, start + step) for start in range(0, left.shape[0], step))
    return all(np.array_equal(left.read(part), right.read(part)) for part in rows)


def expected_tensors(source: Qwen3Source) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint with its row-major shape, under this module's names."""
    a, t = source.audio, source.text
    shapes = dict[str, tuple[int, ...]]()

    def affine(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    c = a.conv_channels
    affine("audio_tower.conv1", c, 1, 3, 3)
    affine("audio_tower.conv2", c, c, 3, 3)
    affine("audio_tower.conv3", c, c, 3, 3)
    shapes["audio_tower.conv_out.weight"] = (a.d_model, c * a.conv_mels)
    for layer in range(a.n_layer):
        block = f"audio_tower.blocks.{layer}"
        affine(f"{block}.attn_ln", a.d_model)
        for part in ("q", "k", "v", "out"):
            affine(f"{block}.attn.{part}", a.d_model, a.d_model)
        affine(f"{block}.mlp_ln", a.d_model)
        affine(f"{block}.mlp.0", a.d_ff, a.d_model)
        affine(f"{block}.mlp.2", a.d_model, a.d_ff)
    affine("audio_tower.ln_post", a.d_model)
    affine("projector.0", a.d_model, a.d_model)
    affine("projector.2", t.d_model, a.d_model)

    n_query, n_kv = t.n_head * t.d_head, t.n_kv_head * t.d_head
    shapes["language_model.token_embedding.weight"] = (t.n_vocab, t.d_model)
    for layer in range(t.n_layer):
        block = f"language_model.blocks.{layer}"
        shapes[f"{block}.attn_norm.weight"] = (t.d_model,)
        shapes[f"{block}.attn.q.weight"] = (n_query, t.d_model)
        shapes[f"{block}.attn.k.weight"] = shapes[f"{block}.attn.v.weight"] = (n_kv, t.d_model)
        shapes[f"{block}.attn.q_norm.weight"] = shapes[f"{block}.attn.k_norm.weight"] = (t.d_head,)
        shapes[f"{block}.attn.out.weight"] = (t.d_model, n_query)
        shapes[f"{block}.mlp_norm.weight"] = (t.d_model,)
        shapes[f"{block}.mlp.gate.weight"] = shapes[f"{block}.mlp.up.weight"] = (t.d_ff, t.d_model)
        shapes[f"{block}.mlp.down.weight"] = (t.d_model, t.d_ff)
    shapes["language_model.norm.weight"] = (t.d_model,)
    if source.is_aligner:
        shapes["head.weight"] = (source.n_classes, t.d_model)
    return shapes


def output_tensors(source: Qwen3Source) -> list[OutputTensor]:
    """The GGUF's tensors in file order, after checking the checkpoint's against the configuration."""
    expected = expected_tensors(source)
    check_tensors(source.tensors, expected, source.where)
    audio = source.audio
    plan = [
        OutputTensor("frontend.window", (N_FFT,), lambda: hann_window(N_FFT)),
        OutputTensor(
            "frontend.mel_filters",
            (audio.n_mels, N_FFT // 2 + 1),
            lambda: slaney_filterbank(audio.n_mels, N_FFT, SAMPLE_RATE),
        ),
        OutputTensor(
            "audio_tower.positional_embedding",
            (audio.chunk_positions, audio.d_model),
            lambda: sinusoids(audio.chunk_positions, audio.d_model),
        ),
    ]
    for name in expected:
        plan.extend(_outputs_of(name, source.tensors, audio))
    return plan


def sinusoids(n_positions: int, d: int) -> NDArray[np.float32]:
    """[n_positions, d]: sines, then cosines, of d/2 frequencies from 1 down to 1/10000.

    Follows SinusoidsPositionEmbedding of the official code, which computes in float32.
    """
    step = np.float32(np.log(10000.0) / (d // 2 - 1))
    inverse = np.exp(-step * np.arange(d // 2, dtype=np.float32))
    angles = np.arange(n_positions, dtype=np.float32)[:, None] * inverse[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


_FUSED = {"q": ("qkv", ("q", "k", "v")), "gate": ("gate_up", ("gate", "up"))}


def _outputs_of(name: str, tensors: Checkpoint, audio: AudioDims) -> list[OutputTensor]:
    """What a source tensor becomes; a fused group is made where its first member stands."""
    stem, _, kind = name.rpartition(".")
    base, _, part = stem.rpartition(".")
    tensor = tensors[name]
    if kind == "weight" and stem == "audio_tower.conv1":
        # Nine inputs per output: no matrix that could be quantised.
        kernel = f"{stem}.kernel"
        return [_output(kernel, (3, 3, tensor.shape[0]), lambda: _taps_first(tensor.read())[:, :, 0], tensor)]
    if kind == "weight" and stem in ("audio_tower.conv2", "audio_tower.conv3"):
        n_out, n_in = tensor.shape[:2]
        return [_output(name, (n_out, 9 * n_in), lambda: _conv_rows(tensor.read()), tensor)]
    if stem == "audio_tower.conv_out":
        return [_output(name, tensor.shape, lambda: _channel_fastest(tensor.read(), audio), tensor)]
    if base.endswith((".attn", ".mlp")) and part in ("k", "v", "up"):
        return []
    if base.endswith((".attn", ".mlp")) and part in _FUSED:
        fused, parts = _FUSED[part]
        return [_fused(f"{base}.{fused}.{kind}", [tensors[f"{base}.{p}.{kind}"] for p in parts])]
    return [_output(name, tensor.shape, lambda: tensor.read(), tensor)]


def _output(name: str, shape: tuple[int, ...], build: Any, tensor: SourceTensor) -> OutputTensor:
    return OutputTensor(name, shape, build, tensor.dtype)


def _taps_first(weight: NDArray[Any]) -> NDArray[Any]:
    """[out, in, mel tap, time tap] -> [time tap, mel tap, in, out]"""
    return np.ascontiguousarray(weight.transpose(3, 2, 1, 0))


def _conv_rows(weight: NDArray[Any]) -> NDArray[Any]:
    """[out, in, mel tap, time tap] -> [out, 9 * in]: time taps, in each mel taps, in each channels."""
    return np.ascontiguousarray(weight.transpose(0, 3, 2, 1)).reshape(weight.shape[0], -1)


def _channel_fastest(weight: NDArray[Any], audio: AudioDims) -> NDArray[Any]:
    """Columns c * n_mels + f -> f * n_channels + c"""
    cube = weight.reshape(weight.shape[0], audio.conv_channels, audio.conv_mels)
    return np.ascontiguousarray(cube.transpose(0, 2, 1)).reshape(weight.shape)


def _fused(name: str, parts: Sequence[SourceTensor]) -> OutputTensor:
    rows = sum(part.shape[0] for part in parts)
    return OutputTensor(
        name,
        (rows, *parts[0].shape[1:]),
        lambda: np.concatenate([part.read() for part in parts]),
        parts[0].dtype,
    )


# --- metadata ---


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a Qwen3-ASR or Qwen3-ForcedAligner checkpoint."""
    checkpoint = read_source(source)
    tensors = output_tensors(checkpoint)
    if tokenizer is not None and not tokenizer.exists():
        raise ModelFileError(f"tokenizer {tokenizer}: no such file or folder")
    vocabulary = read_tokenizer(tokenizer or source.found.folder)
    fields = metadata(checkpoint, vocabulary)
    return FamilyPlan(ARCHITECTURE, tensors, fields, _release(source, checkpoint), vocabulary.warnings)


def metadata(source: Qwen3Source, vocabulary: QwenVocabulary) -> Metadata:
    """The keys of the file that are the family's own."""
    tokens = _token_ids(source, vocabulary)
    result: Metadata = {
        **frontend_metadata(source.audio.n_mels),
        "tokenizer.huggingface.json": Field("str", tokenizers_json(vocabulary)),
        "qwen3_asr.task": Field("str", "align" if source.is_aligner else "transcribe"),
        "qwen3_asr.languages": Field("arr_str", list(source.languages)),
        "qwen3_asr.min_samples": Field("u32", MIN_SAMPLES),
        "qwen3_asr.text.rope_base": Field("f32", source.rope_base),
        "qwen3_asr.text.norm_eps": Field("f32", source.norm_eps),
        "qwen3_asr.stop_tokens": Field("arr_i32", [tokens["im_end"], tokens["endoftext"]]),
    }
    for part, dims in (("audio", source.audio), ("text", source.text)):
        for entry in fields(dims):
            if entry.name != "n_mels":
                result[f"qwen3_asr.{part}.{entry.name}"] = Field("u32", getattr(dims, entry.name))
    for name, token in tokens.items():
        result[f"qwen3_asr.token.{name}"] = Field("u32", token)
    if source.is_aligner:
        result["qwen3_asr.n_classes"] = Field("u32", source.n_classes)
        result["qwen3_asr.segment_ms"] = Field("u32", source.segment_ms)
    return result


def _token_ids(source: Qwen3Source, vocabulary: QwenVocabulary) -> dict[str, int]:
    """The ids that prompts need; the tokenizer's and the configuration's must agree."""
    tokens = {name: vocabulary.need(content) for name, content in _TOKENS.items()}
    for key, name, expected in (
        ("audio_token_id", "audio_pad", source.audio_token_id),
        ("timestamp_token_id", "timestamp", source.timestamp_token_id),
    ):
        if expected is not None and tokens[name] != expected:
            raise ModelFileError(
                f"{source.where}: {key} is {expected}, but {vocabulary.where} gives {_TOKENS[name]} the id "
                f"{tokens[name]}: they do not belong together"
            )
    highest = max(token.id for token in vocabulary.added)
    if highest >= source.text.n_vocab:
        raise ModelFileError(
            f"{vocabulary.where}: token id {highest} is beyond the {source.text.n_vocab} rows of the "
            f"embedding of {source.where}: they do not belong together"
        )
    return tokens


def _release(source: Source, checkpoint: Qwen3Source) -> str | None:
    """The registry name of a published model: the repository is called so and has its size."""
    short = source.found.label.lower().rpartition("/")[2].removesuffix("-hf")
    row = registry.find(short)
    parameters = sum(math.prod(shape) for shape in expected_tensors(checkpoint).values())
    return row.name if row is not None and row.parameters == parameters else None
