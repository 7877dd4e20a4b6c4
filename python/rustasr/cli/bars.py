"""Progress bars on standard error: only on a terminal or when forced, and only after two seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from rustasr.progress import Progress

PATIENCE_SECONDS = 2.0


class Bar:
    """A bar that appears once the work has taken two seconds, with the time that is left.

    `wanted`: True forces it, False forbids it, None shows it when standard error is a terminal.
    """

    def __init__(self, title: str, wanted: bool | None = None) -> None:
        self._title = title
        self._wanted = sys.stderr.isatty() if wanted is None else wanted
        self._began = time.monotonic()
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None

    def audio(self, progress: Progress) -> None:
        """A `rustasr.progress.ProgressCallback`: seconds of audio."""
        self.update(progress.done_s, progress.total_s, seconds_left=progress.eta_s)

    def file(self, done: int, total: int, what: str) -> None:
        """A `rustasr.progress.FileProgress`: bytes or tensors."""
        self.update(done, total or None, what)

    def update(
        self, done: float, total: float | None, what: str | None = None, seconds_left: float | None = None
    ) -> None:
        if not self._wanted:
            return
        if self._rich is None:
            if time.monotonic() - self._began < PATIENCE_SECONDS:
                return
            self._start(total)
        assert self._rich is not None and self._task is not None
        title = self._title if what is None else f"{self._title}: {what}"
        left = _clock(self._time_left(done, total) if seconds_left is None else seconds_left)
        self._rich.update(self._task, completed=done, total=total, description=_shorten(title), left=left)

    def _time_left(self, done: float, total: float | None) -> float | None:
        """From the mean speed since the beginning: steadier than the speed of the last seconds."""
        if not total or done <= 0:
            return None
        return (total - done) * (time.monotonic() - self._began) / done

    def _start(self, total: float | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns: list[Any] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
        ]
        columns.append(TextColumn("{task.fields[left]}"))
        console = Console(stderr=True, force_terminal=True if not sys.stderr.isatty() else None)
        self._rich = Progress(*columns, console=console, transient=True)
        self._task = self._rich.add_task(_shorten(self._title), total=total, left="")
        self._rich.start()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()


def _clock(seconds_left: float | None) -> str:
    if seconds_left is None:
        return ""
    minutes, seconds = divmod(max(0, round(seconds_left)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"


def _shorten(text: str, width: int = 40) -> str:
    return text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-(width // 2) :]}"


__all__ = ["Bar"]
