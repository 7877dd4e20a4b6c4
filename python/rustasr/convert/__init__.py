"""Converters: any supported checkpoint -> one self-contained GGUF (`rustasr convert`).

`convert` finds out what the source is by its content. One module per format reads it (ctranslate2,
torch_pickle, whispercpp, safetensors_files with huggingface), one per family lays it out (whisper).
"""

from __future__ import annotations

from pathlib import Path

from rustasr import registry
from rustasr.convert import whisper
from rustasr.convert.common import ConversionReport, files_sha256, write_gguf
from rustasr.convert.encoding import Overrides, parse_qtype
from rustasr.convert.sources import Detected, detect, open_whisper, release_name
from rustasr.convert.tokenizers_nearby import find_vocabulary
from rustasr.errors import OptionError
from rustasr.progress import FileProgress

__all__ = ["ConversionReport", "Detected", "Overrides", "convert", "detect"]


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
    checkpoint = open_whisper(found)
    tensors = whisper.output_tensors(checkpoint)
    vocabulary = find_vocabulary(found, checkpoint, tokenizer)
    digest = files_sha256(found.files)
    provenance = _provenance(found, digest, origin)
    fields, warnings = whisper.metadata(checkpoint, vocabulary, provenance)
    fallbacks = write_gguf(
        output,
        "whisper",
        fields,
        tensors,
        qtype,
        overrides=overrides,
        overwrite=overwrite,
        progress=progress,
    )
    return ConversionReport(
        source=source,
        output=output,
        kind=found.kind,
        architecture="whisper",
        name=provenance.name,
        qtype=qtype,
        tensors=tuple(tensors),
        source_bytes=sum(path.stat().st_size for path in found.files),
        output_bytes=output.stat().st_size,
        source_sha256=digest,
        fallbacks=fallbacks,
        warnings=tuple(warnings),
    )


def _provenance(found: Detected, digest: str, origin: str | None) -> whisper.Provenance:
    """Name and licence of a published release, known by its hash or its whole name; else the source's own."""
    name = release_name(found.label)
    row = registry.by_sha256(digest) or (registry.find(name) if name else None)
    source = origin or found.label
    if row is None:
        return whisper.Provenance(found.label, "unknown", source, digest)
    return whisper.Provenance(row.name, row.license, source, digest)
