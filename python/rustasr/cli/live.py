"""Text on the terminal while it is being recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rustasr.progress import PartialText


class LiveText:
    """Prints the text of a recording as it grows: a line for each stretch, in order.

    Stretches that are recognised at the same time wait for the ones before them. Where a text is taken
    back (the decoder was caught in a loop) the line begins anew.
    """

    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._texts: dict[float, tuple[str, bool]] = {}
        self._shown = ""

    def __call__(self, text: PartialText) -> None:
        """A `rustasr.progress.TextCallback`."""
        self._texts[text.start] = (text.text, text.final)
        while self._texts:
            first = min(self._texts)
            current, final = self._texts[first]
            self._show(current)
            if not final:
                break
            self._end_line()
            del self._texts[first]

    def close(self) -> None:
        """End the line of a text that was left unfinished."""
        self._end_line()

    def _show(self, text: str) -> None:
        line = " ".join(text.split())
        if not line.startswith(self._shown):
            self._end_line()
        self._echo(line[len(self._shown) :])
        self._shown = line

    def _end_line(self) -> None:
        if self._shown:
            self._echo("\n")
        self._shown = ""

    def _echo(self, text: str) -> None:
        if text:
            click.echo(text, nl=False, err=self._to_stderr)


__all__ = ["LiveText"]
