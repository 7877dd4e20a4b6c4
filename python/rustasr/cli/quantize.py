"""`rustasr quantize`: a smaller GGUF."""

from __future__ import annotations

from pathlib import Path

import click

from rustasr.cli.bars import Bar
from rustasr.cli.tables import print_table, size


@click.command("quantize")
@click.option("--input", "-i", "source", required=True, type=click.Path(path_type=Path), metavar="DIR|FILE")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The GGUF."
)
@click.option(
    "--qtype",
    "-q",
    required=True,
    metavar="QTYPE",
    help="q8_0, q6_k, q4_0, f16, bf16 or f32 (q6k is accepted).",
)
@click.option(
    "--tensor-type",
    "overrides",
    multiple=True,
    metavar="REGEX=QTYPE",
    help="Another type for the tensors whose names match; repeatable, the first match counts.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@click.option("--quiet", is_flag=True, help="Nothing but errors.")
def command(
    source: Path,
    output: Path,
    qtype: str,
    overrides: tuple[str, ...],
    force: bool,
    progress: bool | None,
    quiet: bool,
) -> None:
    """Make a smaller GGUF: matrix weights in another type.

    Biases, norms, positions and the front end stay f32. A tensor whose rows do not fill whole blocks takes
    the next wider type; in a q4_0 file the decoder of a small model (rows of at most 512) stays q8_0,
    because four bits cost it too many words, and the prediction network of a transducer stays f16 in every
    quantised file. The report says so; --tensor-type has the last word.

    \b
    Examples:
      rustasr quantize --input base.gguf --output base-q8.gguf --qtype q8_0
      rustasr quantize --input faster-whisper-small/ --output small-q6.gguf --qtype q6_k
      rustasr quantize -i base.gguf -o base-q4.gguf -q q4_0 --tensor-type 'token_embedding=q8_0' --force
    """
    from rustasr.quantize import quantize

    pairs = []
    for override in overrides:
        pattern, equals, kind = override.rpartition("=")
        if not (pattern and equals and kind):
            raise click.UsageError(f"--tensor-type: expected REGEX=QTYPE, got {override!r}")
        pairs.append((pattern, kind))
    with Bar(f"quantizing {source.name}", False if quiet else progress) as bar:
        report = quantize(source, output, qtype, force=force, overrides=pairs, progress=bar.file)
    if quiet:
        return
    rows = [
        (
            change.name,
            "x".join(str(n) for n in change.shape),
            change.old,
            change.new,
            size(change.bytes_after),
        )
        for change in report.tensors
    ]
    print_table(["tensor", ">shape", "before", "after", ">size"], rows)
    click.echo(f"{output}: {report.qtype}, {size(report.bytes_before)} -> {size(report.bytes_after)}")
    for fallback in report.fallbacks:
        click.echo(f"kept wider (rows that do not fill blocks, or too coarse for it): {fallback}")
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)


__all__ = ["command"]
