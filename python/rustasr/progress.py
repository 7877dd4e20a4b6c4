"""How long work tells its caller where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rustasr.types import Segment


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transcription stands: seconds of audio done, of `total_s` (None when unknown).

    `segments_so_far` is what has been recognised up to now; it may be the transcriber's own growing
    list, so copy it before keeping it.
    """

    done_s: float
    total_s: float | None = None
    segments_so_far: Sequence[Segment] = ()

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


__all__ = ["FileProgress", "PartialText", "Progress", "ProgressCallback", "TextCallback"]
