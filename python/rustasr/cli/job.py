"""What commands do alike that work through recordings: skip what is done, load once, outlive a failure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from rustasr.cli.interrupt import Worker
from rustasr.cli.loading import load
from rustasr.errors import AudioError, Cancelled, TranscriptionError

if TYPE_CHECKING:
    from pathlib import Path

    from rustasr.model import AsrModel
    from rustasr.types import TranscriptionResult

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
    def _journal_of(self, where: Where) -> Path | None:
        """Where unfinished work is kept, from which --resume continues; None: nowhere."""

    @abstractmethod
    def _transcribe(
        self, model: AsrModel, worker: Worker, name: str, journal: dict[str, Any]
    ) -> TranscriptionResult:
        """Do one recording; `journal` is the argument of the call that makes it continue."""

    @abstractmethod
    def _write(self, result: TranscriptionResult, name: str, where: Where, *, partial: bool) -> None:
        """Write the result, or the finished part of one that was interrupted, and say where."""

    def _one(self, model: AsrModel, worker: Worker, name: str, where: Where) -> bool:
        """Do and write one recording; False when that failed. Ctrl-C writes the finished part."""
        journal = self._journal_of(where)
        try:
            result = self._transcribe(model, worker, name, self._continued(name, journal))
        except Cancelled as stop:
            if stop.partial is not None and stop.partial.segments:
                self._write(stop.partial, name, where, partial=True)
            self._note(f"the same command with --resume continues {name}", journal is not None)
            raise
        except (AudioError, TranscriptionError) as error:
            click.echo(f"error: {error}", err=True)
            return False
        try:
            self._write(result, name, where, partial=False)
        except OSError as error:
            click.echo(f"error: {name}: the result cannot be written: {error}", err=True)
            return False
        if journal is not None:
            journal.unlink(missing_ok=True)
        for warning in result.warnings:
            self._note(f"warning: {name}: {warning}")
        return True

    def _continued(self, name: str, journal: Path | None) -> dict[str, Any]:
        """The argument that makes a transcription continue, or leave something to continue."""
        if journal is None:
            return {}
        if journal.exists():
            if self.resume:
                self._note(f"{name}: continuing what an earlier run began ({journal})")
            else:
                self._note(f"{name}: begun anew; --resume would have continued an earlier run ({journal})")
                journal.unlink()
        return {"journal": journal}

    def _note(self, text: str, wanted: bool = True) -> None:
        if wanted and not self.quiet:
            click.echo(text, err=True)


__all__ = ["Job"]
