"""The options of voice activity detection, for every command that listens for speech."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from rustasr.cli.parameters import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from rustasr.vad import SileroOptions, Vad

Command = TypeVar("Command", bound="Callable[..., Any]")

# Option of the command line: what the detectors call it; a detector that is not there does not have it.
FIELDS = {
    "vad_mode": {"webrtc": "mode"},
    "vad_frame_ms": {"webrtc": "frame_ms"},
    "vad_threshold": {"silero": "threshold"},
    "min_speech_ms": {"webrtc": "min_speech_ms", "silero": "min_speech_duration_ms"},
    "min_silence_ms": {"webrtc": "min_silence_ms", "silero": "min_silence_duration_ms"},
    "pad_ms": {"webrtc": "pad_ms", "silero": "speech_pad_ms"},
    "max_segment_s": {"webrtc": "max_segment_s", "silero": "max_speech_duration_s"},
}


def vad_options(default: str, silero_pad_ms: float = 30.0) -> Callable[[Command], Command]:
    """A decorator: which detector ("none" where the command can do without), and its parameters. The help
    names what `take_vad` is given for Silero's padding.
    """
    names = ["none", "webrtc", "silero"] if default == "none" else ["webrtc", "silero"]
    what = "Hear speech alone, found by this detector" if default == "none" else "What finds the speech"
    return stack(
        [
            click.option(
                "--vad", type=click.Choice(names), default=default, show_default=True, help=f"{what}."
            ),
            click.option(
                "--vad-mode",
                type=click.IntRange(0, 3),
                metavar="0..3",
                help="WebRTC: 0 keeps most, 3 takes the least for speech. Default: 2.",
            ),
            click.option(
                "--vad-frame-ms",
                type=click.Choice(["10", "20", "30"]),
                help="WebRTC: length of a frame. Default: 30.",
            ),
            click.option(
                "--vad-threshold",
                type=float,
                metavar="P",
                help="Silero: probability from which on it is speech. Default: 0.5.",
            ),
            click.option(
                "--min-speech-ms",
                type=float,
                metavar="MS",
                help="So much speech in a row begins a stretch. Default: 300 (Silero 250).",
            ),
            click.option(
                "--min-silence-ms",
                type=float,
                metavar="MS",
                help="So much silence in a row ends it. Default: 200 (Silero 100).",
            ),
            click.option(
                "--pad-ms",
                type=float,
                metavar="MS",
                help=f"Added on both sides of a stretch. Default: 150 (Silero {silero_pad_ms:g}).",
            ),
            click.option(
                "--max-segment-s",
                type=float,
                metavar="S",
                help="Longest stretch; what is longer is cut. Default: 30 (Silero: no limit).",
            ),
        ]
    )


def take_vad(ctx: click.Context, values: dict[str, Any], silero: SileroOptions | None = None) -> Vad | None:
    """The detector that the command's `values` name, or None; their VAD options are taken out of them.
    `silero` is what Silero goes by where they say nothing.

    Raises click.UsageError for a parameter that the detector does not have, OptionError for a value outside
    its range or a detector that is not installed.
    """
    name = values.pop("vad")
    given = {key: values.pop(key) for key in FIELDS}
    given = {key: v for key, v in given.items() if ctx.get_parameter_source(key) != ParameterSource.DEFAULT}
    for key in given:
        flag = f"--{key.replace('_', '-')}"
        if name == "none":
            raise click.UsageError(f"{flag} needs a detector: add --vad webrtc or --vad silero")
        if name not in FIELDS[key]:
            raise click.UsageError(f"{flag} is for --vad {next(iter(FIELDS[key]))}, found --vad {name}")
    if name == "none":
        return None
    from rustasr.vad import SileroOptions, WebRtcOptions, load_vad

    fields: dict[str, Any] = {
        FIELDS[key][name]: int(v) if key == "vad_frame_ms" else v for key, v in given.items()
    }
    options = WebRtcOptions() if name == "webrtc" else silero or SileroOptions()
    return load_vad(name, replace(options, **fields))


__all__ = ["take_vad", "vad_options"]
