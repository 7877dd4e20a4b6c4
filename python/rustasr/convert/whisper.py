"""Whisper checkpoints -> GGUF.

A reader gives the checkpoint under openai-whisper's tensor names (model.py):

    encoder.conv{1,2}
    encoder.blocks.i.{attn_ln, attn.{query,key,value,out}, mlp_ln, mlp.0, mlp.2}   encoder.ln_post
    decoder.token_embedding
    decoder.blocks.i.{... cross_attn_ln, cross_attn.{query,key,value,out} ...}     decoder.ln

and this module checks it against the dimensions and lays it out for the graphs: convolutions as matrices
[d, 3*n_in] with tap-major rows, query|key|value fused (the keys' absent bias becomes zeros), the
cross-attention's key|value fused, and the front end's window and filterbank beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Checkpoint, Field, Metadata, OutputTensor, check_tensors
from rustasr.convert.mel import hann_window, slaney_filterbank
from rustasr.convert.whisper_tables import Heads, candidates, last_half_heads
from rustasr.convert.whisper_tokenizer import WhisperVocabulary, suppressed_tokens, tokenizers_json
from rustasr.errors import ModelFileError

N_FFT = 400
HOP_LENGTH = 160
SAMPLE_RATE = 16000
FIRST_MULTILINGUAL_VOCAB = 51865  # openai-whisper, model.py: is_multilingual


@dataclass(frozen=True)
class WhisperDims:
    """The ten numbers of openai-whisper's ModelDimensions."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def check(self, where: str) -> None:
        """Sizes that a Whisper can have; a ModelFileError names the one that is out of range."""
        limits = {
            "n_mels": (1, 512), "n_audio_ctx": (1, 1 << 14), "n_audio_state": (8, 1 << 14),
            "n_audio_head": (1, 256), "n_audio_layer": (1, 256), "n_vocab": (1, 1 << 20),
            "n_text_ctx": (1, 1 << 14), "n_text_state": (8, 1 << 14), "n_text_head": (1, 256),
            "n_text_layer": (1, 256),
        }  # fmt: skip
        for entry in fields(self):
            value, (low, high) = getattr(self, entry.name), limits[entry.name]
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ModelFileError(
                    f"{where}: {entry.name} is {value!r}, expected a whole number {low} to {high}"
                )
        if self.n_audio_state != self.n_text_state:
            raise ModelFileError(
                f"{where}: encoder width {self.n_audio_state} differs from {self.n_text_state}"
            )
        for state, head in (("n_audio_state", "n_audio_head"), ("n_text_state", "n_text_head")):
            if getattr(self, state) % getattr(self, head):
                raise ModelFileError(f"{where}: {state} {getattr(self, state)} is no multiple of {head}")


@dataclass(frozen=True)
class WhisperSource:
    """A checkpoint ready to be laid out. `alignment_heads` is None when the source does not give them."""

    where: str
    dims: WhisperDims
    tensors: Checkpoint
    alignment_heads: Heads | None
    label: str  # repository, folder or file name
    tokens: tuple[bytes, ...] = ()  # base tokens in rank order, when the file itself holds them


def dims_from_shapes(tensors: Checkpoint, audio_heads: int, text_heads: int, where: str) -> WhisperDims:
    """Dimensions of a checkpoint that stores only weights and head counts."""

    def extent(name: str, axis: int, rank: int) -> int:
        if name not in tensors:
            raise ModelFileError(f"{where}: tensor {name!r} is missing")
        if len(tensors[name].shape) != rank:
            raise ModelFileError(
                f"{where}: {name!r} has shape {list(tensors[name].shape)}, expected {rank} axes"
            )
        return tensors[name].shape[axis]

    def layers(side: str) -> int:
        numbers = {name.split(".")[2] for name in tensors if name.startswith(f"{side}.blocks.")}
        return len(numbers)

    dims = WhisperDims(
        n_mels=extent("encoder.conv1.weight", 1, 3),
        n_audio_ctx=extent("encoder.positional_embedding", 0, 2),
        n_audio_state=extent("encoder.positional_embedding", 1, 2),
        n_audio_head=audio_heads,
        n_audio_layer=layers("encoder"),
        n_vocab=extent("decoder.token_embedding.weight", 0, 2),
        n_text_ctx=extent("decoder.positional_embedding", 0, 2),
        n_text_state=extent("decoder.positional_embedding", 1, 2),
        n_text_head=text_heads,
        n_text_layer=layers("decoder"),
    )
    dims.check(where)
    return dims


