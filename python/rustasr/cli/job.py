"""What commands do alike that work through recordings: skip what is done, load once, outlive a failure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from rustasr.cli.interrupt import Worker
from rustasr.cli.loading import load
from rustasr.errors import AudioError

if TYPE_CHECKING:
    from rustasr.model import AsrModel

Where = TypeVar("Where")
"""Where the result of a recording goes; falsy for standard output."""


@dataclass(slots=True, kw_only=True)
class Job(ABC, Generic[Where]):
    """One call of a command: the same model and options for every recording."""

    progress: bool | None
    quiet: bool
    resume: bool

    def run(self, recordings: list[str | AudioError], values: dict[str, Any]) -> int:
        """Do all recordings, report those that fail, and return the exit code."""
        planned = self._planned([name for name in recordings if isinstance(name, str)])
        failed = [error for error in recordings if isinstance(error, AudioError)]
        for error in failed:
            click.echo(f"error: {error}", err=True)
        todo = [(name, where) for name, where in planned if not (self.resume and self._is_done(where))]
        self._note(f"{len(planned) - len(todo)} of {len(planned)} recordings are done already", self.resume)
        n_failed = len(failed)
        if todo:
            model = load(values, self.progress)
            worker = Worker(model.cancel)
            for name, where in todo:
                self._note(f"{name}:", len(planned) > 1 and not where)
                n_failed += not self._one(model, worker, name, where)
                if worker.interrupted:  # just when the recording was finished
                    raise KeyboardInterrupt
        return 1 if n_failed else 0

    @abstractmethod
    def _planned(self, names: list[str]) -> list[tuple[str, Where]]:
        """Each recording with where its result goes."""

    @abstractmethod
    def _is_done(self, where: Where) -> bool:
        """Whether an earlier call has written the result."""

    @abstractmethod
    def _one(self, model: AsrModel, worker: Worker, name: str, where: Where) -> bool:
        """Do and write one recording; False when that failed. Ctrl-C writes the finished part."""

    def _note(self, text: str, wanted: bool = True) -> None:
        if wanted and not self.quiet:
            click.echo(text, err=True)


__all__ = ["Job"]
