"""`rustasr convert`: any supported checkpoint to one self-contained GGUF."""

from __future__ import annotations

from pathlib import Path

import click

from rustasr.cli.bars import Bar
from rustasr.cli.tables import size


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The GGUF."
)
@click.option(
    "--qtype",
    default="f16",
    show_default=True,
    help="Weights: f32, bf16, f16, q8_0, q6_k or q4_0. What bears it badly stays wider: the audio encoder of "
    "Qwen3-ASR keeps 8 bits, below which its texts run into loops.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="tokenizer.json, or a SentencePiece .model, for sources that carry none.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing but errors.")
def command(
    source: Path,
    output: Path,
    qtype: str,
    tokenizer: Path | None,
    force: bool,
    progress: bool | None,
    quiet: bool,
) -> None:
    """Make one self-contained GGUF from a model in another format.

    SOURCE is a Hugging Face directory (Whisper, GigaAM, Parakeet), a CTranslate2 directory
    (faster-whisper's), an OpenAI .pt, a whisper.cpp .bin, a GigaAM .ckpt or a NeMo .nemo (Parakeet). The
    GGUF holds weights, front end, tokenizer, languages and licence.
    `rustasr transcribe` converts such a model by itself, once, into a cache.

    \b
    Examples:
      rustasr convert whisper-small/ -o small.gguf
      rustasr convert faster-whisper-base/ -o base-q8.gguf --qtype q8_0
      rustasr convert tiny.en.pt -o tiny.en.gguf
      rustasr convert ggml-base.bin -o base.gguf --qtype f16
      rustasr convert v3_e2e_rnnt.ckpt -o gigaam.gguf --tokenizer v3_e2e_rnnt_tokenizer.model
      rustasr convert parakeet-tdt-0.6b-v3.nemo -o parakeet.gguf --qtype q8_0
    """
    from rustasr.convert import convert

    if output.exists() and not force:
        raise click.UsageError(f"{output} exists; --force overwrites it")
    with Bar(f"converting {source.name}", False if quiet else progress) as bar:
        report = convert(source, output, qtype=qtype, tokenizer=tokenizer, overwrite=force, progress=bar.file)
    if quiet:
        return
    click.echo(f"{report.name}: {report.architecture}, from {report.kind}, {len(report.tensors)} tensors")
    click.echo(f"{report.output}: {report.qtype}, {size(report.source_bytes)} -> {size(report.output_bytes)}")
    for fallback in report.fallbacks:
        click.echo(f"kept wider (rows that do not fill blocks, or too coarse for it): {fallback}")
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)


__all__ = ["command"]
