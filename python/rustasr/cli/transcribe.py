"""`rustasr transcribe`: recordings in, text and subtitles out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import click

from rustasr.cli.bars import Bar
from rustasr.cli.inputs import STDIN, expand
from rustasr.cli.job import Job
from rustasr.cli.live import LiveText
from rustasr.cli.outputs import Outputs, journal_path
from rustasr.cli.parameters import decoding_options, given_options, model_options
from rustasr.cli.speakers import Speakers, refuse_speakers, speaker_options, take_speakers
from rustasr.cli.vad_parameters import take_vad, vad_options
from rustasr.writers import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    from rustasr.audio import AudioSource
    from rustasr.cli.interrupt import Worker
    from rustasr.model import AsrModel
    from rustasr.types import TranscriptionResult

TIMED = ("srt", "vtt", "tsv")
ESTIMATED = (
    "the model gives no times, these are estimates; --align qwen3-forced-aligner-0.6b times every word"
)


@click.command("transcribe")
@click.argument("inputs", nargs=-1, metavar="AUDIO...")
@click.option("--audio", "more_inputs", multiple=True, metavar="FILE", help="A recording; the same as AUDIO.")
@click.option(
    "--format",
    "-f",
    "formats",
    multiple=True,
    type=click.Choice(list(FORMATS)),
    help="Repeatable. Default: text.",
)
@click.option("--output", "-o", "output", metavar="FILE", help="Write here instead of to standard output.")
@click.option(
    "--output-dir", metavar="DIR", help="Write NAME.txt, NAME.srt, ... here, a file for each recording."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Skip recordings whose output files exist, continue the one that was interrupted.",
)
@click.option(
    "--channel", default="mix", metavar="mix|left|right|N", help="Take one channel instead of all mixed."
)
@model_options
@decoding_options
@click.option(
    "--align",
    metavar="MODEL",
    help="A forced aligner, which times every word of any model's text: qwen3-forced-aligner-0.6b.",
)
@vad_options("none")
@click.option(
    "--diarize",
    is_flag=True,
    help="Say who speaks, in every format. Speech is found by Silero, with 100 ms around it, unless --vad "
    "says otherwise; `rustasr diarize` writes a report as well.",
)
@speaker_options
@click.option("--stream-text", is_flag=True, help="Show the text as it comes in.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on standard error but errors.")
def command(
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    formats: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    resume: bool,
    channel: str,
    align: str | None,
    diarize: bool,
    stream_text: bool,
    progress: bool | None,
    quiet: bool,
    **values: Any,
) -> None:
    """Turn recordings into text or subtitles.

    AUDIO may be files, directories, patterns, and - for standard input. Without -o or --output-dir the
    text goes to standard output.

    \b
    Examples:
      rustasr transcribe talk.mp3
      rustasr transcribe talk.mp3 -o talk.srt
      rustasr transcribe recordings/ --output-dir text --format text --format json
      rustasr transcribe 'calls/*.wav' --output-dir text --resume --quiet
      rustasr transcribe interview.m4a --language de --timestamps word --format json
      rustasr transcribe talk.mp3 --model qwen3-asr-0.6b --stream-text -o talk.txt
      rustasr transcribe talk.mp3 --model qwen3-asr-0.6b --align qwen3-forced-aligner-0.6b -o talk.srt
      rustasr transcribe meeting.mp3 --diarize --max-speakers 6 -o meeting.vtt
      rustasr transcribe call.wav --diarize --left-name agent --right-name customer --format json
      rustasr transcribe meeting.wav --vad webrtc --min-silence-ms 500 --format json
      rustasr transcribe vortrag.ogg --task translate --model whisper-base
      ffmpeg -i film.mkv -f wav - | rustasr transcribe - --format vtt
    """
    ctx = click.get_current_context()
    if not inputs and not more_inputs:
        raise click.UsageError("no AUDIO given: name a file, a directory, a pattern, or - for standard input")
    recordings = expand((*inputs, *more_inputs))
    names = [name for name in recordings if isinstance(name, str)]
    outputs = Outputs.plan(formats, output, output_dir, names)
    if resume and not (outputs.file or outputs.directory):
        raise click.UsageError("--resume looks at output files: give -o FILE or --output-dir DIR")
    if values.get("timestamps") == "none" and (timed := [kind for kind in outputs.formats if kind in TIMED]):
        raise click.UsageError(f"--timestamps none leaves nothing to write into {timed[0]}")
    options = given_options(ctx, values) | ({} if align is None else {"align": align})
    speakers = None
    if diarize:
        speakers = take_speakers(ctx, values)
    else:
        refuse_speakers(ctx, values)
        vad = take_vad(ctx, values)
        options |= {} if vad is None else {"vad": vad}
    live = _Live.of(outputs, named=diarize) if stream_text else None
    job = _Job(
        outputs=outputs,
        channel=channel,
        options=options,
        live=live,
        speakers=speakers,
        progress=False if quiet or live else progress,
        quiet=quiet,
        resume=resume,
    )
    ctx.exit(job.run(recordings, values))


class _Live(Enum):
    """Where text goes as it comes in."""

    IN_PLACE = "standard output, in place of the result"
    BESIDE = "standard error"

    @classmethod
    def of(cls, outputs: Outputs, *, named: bool) -> _Live:
        """A terminal that would get the plain text anyway gets it live; nothing else may be disturbed, nor
        is text with names of speakers known as it comes in.
        """
        plain = not named and outputs.formats == ("text",) and not (outputs.file or outputs.directory)
        return cls.IN_PLACE if plain and sys.stdout.isatty() else cls.BESIDE


@dataclass(slots=True, kw_only=True)
class _Job(Job["list[Path]"]):
    outputs: Outputs
    channel: str
    options: dict[str, Any]
    live: _Live | None
    speakers: Speakers | None

    def _planned(self, names: list[str]) -> list[tuple[str, list[Path]]]:
        return [(name, self.outputs.paths(name)) for name in names]

    def _journal_of(self, where: list[Path]) -> Path | None:
        return journal_path(where[0]) if where else None

    def _write(self, result: TranscriptionResult, name: str, where: list[Path], *, partial: bool) -> None:
        if self.live is _Live.IN_PLACE:  # it has been shown
            return
        written = self.outputs.write(result, where, partial=partial)
        if partial:
            for path in written:
                click.echo(f"interrupted: the finished part is in {path}", err=True)
            return
        timed = any(kind in TIMED for kind in self.outputs.formats)
        estimated = timed and any("estimated_times" in segment.flags for segment in result.segments)
        self._note(f"warning: {name}: {ESTIMATED}", estimated)
        if written:
            speed = f"{1 / result.rtf:.1f}x real time" if result.rtf > 0 else "no time"
            files = ", ".join(str(path) for path in written)
            self._note(f"{name} -> {files} ({result.duration:.1f} s of audio, {speed})")

    def _transcribe(
        self, model: AsrModel, worker: Worker, name: str, journal: dict[str, Any]
    ) -> TranscriptionResult:
        from rustasr.audio import open_audio

        source = open_audio(name, self.channel)
        options = self.options | journal
        title = "standard input" if name == STDIN else name
        if self.live is None:
            with Bar(title, self.progress) as bar:
                return self._call(worker, model, source, progress=bar.audio, **options)
        text = LiveText(to_stderr=self.live is _Live.BESIDE)
        try:
            return self._call(worker, model, source, on_text=text, **options)
        finally:
            text.close()

    def _call(
        self, worker: Worker, model: AsrModel, source: AudioSource, **options: Any
    ) -> TranscriptionResult:
        if self.speakers is not None:
            return self.speakers.transcribe(worker, model, source, **options)
        return worker.run(lambda: model.transcribe(source, **options))

    def _is_done(self, where: list[Path]) -> bool:
        return bool(where) and all(path.exists() for path in where)


__all__ = ["command"]
