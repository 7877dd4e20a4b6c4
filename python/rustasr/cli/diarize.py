"""`rustasr diarize`: recordings in, who said what out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rustasr.cli.bars import Bar
from rustasr.cli.inputs import STDIN, expand, turns_of
from rustasr.cli.job import Job
from rustasr.cli.outputs import partial_path
from rustasr.cli.parameters import decoding_options, given_options, model_options
from rustasr.cli.vad_parameters import take_vad, vad_options
from rustasr.diarization import DiarizationOptions
from rustasr.diarization.transcript import PAD_MS, encoder_loader
from rustasr.errors import AudioError, Cancelled, TranscriptionError
from rustasr.vad import SileroOptions

if TYPE_CHECKING:
    from rustasr.cli.interrupt import Worker
    from rustasr.model import AsrModel
    from rustasr.progress import Progress
    from rustasr.types import TranscriptionResult


def names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names separated by commas."""
    return () if value is None else tuple(part.strip() for part in value.split(","))


def pairs(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=LANG, several times."""
    found = {}
    for value in values:
        name, separator, language = value.rpartition("=")
        if not (separator and name.strip() and language.strip()):
            raise click.BadParameter(f"expected NAME=LANG, for instance mic=en, got {value!r}", param=param)
        found[name.strip()] = language.strip()
    return found


@click.command("diarize")
@click.argument("inputs", nargs=-1, metavar="AUDIO...")
@click.option("--audio", "more_inputs", multiple=True, metavar="FILE", help="A recording; the same as AUDIO.")
@click.option(
    "--out-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write report.md and the other files here, for several recordings a folder each. Without it the "
    "talk goes to standard output.",
)
@click.option(
    "--speaker-mode",
    type=click.Choice(["auto", "channel", "cluster"]),
    default="auto",
    show_default=True,
    help="channel: left and right are two sides of a call; cluster: by voice; auto: channel where two "
    "channels differ.",
)
@click.option("--num-speakers", type=int, metavar="N", help="How many there are. Default: estimate it.")
@click.option("--min-speakers", type=int, metavar="N", help="At least so many.")
@click.option("--max-speakers", type=int, metavar="N", help="At most so many.")
@click.option("--speaker-names", callback=names, metavar="A,B", help="Names in the order of first speech.")
@click.option("--left-name", default="mic", show_default=True, metavar="NAME", help="Who is on the left.")
@click.option("--right-name", default="system", show_default=True, metavar="NAME", help="And on the right.")
@click.option("--right-num-speakers", type=int, metavar="N", help="Voices on the right, to be told apart.")
@click.option("--right-speaker-names", callback=names, metavar="A,B", help="Their names.")
@click.option(
    "--speaker-language",
    "speaker_languages",
    multiple=True,
    callback=pairs,
    metavar="NAME=LANG",
    help="The language of one speaker; repeatable.",
)
@click.option(
    "--rttm",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Who speaks when, where that is known: nothing is looked for.",
)
@click.option(
    "--encoder",
    metavar="MODEL",
    help="What tells voices apart, a name or a .gguf. Default: campplus-zh-en.",
)
@vad_options("silero", silero_pad_ms=PAD_MS)
@model_options
@decoding_options
@click.option(
    "--align",
    metavar="MODEL",
    help="A forced aligner, which times every word of any model's text: qwen3-forced-aligner-0.6b.",
)
@click.option("--resume", is_flag=True, help="Skip recordings whose report.md exists already.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on standard error but errors.")
def command(
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    out_dir: Path | None,
    speaker_languages: dict[str, str],
    rttm: Path | None,
    encoder: str | None,
    align: str | None,
    resume: bool,
    progress: bool | None,
    quiet: bool,
    **values: Any,
) -> None:
    """Write down who said what, and when.

    The two sides of a stereo call are transcribed one by one; other recordings are divided by voice. With
    --out-dir: report.md with a picture, segments.json, combined.txt, .srt and .vtt, a text for each speaker,
    and speakers.rttm.

    \b
    Examples:
      rustasr diarize call.wav --out-dir call
      rustasr diarize call.wav --left-name agent --right-name customer --out-dir call
      rustasr diarize meeting.mp3 --out-dir meeting --max-speakers 6
      rustasr diarize interview.m4a --num-speakers 2 --speaker-names Ann,Bob --out-dir interview
      rustasr diarize call.wav --model whisper-base --speaker-language mic=en --speaker-language system=de
      rustasr diarize recordings/ --out-dir reports --resume
      rustasr diarize meeting.wav --rttm meeting.rttm --out-dir meeting
    """
    ctx = click.get_current_context()
    if not inputs and not more_inputs:
        raise click.UsageError("no AUDIO given: name a file, a directory, a pattern, or - for standard input")
    if resume and out_dir is None:
        raise click.UsageError("--resume looks at finished reports: give --out-dir DIR")
    fields = DiarizationOptions.__dataclass_fields__
    options = DiarizationOptions(**{name: values.pop(name) for name in list(values) if name in fields})
    arguments = {
        "options": options,
        "vad": take_vad(ctx, values, SileroOptions(speech_pad_ms=PAD_MS)),
        "encoder": encoder_loader(encoder, device=values["device"], threads=values["threads"]),
        "speaker_languages": speaker_languages,
        "align": align,
        **given_options(ctx, values),
    }
    job = _Job(
        out_dir=out_dir,
        rttm=rttm,
        arguments=arguments,
        progress=False if quiet else progress,
        quiet=quiet,
        resume=resume,
    )
    ctx.exit(job.run(expand((*inputs, *more_inputs)), values))


@dataclass(slots=True, kw_only=True)
class _Job(Job["Path | None"]):
    out_dir: Path | None
    rttm: Path | None
    arguments: dict[str, Any]

    def _planned(self, names: list[str]) -> list[tuple[str, Path | None]]:
        """Each recording with its folder; two of one name do not share one."""
        if self.out_dir is None or len(names) == 1:
            return [(name, self.out_dir) for name in names]
        planned, taken = list[tuple[str, Path | None]](), set[str]()
        for name in names:
            base = "stdin" if name == STDIN else Path(name).name
            candidates = (Path(base).stem, base, *(f"{Path(base).stem}-{n}" for n in range(2, 1_000_000)))
            folder = next(candidate for candidate in candidates if candidate not in taken)
            taken.add(folder)
            planned.append((name, self.out_dir / folder))
        return planned

    def _one(self, model: AsrModel, worker: Worker, name: str, where: Path | None) -> bool:
        try:
            result = self._diarize(model, worker, name)
        except Cancelled as stop:
            if stop.partial is not None and stop.partial.segments:
                self._write(stop.partial, name, where, partial=True)
            raise
        except (AudioError, TranscriptionError) as error:
            click.echo(f"error: {error}", err=True)
            return False
        try:
            self._write(result, name, where)
        except OSError as error:
            click.echo(f"error: {name}: the result cannot be written: {error}", err=True)
            return False
        for warning in result.warnings:
            self._note(f"warning: {name}: {warning}")
        return True

    def _diarize(self, model: AsrModel, worker: Worker, name: str) -> TranscriptionResult:
        from rustasr.audio import open_audio
        from rustasr.diarization import diarize

        source = open_audio(name)
        turns = None if self.rttm is None else turns_of(self.rttm, name)
        with Bar("standard input" if name == STDIN else name, self.progress) as bar:

            def tell(progress: Progress) -> None:
                if worker.interrupted:  # while turns are found the model has nothing to cancel
                    raise Cancelled
                bar.audio(progress)

            return worker.run(lambda: diarize(model, source, turns=turns, progress=tell, **self.arguments))

    def _write(
        self, result: TranscriptionResult, name: str, folder: Path | None, *, partial: bool = False
    ) -> None:
        from rustasr import writers
        from rustasr.diarization import report

        recording = "stdin" if name == STDIN else Path(name).stem
        named = report.files(result, recording)
        if folder is None:
            click.echo(named["combined.txt"], nl=False)
            return
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in named.items():  # the report is the last one
            target = folder / file
            writers.write_atomic(partial_path(target) if partial else target, text)
            if not partial:
                partial_path(target).unlink(missing_ok=True)
        if partial:
            target = partial_path(folder / report.REPORT)
            click.echo(f"interrupted: the finished part is in {target}", err=True)
            return
        n_speakers = len({turn.speaker for turn in result.turns or ()})
        speed = f"{1 / result.rtf:.1f}x real time" if result.rtf > 0 else "no time"
        who = "one speaker" if n_speakers == 1 else f"{n_speakers} speakers"
        where = folder / report.REPORT
        self._note(f"{name} -> {where} ({who}, {result.duration:.1f} s of audio, {speed})")

    def _is_done(self, where: Path | None) -> bool:
        from rustasr.diarization.report import REPORT

        return where is not None and (where / REPORT).exists()


__all__ = ["command"]
