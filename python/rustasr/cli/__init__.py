"""The command line: `rustasr COMMAND`.

Commands are imported when they are used, so that `rustasr --help` answers at once. Errors become one
line on standard error and an exit code:

    0  done
    1  some input failed; the rest is written
    2  wrong usage
    3  a problem with the model or the device
    130  interrupted; finished parts are on disk
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from rustasr.errors import Cancelled, DeviceError, ModelError, OptionError, RustAsrError

EXIT_INPUT, EXIT_USAGE, EXIT_MODEL, EXIT_INTERRUPTED = 1, 2, 3, 130

COMMANDS = {
    "transcribe": "Turn recordings into text or subtitles.",
    "diarize": "Write down who said what, and when.",
    "convert": "Make one self-contained GGUF from a model in another format.",
    "quantize": "Make a smaller GGUF.",
    "models": "List, inspect, fetch, verify and remove models.",
    "devices": "List what models can run on.",
    "test": "Report on this installation and check that it computes.",
    "benchmark": "Measure speed, memory and accuracy of models.",
}


class Commands(click.Group):
    """The group of all commands: loads a command's module when asked for it, and maps errors to codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"rustasr.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled):
            click.echo("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except RustAsrError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(exit_code(error))
        except ImportError as error:  # the compiled part is missing or does not load
            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_MODEL)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click ends quietly: who reads our output has gone
            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_INPUT)


def exit_code(error: RustAsrError) -> int:
    """The process exit code that belongs to an error."""
    if isinstance(error, (ModelError, DeviceError)):
        return EXIT_MODEL
    return EXIT_USAGE if isinstance(error, OptionError) else EXIT_INPUT


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import rustasr

        click.echo(f"rustasr {rustasr.__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def main() -> None:
    """Speech recognition on ggml.

    \b
    Examples:
      rustasr transcribe talk.mp3
      rustasr transcribe talk.mp3 --model whisper-base --format srt -o talk.srt
      rustasr models list
    """


__all__ = ["exit_code", "main"]
