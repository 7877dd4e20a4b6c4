"""Option groups that several commands share, and values that click has no type for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")


def number_or_none(value: str) -> float | None:
    """A number, or "none" to switch a rule off."""
    if value.lower() in ("none", "off"):
        return None
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f'expected a number or "none", got {value!r}') from None


def numbers(value: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in value.replace(",", " ").split())
    except ValueError:
        raise click.BadParameter(f"expected numbers separated by commas, got {value!r}") from None


def stack(options: list[Callable[[Command], Command]]) -> Callable[[Command], Command]:
    """Several options as one decorator; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def model_options(command: Command) -> Command:
    """Which model, on what."""
    return stack(
        [
            click.option(
                "--model",
                "-m",
                metavar="MODEL",
                help="Registry name (`rustasr models list`), .gguf, Hugging Face or CTranslate2 directory, "
                "OpenAI .pt, whisper.cpp .bin, GigaAM .ckpt or NeMo .nemo. Default: the small Whisper that "
                "is installed.",
            ),
            click.option(
                "--model-type",
                type=click.Choice(["auto", "whisper", "gigaam", "parakeet", "qwen3"]),
                default="auto",
                help="Refuse a model of another family.",
            ),
            click.option("--gguf", metavar="FILE", help="Use this GGUF file as the model."),
            click.option(
                "--weights",
                type=click.Choice(["auto", "safetensors", "gguf"]),
                default="auto",
                help="Which files to take where a model has several kinds.",
            ),
            click.option(
                "--quant", metavar="QTYPE", help="Quantisation of a registry model: q8_0, q6_k, q4_0, f16."
            ),
            device_options,
        ]
    )(command)


def device_options(command: Command) -> Command:
    """On what, with how many threads."""
    options = [
        click.option(
            "--device",
            "-d",
            default="auto",
            show_default=True,
            help="auto, cpu, or a name from `rustasr devices`.",
        ),
        click.option(
            "--threads",
            "-t",
            type=click.IntRange(0, 1024),
            default=0,
            help="CPU threads; 0 is one per physical core.",
        ),
    ]
    return stack(options)(command)


# Option name of the command line: field of the family's options. Only what is given is handed on, so that
# the family's defaults hold and a family without the option can say so.
def decoding_options(command: Command) -> Command:
    """How to decode: fields of the families' options. A family refuses what it does not have."""
    return stack(
        [
            click.option(
                "--language", "-l", metavar="LANG", help="Code or English name; default: detect it."
            ),
            click.option(
                "--task", type=click.Choice(["transcribe", "translate"]), help="translate: into English."
            ),
            click.option(
                "--timestamps",
                type=click.Choice(["none", "segment", "word"]),
                help="How finely to time the text. Default: segment.",
            ),
            click.option(
                "--prompt",
                "--initial-prompt",
                "--context",
                "initial_prompt",
                metavar="TEXT",
                help="Text taken to come before (Whisper), or what it is about (Qwen3-ASR).",
            ),
            click.option(
                "--carry-initial-prompt/--no-carry-initial-prompt", default=None, help="Prompt every window."
            ),
            click.option("--hotwords", metavar="W,...", help="Words to expect."),
            click.option("--prefix", metavar="TEXT", help="Text that the first window begins with."),
            click.option(
                "--beam-size", type=int, metavar="N", help="Beams at temperature 0; 1 is greedy (default)."
            ),
            click.option("--best-of", type=int, metavar="N", help="Samples at temperatures above 0."),
            click.option(
                "--patience", type=float, metavar="X", help="Beam search: keep X times beam-size results."
            ),
            click.option(
                "--length-penalty", type=number_or_none, metavar="X", help="Beam search: 0 to 1, or none."
            ),
            click.option(
                "--temperature",
                type=numbers,
                multiple=True,
                metavar="T[,T...]",
                help="Sampling temperature, or a ladder of them. Default: 0,0.2,0.4,0.6,0.8,1.",
            ),
            click.option(
                "--compression-ratio-threshold",
                type=number_or_none,
                metavar="X",
                help="Above: text repeats, retry.",
            ),
            click.option(
                "--logprob-threshold", type=number_or_none, metavar="X", help="Below this mean: retry."
            ),
            click.option(
                "--no-speech-threshold", type=number_or_none, metavar="X", help="Above: may be silence."
            ),
            click.option(
                "--hallucination-silence-threshold",
                type=number_or_none,
                metavar="S",
                help="With word times: skip doubtful text beside so many seconds of silence.",
            ),
            click.option(
                "--condition-on-previous-text/--no-condition-on-previous-text",
                default=None,
                help="Let each window see what was written before (default).",
            ),
            click.option(
                "--suppress-tokens", metavar="ID,...", help="Tokens never written; -1: the model's list."
            ),
            click.option(
                "--clip-timestamps", type=numbers, metavar="S,S,...", help="Seconds: start,end,start,..."
            ),
            click.option("--max-tokens", type=int, metavar="N", help="Most tokens for one window."),
            click.option(
                "--batch-size", type=int, metavar="N", help="Windows decoded together; cuts at pauses."
            ),
            click.option("--seed", type=int, metavar="N", help="Of sampling at temperatures above 0."),
            click.option(
                "--window-seconds", type=float, metavar="S", help="Longest stretch that is read at once."
            ),
            click.option(
                "--hotword-boost", type=float, metavar="X", help="Weight of the hotwords in a beam search."
            ),
        ]
    )(command)


DECODING = (
    "language task timestamps initial_prompt carry_initial_prompt hotwords prefix beam_size best_of patience "
    "length_penalty temperature compression_ratio_threshold logprob_threshold no_speech_threshold "
    "hallucination_silence_threshold condition_on_previous_text suppress_tokens clip_timestamps max_tokens "
    "batch_size seed window_seconds hotword_boost"
).split()


def given_options(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Those decoding options that the user gave, as keyword arguments of `transcribe`."""
    given = {
        name: values[name] for name in DECODING if ctx.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    if "temperature" in given:
        ladder = tuple(number for part in given["temperature"] for number in part)
        given["temperature"] = ladder[0] if len(ladder) == 1 else ladder
    return given


__all__ = ["DECODING", "decoding_options", "device_options", "given_options", "model_options", "numbers"]
