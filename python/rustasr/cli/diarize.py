"""`rustasr diarize`: recordings in, who said what out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rustasr.cli.bars import Bar
from rustasr.cli.inputs import STDIN, expand
from rustasr.cli.job import Job
from rustasr.cli.outputs import journal_path, partial_path
from rustasr.cli.parameters import decoding_options, given_options, model_options
from rustasr.cli.speakers import Speakers, speaker_options, take_speakers
from rustasr.cli.vad_parameters import vad_options
from rustasr.diarization.transcript import PAD_MS

if TYPE_CHECKING:
    from rustasr.cli.interrupt import Worker
    from rustasr.model import AsrModel
    from rustasr.types import TranscriptionResult


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
@speaker_options
@vad_options("silero", silero_pad_ms=PAD_MS)
@model_options
@decoding_options
@click.option(
    "--align",
    metavar="MODEL",
    help="A forced aligner, which times every word of any model's text: qwen3-forced-aligner-0.6b.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Skip recordings whose report.md exists, continue the one that was interrupted.",
)
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on standard error but errors.")
def command(
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    out_dir: Path | None,
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
      rustasr diarize meeting.wav --overlap none --out-dir meeting
      rustasr diarize meeting.wav --rttm meeting.rttm --out-dir meeting
    """
    ctx = click.get_current_context()
    if not inputs and not more_inputs:
        raise click.UsageError("no AUDIO given: name a file, a directory, a pattern, or - for standard input")
    if resume and out_dir is None:
        raise click.UsageError("--resume looks at finished reports: give --out-dir DIR")
    speakers = take_speakers(ctx, values)
    job = _Job(
        out_dir=out_dir,
        speakers=speakers,
        options={"align": align, **given_options(ctx, values)},
        progress=False if quiet else progress,
        quiet=quiet,
        resume=resume,
    )
    ctx.exit(job.run(expand((*inputs, *more_inputs)), values))


@dataclass(slots=True, kw_only=True)
class _Job(Job["Path | None"]):
    out_dir: Path | None
    speakers: Speakers
    options: dict[str, Any]

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

    def _transcribe(
        self, model: AsrModel, worker: Worker, name: str, journal: dict[str, Any]
    ) -> TranscriptionResult:
        from rustasr.audio import open_audio

        source = open_audio(name)
        with Bar("standard input" if name == STDIN else name, self.progress) as bar:
            return self.speakers.transcribe(
                worker, model, source, progress=bar.audio, **self.options, **journal
            )

    def _write(self, result: TranscriptionResult, name: str, where: Path | None, *, partial: bool) -> None:
        from rustasr import writers
        from rustasr.diarization import report

        recording = "stdin" if name == STDIN else Path(name).stem
        named = report.files(result, recording)
        if where is None:
            click.echo(named["combined.txt"], nl=False)
            return
        where.mkdir(parents=True, exist_ok=True)
        for file, text in named.items():  # the report is the last one
            target = where / file
            writers.write_atomic(partial_path(target) if partial else target, text)
            if not partial:
                partial_path(target).unlink(missing_ok=True)
        if partial:
            target = partial_path(where / report.REPORT)
            click.echo(f"interrupted: the finished part is in {target}", err=True)
            return
        n_speakers = len({turn.speaker for turn in result.turns or ()})
        speed = f"{1 / result.rtf:.1f}x real time" if result.rtf > 0 else "no time"
        who = "one speaker" if n_speakers == 1 else f"{n_speakers} speakers"
        self._note(f"{name} -> {where / report.REPORT} ({who}, {result.duration:.1f} s of audio, {speed})")

    def _journal_of(self, where: Path | None) -> Path | None:
        from rustasr.diarization.report import REPORT

        return None if where is None else journal_path(where / REPORT)

    def _is_done(self, where: Path | None) -> bool:
        from rustasr.diarization.report import REPORT

        return where is not None and (where / REPORT).exists()


__all__ = ["command"]
