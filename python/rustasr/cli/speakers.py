"""The options of diarization, for every command that says who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from rustasr.cli.inputs import turns_of
from rustasr.cli.parameters import stack
from rustasr.cli.vad_parameters import take_vad
from rustasr.diarization import DiarizationOptions
from rustasr.diarization.overlap import OverlapLoader
from rustasr.diarization.transcript import PAD_MS, EncoderLoader
from rustasr.errors import Cancelled
from rustasr.vad import SileroOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from rustasr.audio import AudioSource
    from rustasr.cli.interrupt import Worker
    from rustasr.model import AsrModel
    from rustasr.progress import Progress, ProgressCallback
    from rustasr.types import TranscriptionResult

Command = TypeVar("Command", bound="Callable[..., Any]")

FIELDS = tuple(
    name for name in DiarizationOptions.__dataclass_fields__ if name not in ("max_pause_s", "channels")
)
OTHERS = ("speaker_languages", "rttm", "encoder", "overlap")


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


def speaker_options(command: Command) -> Command:
    """How speakers are told apart, and what they are called."""
    options = [
        click.option(
            "--speaker-mode",
            type=click.Choice(["auto", "channel", "cluster"]),
            default="auto",
            show_default=True,
            help="channel: left and right are two sides of a call; cluster: by voice; auto: channel where "
            "two channels differ.",
        ),
        click.option(
            "--num-speakers", type=int, metavar="N", help="How many there are. Default: estimate it."
        ),
        click.option("--min-speakers", type=int, metavar="N", help="At least so many."),
        click.option("--max-speakers", type=int, metavar="N", help="At most so many."),
        click.option(
            "--speaker-names", callback=names, metavar="A,B", help="Names in the order of first speech."
        ),
        click.option(
            "--left-name", default="mic", show_default=True, metavar="NAME", help="Who is on the left."
        ),
        click.option(
            "--right-name", default="system", show_default=True, metavar="NAME", help="And on the right."
        ),
        click.option(
            "--right-num-speakers", type=int, metavar="N", help="Voices on the right, to be told apart."
        ),
        click.option("--right-speaker-names", callback=names, metavar="A,B", help="Their names."),
        click.option(
            "--speaker-language",
            "speaker_languages",
            multiple=True,
            callback=pairs,
            metavar="NAME=LANG",
            help="The language of one speaker; repeatable.",
        ),
        click.option(
            "--rttm",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="Who speaks when, where that is known: nothing is looked for.",
        ),
        click.option(
            "--encoder",
            metavar="MODEL",
            help="What tells voices apart, a name or a .gguf. Default: campplus-zh-en.",
        ),
        click.option(
            "--overlap",
            default="auto",
            show_default=True,
            metavar="MODEL|none",
            help="What finds where two voices speak at once, who then both have a turn: a name or a .gguf; "
            "auto: pyannote-segmentation-3.0.",
        ),
    ]
    return stack(options)(command)


@dataclass(frozen=True, slots=True)
class Speakers:
    """A command's wish to know who speaks: the arguments of `rustasr.diarize`, and where turns are known."""

    arguments: dict[str, Any]
    rttm: Path | None

    def transcribe(
        self,
        worker: Worker,
        model: AsrModel,
        source: AudioSource,
        *,
        progress: ProgressCallback | None = None,
        **options: Any,
    ) -> TranscriptionResult:
        """`rustasr.diarize` in the worker's thread, which Ctrl-C stops in every step."""
        from rustasr.diarization import diarize

        turns = None if self.rttm is None else turns_of(self.rttm, source.name)

        def tell(now: Progress) -> None:
            if worker.interrupted:  # while turns are found the model has nothing to cancel
                raise Cancelled
            if progress is not None:
                progress(now)

        return worker.run(
            lambda: diarize(model, source, turns=turns, progress=tell, **self.arguments, **options)
        )


def take_speakers(ctx: click.Context, values: dict[str, Any]) -> Speakers:
    """What the command's `values` say about speakers and the speech that is looked for; they are taken out.

    Raises click.UsageError and OptionError for what does not fit together.
    """
    options = DiarizationOptions(**{name: values.pop(name) for name in FIELDS})
    languages, rttm, encoder, overlap = (values.pop(name) for name in OTHERS)
    device = {name: values[name] for name in ("device", "threads")}
    if values["vad"] == "none":
        if ctx.get_parameter_source("vad") != ParameterSource.DEFAULT:
            raise click.UsageError("--vad none: speakers are told apart where somebody speaks; leave it out")
        values["vad"] = "silero"
    arguments = {
        "options": options,
        "vad": take_vad(ctx, values, SileroOptions(speech_pad_ms=PAD_MS)),
        "encoder": EncoderLoader(encoder, **device),
        "overlap": None if overlap == "none" else OverlapLoader(overlap, **device),
        "speaker_languages": languages,
    }
    return Speakers(arguments, rttm)


def refuse_speakers(ctx: click.Context, values: dict[str, Any]) -> None:
    """Take the options out of `values` where nobody asks for speakers.

    Raises click.UsageError for one that is given.
    """
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    for name in (*FIELDS, *OTHERS):
        if ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
            raise click.UsageError(f"{flags[name]} is about speakers: add --diarize")
        del values[name]


__all__ = ["Speakers", "refuse_speakers", "speaker_options", "take_speakers"]
