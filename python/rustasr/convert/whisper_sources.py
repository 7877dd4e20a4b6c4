"""A Whisper checkpoint of any format under openai-whisper's names, and which release it is."""

from __future__ import annotations

import re
from pathlib import Path

from rustasr.convert import ctranslate2, huggingface, whisper, whispercpp
from rustasr.convert.common import FamilyPlan, shown
from rustasr.convert.sources import Source, read_config
from rustasr.convert.tokenizers_nearby import find_vocabulary
from rustasr.convert.whisper import WhisperDims, WhisperSource, dims_from_shapes, parse_heads
from rustasr.errors import ModelFileError


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a Whisper checkpoint."""
    checkpoint = open_whisper(source)
    tensors = whisper.output_tensors(checkpoint)
    vocabulary = find_vocabulary(source.found, checkpoint, tokenizer)
    fields, warnings = whisper.metadata(checkpoint, vocabulary)
    return FamilyPlan("whisper", tensors, fields, release_name(source.found.label), tuple(warnings))


def open_whisper(source: Source) -> WhisperSource:
    """The checkpoint; the weights stay on disk until they are written."""
    if isinstance(source.model, ctranslate2.ModelBin):
        return _from_ctranslate2(source, source.model)
    if isinstance(source.model, whispercpp.GgmlBin):
        model = source.model
        return WhisperSource(
            source.where, model.dims, model.tensors, None, source.found.label, tuple(model.tokens)
        )
    return _from_openai(source) if "dims" in source.config.data else _from_hugging_face(source)


def _from_ctranslate2(source: Source, model: ctranslate2.ModelBin) -> WhisperSource:
    tensors = ctranslate2.whisper_tensors(model)
    dims = dims_from_shapes(tensors, *ctranslate2.head_counts(model, tensors), source.where)
    path = source.found.folder / "config.json"
    config = read_config(path) if path.is_file() else {}
    alignment = parse_heads(config.get("alignment_heads"), str(path))
    return WhisperSource(source.where, dims, tensors, alignment, source.found.label)


def _from_openai(source: Source) -> WhisperSource:
    dims = source.config.data["dims"]
    names = list(WhisperDims.__dataclass_fields__)
    if not isinstance(dims, dict) or sorted(map(str, dims)) != sorted(names):
        raise ModelFileError(f"{source.where}: 'dims' is {shown(dims)}, expected {', '.join(names)}")
    checked = WhisperDims(**dims)
    checked.check(source.where)
    return WhisperSource(source.where, checked, source.state, None, source.found.label)


def _from_hugging_face(source: Source) -> WhisperSource:
    folder, where = source.found.folder, str(source.found.path)
    dims = huggingface.whisper_dims(source.config.data, source.config.where)
    generation = folder / "generation_config.json"
    config = read_config(generation) if generation.is_file() else {}
    alignment = parse_heads(config.get("alignment_heads"), str(generation))
    tensors = huggingface.whisper_tensors(source.state, where)
    return WhisperSource(where, dims, tensors, alignment, source.found.label)


def release_name(label: str) -> str | None:
    """ "ggml-base.en.bin", "faster-whisper-tiny", "openai/whisper-small" -> "whisper-<size>"; else None.

    Only the whole name counts: "whisper-small-hindi" is somebody's own model.
    """
    short = label.lower().replace("_", "-").rpartition("/")[2]
    match = re.fullmatch(
        r"(?:ggml-)?(?:openai-)?(?:faster-)?(?:whisper-)?"
        r"((?:tiny|base|small|medium)(?:\.en)?|large(?:-v[123])?(?:-turbo)?|turbo)"
        r"(?:-(?:ct2|hf|fp16|f16|q\d\S*))?(?:\.(?:pt|bin))?",
        short,
    )
    if match is None:
        return None
    size = {"turbo": "large-v3-turbo", "large": "large-v3"}.get(match[1], match[1])
    return f"whisper-{size}"
