"""`rustasr benchmark`: speed, memory and accuracy of models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rustasr.cli import EXIT_INPUT, EXIT_MODEL
from rustasr.cli.bars import Bar
from rustasr.cli.inputs import turns_of
from rustasr.cli.parameters import decoding_options, device_options, given_options
from rustasr.cli.tables import print_table, size
from rustasr.errors import AudioError, RustAsrError


@click.command("benchmark")
@click.option(
    "--audio", "audio", multiple=True, required=True, metavar="FILE", help="A recording; repeatable."
)
@click.option("--models", multiple=True, required=True, metavar="A,B", help="Names or files; repeatable.")
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="FILE",
    help="True text of each --audio, in order; .rttm: who speaks when.",
)
@click.option(
    "--vad",
    type=click.Choice(["silero", "webrtc"]),
    default="silero",
    show_default=True,
    help="Finds the speech where speakers are looked for.",
)
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Rounds.")
@click.option("--output", type=click.Path(path_type=Path), metavar="JSON", help="Write all numbers here.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="SVG", help="Write bars of speed and error rates here."
)
@device_options
@decoding_options
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
def command(
    audio: tuple[str, ...],
    models: tuple[str, ...],
    references: tuple[str, ...],
    vad: str,
    repeat: int,
    output: Path | None,
    plot: Path | None,
    device: str,
    threads: int,
    progress: bool | None,
    **values: Any,
) -> None:
    """Measure speed, memory and accuracy of models.

    Every model runs in its own process, rounds interleaved. Reported are the time to load, the time to
    the first text, the real-time factor (median, fastest, slowest), peak memory, WER and CER against the
    texts of --reference, and a hash of the text. With an .rttm for each recording every model also looks
    for the speakers, and their error rate (DER, collar 0.25 s, overlap scored) is reported. Error rates
    need the extra: pip install "rustasr[bench]".

    \b
    Examples:
      rustasr benchmark --audio talk.flac --models whisper-tiny.en,whisper-base
      rustasr benchmark --audio talk.flac --models base.gguf,base-q8.gguf --reference talk.txt --repeat 5
      rustasr benchmark --audio talk.flac --models whisper-base --batch-size 8 --output b.json --plot b.svg
      rustasr benchmark --audio call.wav --models whisper-base --reference call.txt --reference call.rttm
    """
    from rustasr import benchmark, writers

    names = [name for part in models for name in part.split(",") if name]
    if not names:
        raise click.UsageError("--models names no model")
    rttms = [path for path in references if path.lower().endswith(".rttm")]
    texts = [path for path in references if path not in rttms]
    for kind, paths in (("texts", texts), ("RTTM files", rttms)):
        if paths and len(paths) != len(audio):
            raise click.UsageError(
                f"{len(audio)} --audio and {len(paths)} {kind} as --reference: one for each, in order"
            )
    options = given_options(click.get_current_context(), values)
    true_texts = tuple(_read_text(path) for path in texts)
    turns = tuple(turns_of(Path(path), name) for path, name in zip(rttms, audio, strict=False))
    job = benchmark.Job(audio, true_texts, device, threads, repeat, options, tuple(map(tuple, turns)), vad)
    with Bar("benchmark", progress) as bar:
        results = benchmark.run(list(dict.fromkeys(names)), job, bar.file)
    done = [result for result in results.values() if isinstance(result, benchmark.Measurement)]
    if done:
        _print(done)
    failed = {name: result for name, result in results.items() if isinstance(result, RustAsrError)}
    for name, error in failed.items():
        click.echo(f"error: {error}" if name in str(error) else f"error: {name}: {error}", err=True)
    if texts and any(m.wer is None for m in done):
        click.echo('no WER: jiwer is not installed: pip install "rustasr[bench]"', err=True)
    if output is not None:
        writers.write_atomic(output, benchmark.to_json(results, job))
    if plot is not None and done:
        writers.write_atomic(plot, benchmark.to_svg(done))
    if failed:
        only_audio = all(isinstance(error, AudioError) for error in failed.values())
        click.get_current_context().exit(EXIT_INPUT if only_audio else EXIT_MODEL)


def _print(measurements: list[Any]) -> None:
    rows = []
    for m in measurements:
        low, high = m.rtf_range
        rows.append(
            (
                Path(m.model).name,
                m.device,
                f"{m.load_seconds:.2f} s",
                None if m.first_text_seconds is None else f"{m.first_text_seconds:.2f} s",
                f"{m.rtf:.4f} ({low:.4f}-{high:.4f})",
                f"{1 / m.rtf:.1f}x",
                size(m.peak_rss_bytes),
                None if m.wer is None else f"{m.wer:.2%}",
                None if m.cer is None else f"{m.cer:.2%}",
                None if m.der is None else f"{m.der:.2%}",
                m.text_sha256[:12],
            )
        )
    columns = [
        "model",
        "device",
        ">load",
        ">first text",
        ">RTF (range)",
        ">speed",
        ">peak",
        ">WER",
        ">CER",
        ">DER",
        "text",
    ]
    print_table(columns, rows)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--reference {path}: expected a UTF-8 text file: {error}") from error


__all__ = ["command"]