def expected_tensors(dims: WhisperDims) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint with its row-major shape, under openai-whisper's names."""
    d, shapes = dims.n_audio_state, dict[str, tuple[int, ...]]()

    def affine(name: str, n_out: int, n_in: int | None = None, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (n_out,) if n_in is None else (n_out, n_in)
        if bias:
            shapes[f"{name}.bias"] = (n_out,)

    def attention(name: str) -> None:
        for part in ("query", "key", "value", "out"):
            affine(f"{name}.{part}", d, d, bias=part != "key")

    def block(name: str, cross: bool) -> None:
        affine(f"{name}.attn_ln", d)
        attention(f"{name}.attn")
        if cross:
            affine(f"{name}.cross_attn_ln", d)
            attention(f"{name}.cross_attn")
        affine(f"{name}.mlp_ln", d)
        affine(f"{name}.mlp.0", 4 * d, d)
        affine(f"{name}.mlp.2", d, 4 * d)

    shapes["encoder.conv1.weight"], shapes["encoder.conv1.bias"] = (d, dims.n_mels, 3), (d,)
    shapes["encoder.conv2.weight"], shapes["encoder.conv2.bias"] = (d, d, 3), (d,)
    shapes["encoder.positional_embedding"] = (dims.n_audio_ctx, d)
    for layer in range(dims.n_audio_layer):
        block(f"encoder.blocks.{layer}", cross=False)
    affine("encoder.ln_post", d)
    shapes["decoder.token_embedding.weight"] = (dims.n_vocab, d)
    shapes["decoder.positional_embedding"] = (dims.n_text_ctx, d)
    for layer in range(dims.n_text_layer):
        block(f"decoder.blocks.{layer}", cross=True)
    affine("decoder.ln", d)
    return shapes


def output_tensors(source: WhisperSource) -> list[OutputTensor]:
    """The GGUF's tensors in file order, after checking the checkpoint's against the dimensions."""
    expected = expected_tensors(source.dims)
    check_tensors(source.tensors, expected, source.where)
    dims = source.dims
    plan = [
        OutputTensor("frontend.window", (N_FFT,), lambda: hann_window(N_FFT)),
        OutputTensor(
            "frontend.mel_filters",
            (dims.n_mels, N_FFT // 2 + 1),
            lambda: slaney_filterbank(dims.n_mels, N_FFT, SAMPLE_RATE),
        ),
    ]
    for name in expected:
        plan.extend(_outputs_of(name, source.tensors, expected[name]))
    return plan


def _outputs_of(name: str, tensors: Checkpoint, shape: tuple[int, ...]) -> list[OutputTensor]:
    """What a source tensor becomes; a fused group is made where its first member stands."""
    stem, _, kind = name.rpartition(".")
    dtype = tensors[name].dtype
    if stem in ("encoder.conv1", "encoder.conv2") and kind == "weight":
        n_out, n_in, taps = shape
        return [OutputTensor(name, (n_out, taps * n_in), lambda: _tap_major(tensors[name].read()), dtype)]
    base, _, part = stem.rpartition(".")
    if base.endswith(".attn") and part in ("query", "key", "value"):
        if part != "query":
            return []
        return [_fused(f"{base}.qkv", base, ("query", "key", "value"), kind, tensors, shape)]
    if base.endswith(".cross_attn") and part in ("key", "value"):
        if part == "value":
            # The bias exists for the values only, so the group is made here for both kinds.
            return [_fused(f"{base}.kv", base, ("key", "value"), kind, tensors, shape)]
        return []
    return [OutputTensor(name, shape, lambda: tensors[name].read(), dtype)]


def _tap_major(weight: NDArray[Any]) -> NDArray[Any]:
    """[n_out, n_in, taps] -> [n_out, taps * n_in]"""
    return np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(weight.shape[0], -1)


def _fused(
    name: str, base: str, parts: Sequence[str], kind: str, tensors: Checkpoint, shape: tuple[int, ...]
) -> OutputTensor:
    def build() -> NDArray[Any]:
        found = [tensors.get(f"{base}.{part}.{kind}") for part in parts]
        arrays = [np.zeros(shape, np.float32) if tensor is None else tensor.read() for tensor in found]
        return np.concatenate(arrays)

    dtype = tensors[f"{base}.{parts[-1]}.{kind}"].dtype
    return OutputTensor(f"{name}.{kind}", (len(parts) * shape[0], *shape[1:]), build, dtype)


def alignment_heads(source: WhisperSource) -> tuple[Heads, list[str]]:
    """(heads for word times, warnings): the source's own, else those of the release with its dimensions.

    large-v1 and large-v2 have the same dimensions; there the file or folder name decides.
    """
    dims = source.dims
    if source.alignment_heads is not None:
        _check_heads(source.alignment_heads, dims, source.where)
        return source.alignment_heads, []
    rows = list(
        candidates(dims.n_audio_state, dims.n_audio_layer, dims.n_text_layer, dims.n_mels, dims.n_vocab)
    )
    if len(rows) > 1:
        label = source.label.lower().replace("_", "-")
        rows = [row for row in rows if row.name.removeprefix("whisper-") in label]
    if len(rows) == 1:
        return rows[0].alignment_heads, []
    warning = "alignment heads unknown: word times use all heads of the last half of the decoder"
    return last_half_heads(dims.n_text_layer, dims.n_text_head), [warning]


def _check_heads(heads: Heads, dims: WhisperDims, where: str) -> None:
    for layer, head in heads:
        if not (0 <= layer < dims.n_text_layer and 0 <= head < dims.n_text_head):
            raise ModelFileError(
                f"{where}: alignment head ({layer}, {head}) is outside {dims.n_text_layer} layers "
                f"of {dims.n_text_head} heads"
            )


def parse_heads(value: Any, where: str) -> Heads | None:
    """`[[layer, head], ...]` from a config; None when absent."""
    if value is None:
        return None
    pairs = value if isinstance(value, list) else [value]
    for pair in pairs:
        good = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
        if not good:
            raise ModelFileError(f"{where}: alignment_heads holds {pair!r:.60}, expected [layer, head]")
    return tuple((pair[0], pair[1]) for pair in pairs) or None


def is_multilingual(dims: WhisperDims, vocabulary: WhisperVocabulary) -> bool:
    """openai-whisper's rule by vocabulary size; a smaller vocabulary says it by having languages."""
    if dims.n_vocab >= FIRST_MULTILINGUAL_VOCAB - 1:
        return dims.n_vocab >= FIRST_MULTILINGUAL_VOCAB
    return bool(vocabulary.languages)


def metadata(source: WhisperSource, vocabulary: WhisperVocabulary) -> tuple[Metadata, list[str]]:
    """(the family's keys, warnings)."""
    dims, special = source.dims, vocabulary.special
    if vocabulary.n_vocab != dims.n_vocab:
        raise ModelFileError(
            f"{vocabulary.where}: the tokenizer makes {vocabulary.n_vocab} ids, the token embedding of "
            f"{source.where} has {dims.n_vocab} rows: they do not belong together"
        )
    heads, warnings = alignment_heads(source)
    tokenizer = tokenizers_json(vocabulary)
    suppress, begin_suppress = suppressed_tokens(tokenizer, special)
    multilingual = is_multilingual(dims, vocabulary)
    result: Metadata = {
        **frontend_metadata(dims.n_mels),
        "tokenizer.huggingface.json": Field("str", tokenizer),
    }
    for entry in fields(dims):
        if entry.name != "n_mels":
            result[f"whisper.{entry.name}"] = Field("u32", getattr(dims, entry.name))
    result["whisper.multilingual"] = Field("bool", multilingual)
    result["whisper.languages"] = Field("arr_str", list(vocabulary.languages) if multilingual else [])
    for token in fields(special):
        result[f"whisper.token.{token.name}"] = Field("u32", getattr(special, token.name))
    result["whisper.suppress_tokens"] = Field("arr_i32", suppress)
    result["whisper.begin_suppress_tokens"] = Field("arr_i32", begin_suppress)
    result["whisper.alignment_heads"] = Field("arr_i32", [number for pair in heads for number in pair])
    return result, warnings


def frontend_metadata(n_mels: int) -> Metadata:
    """openai-whisper's audio.py as numbers."""
    return {
        "frontend.sample_rate": Field("u32", SAMPLE_RATE),
        "frontend.n_fft": Field("u32", N_FFT),
        "frontend.hop_length": Field("u32", HOP_LENGTH),
        "frontend.n_mels": Field("u32", n_mels),
        "frontend.center": Field("bool", True),
        "frontend.pad_mode": Field("str", "reflect"),
        "frontend.preemphasis": Field("f32", 0.0),
        "frontend.log": Field("str", "log10"),
        "frontend.floor": Field("f32", 1e-10),
        "frontend.floor_mode": Field("str", "clamp"),
        "frontend.normalize": Field("str", "whisper"),
        "frontend.drop_last_frame": Field("bool", True),
    }
