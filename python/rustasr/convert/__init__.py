"""Converters: any supported checkpoint -> one self-contained GGUF (`rustasr convert`).

`convert` finds out what the source is by its content. One module per format reads it (ctranslate2,
torch_pickle, whispercpp, safetensors_files, nemo), one per family lays it out (whisper, gigaam, parakeet,
qwen3_asr, silero, campplus, wespeaker, ge2e, pyannet).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rustasr import registry
from rustasr.convert import (
    campplus,
    ge2e,
    gigaam,
    parakeet,
    pyannet,
    qwen3_asr,
    silero,
    wespeaker,
    whisper_sources,
)
from rustasr.convert.common import ConversionReport, FamilyPlan, Field, files_sha256, write_gguf
from rustasr.convert.encoding import Overrides, parse_qtype
from rustasr.convert.sources import Detected, Source, detect, open_source
from rustasr.errors import OptionError
from rustasr.progress import FileProgress

__all__ = ["ConversionReport", "Detected", "Overrides", "convert", "detect"]

# One row per family: what `open_source` calls it -> what makes a GGUF of its checkpoints.
FAMILIES: dict[str, Callable[[Source, Path | None], FamilyPlan]] = {
    "whisper": whisper_sources.plan,
    "gigaam": gigaam.plan,
    "parakeet": parakeet.plan,
    "qwen3_asr": qwen3_asr.plan,
    "silero-vad": silero.plan,
    "campplus": campplus.plan,
    "wespeaker": wespeaker.plan,
    "pyannet": pyannet.plan,
    "ge2e": ge2e.plan,
}


def convert(
    source: Path,
    output: Path,
    *,
    qtype: str = "f16",
    tokenizer: Path | None = None,
    overrides: Overrides = (),
    overwrite: bool = True,
    origin: str | None = None,
    progress: FileProgress | None = None,
) -> ConversionReport:
    """Converts a checkpoint (a file or a folder) to a GGUF with weights of `qtype`, atomically.

    `tokenizer` names a tokenizer file for sources without one; `origin` is recorded as `general.source`
    (default: the source's own name). Memory stays near the largest tensor. Raises ModelNotFoundError,
    UnsupportedModelError, ModelFileError (what is wrong with the source, by tensor, key or byte) or
    OptionError (type, output). `overrides` are (regular expression, type) pairs for single tensors.
    """
    source, output = Path(source), Path(output)
    qtype = parse_qtype(qtype)
    found = detect(source)
    if found.kind == "gguf":
        raise OptionError(f"{source} is a GGUF already: use `rustasr quantize` to change its type")
    checkpoint = open_source(found)
    plan = FAMILIES[checkpoint.family](checkpoint, tokenizer)
    digest = files_sha256(found.files)
    row = registry.by_sha256(digest) or (registry.find(plan.release) if plan.release else None)
    name = row.name if row is not None else found.label
    fields = {
        "general.architecture": Field("str", plan.architecture),
        "general.name": Field("str", name),
        "general.license": Field("str", row.license if row is not None else "unknown"),
        "general.source": Field("str", origin or found.label),
        "rustasr.source_sha256": Field("str", digest),
        **plan.fields,
    }
    fallbacks = write_gguf(
        output,
        plan.architecture,
        fields,
        plan.tensors,
        qtype,
        overrides=overrides,
        overwrite=overwrite,
        progress=progress,
    )
    return ConversionReport(
        source=source,
        output=output,
        kind=found.kind,
        architecture=plan.architecture,
        name=name,
        qtype=qtype,
        tensors=tuple(plan.tensors),
        source_bytes=sum(path.stat().st_size for path in found.files),
        output_bytes=output.stat().st_size,
        source_sha256=digest,
        fallbacks=fallbacks,
        warnings=plan.warnings,
    )
