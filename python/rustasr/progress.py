"""How long work tells its caller where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rustasr.types import Segment


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transcription stands: seconds of audio done, of `total_s` (None when unknown).

    `segments_so_far` is what has been recognised up to now; it may be the transcriber's own growing
    list, so copy it before keeping it. `eta_s` is how many seconds the rest will take at the mean speed
    so far; None when that is not known yet.
    """

    done_s: float
    total_s: float | None = None
    segments_so_far: Sequence[Segment] = ()
    eta_s: float | None = None

    @property
    def fraction(self) -> float | None:
        """Part done, 0 to 1, or None when the total is unknown."""
        if self.total_s is None or self.total_s <= 0:
            return None
        return min(1.0, max(0.0, self.done_s / self.total_s))


@dataclass(frozen=True, slots=True)
class PartialText:
    """Text as it comes in: all that is known by now of what begins at `start` (seconds).

    A later one with the same `start` replaces it, until one is `final`. Several stretches may grow at the
    same time.
    """

    start: float
    text: str
    final: bool


TextCallback: TypeAlias = Callable[[PartialText], None]
"""Called from the transcribing thread; an exception it raises stops the work."""

ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called now and then from the transcribing thread; an exception it raises stops the work."""

FileProgress: TypeAlias = Callable[[int, int, str], None]
"""(done, total, what): bytes or tensors of a download, conversion or quantisation."""


def part(report: ProgressCallback, first: float, last: float) -> ProgressCallback:
    """Progress of a step that is the part from `first` to `last` (0 to 1) of the whole work."""

    def tell(progress: Progress) -> None:
        before = first * (progress.total_s or 0.0)
        report(replace(progress, done_s=before + (last - first) * progress.done_s))

    return tell


class Timed:
    """Hands progress on with the time that is left (`eta_s`), from the mean speed since `restart`."""

    def __init__(self, report: ProgressCallback) -> None:
        self._report = report
        self._began = time.monotonic()
        self._first = 0.0  # seconds of audio that were done then

    def __call__(self, progress: Progress) -> None:
        """A `ProgressCallback`."""
        done = progress.done_s - self._first
        if progress.total_s and done > 0:
            left = max(0.0, progress.total_s - progress.done_s)
            progress = replace(progress, eta_s=left * (time.monotonic() - self._began) / done)
        self._report(progress)

    def restart(self, done_s: float) -> None:
        """What is done by now took no time: it is known from an earlier run."""
        self._began, self._first = time.monotonic(), done_s


__all__ = ["FileProgress", "PartialText", "Progress", "ProgressCallback", "TextCallback", "Timed", "part"]
