"""Answers as a journal keeps them: without the samples of their windows, which are read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr.families.qwen3_decode import Heard
from rustasr.longform import Window

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Kept:
    """`Heard` with its window as (first sample, number of samples)."""

    start: int
    n_samples: int
    tokens: list[int]
    logprobs: list[float]
    finish: str
    temperature: float
    doubted: bool

    @classmethod
    def of(cls, heard: Heard) -> Kept:
        window = heard.window
        return cls(
            window.start,
            len(window.samples),
            list(heard.tokens),
            list(heard.logprobs),
            heard.finish,
            heard.temperature,
            heard.doubted,
        )

    def heard(self, windows: Sequence[Window]) -> Heard:
        """The answer; its window is one of `windows` or a part of one."""
        whole = max((window for window in windows if window.start <= self.start), key=lambda w: w.start)
        first = self.start - whole.start
        window = Window(self.start, whole.samples[first : first + self.n_samples])
        return Heard(window, self.tokens, self.logprobs, self.finish, self.temperature, self.doubted)


__all__ = ["Kept"]
