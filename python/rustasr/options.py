"""What the options of every family share: how values are checked, and how some are overridden."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from rustasr.errors import OptionError

TIMESTAMPS = ("none", "segment", "word")

Self = TypeVar("Self", bound="Options")


@dataclass(frozen=True, slots=True)
class Options:
    """Base of the families' options: one frozen dataclass each, checked when it is made."""

    def override(self: Self, **changes: Any) -> Self:
        """A copy with some options changed; OptionError for a name that is not an option."""
        known = [field.name for field in fields(self)]
        unknown = [name for name in changes if name not in known]
        if unknown:
            family = type(self).__name__.removesuffix("Options")
            raise OptionError(
                f"{family} has no option {unknown[0]!r}; its options are: {', '.join(sorted(known))}"
            )
        return replace(self, **changes) if changes else self

    def changes(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        usual = type(self)()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(usual, name)}


@dataclass(frozen=True, slots=True)
class WindowOptions(Options):
    """What models have in common that write what they hear, window by window, and do not translate.

    A family's `__post_init__` calls the one here, and then checks what is its own.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: str = "segment"
    hotwords: str | tuple[str, ...] = ()
    clip_timestamps: tuple[float, ...] = ()
    batch_size: int = 4

    def __post_init__(self) -> None:
        for name in ("hotwords", "clip_timestamps"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, (str, tuple)):
                object.__setattr__(self, name, tuple(value))
        one_of("timestamps", self.timestamps, TIMESTAMPS)
        if self.task != "transcribe":
            raise OptionError(
                f"task: this model can only transcribe, found {self.task!r}; "
                "to translate use a multilingual Whisper, for instance whisper-base"
            )
        integer("batch_size", self.batch_size, 1, 256)
        check_clips(self.clip_timestamps)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """OptionError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise OptionError(f"{name}: expected one of {', '.join(allowed)}, found {value!r}")


def number(name: str, value: Any) -> float:
    """`value` as a float; OptionError for anything but a number."""
    try:
        if isinstance(value, (str, bool)):
            raise TypeError
        converted = float(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name}: expected a number, found {value!r}") from None
    if math.isnan(converted):
        raise OptionError(f"{name}: expected a number, found NaN")
    return converted


def between(name: str, value: Any, low: float, high: float) -> None:
    """OptionError unless `value` is a number from `low` to `high`."""
    if not low <= number(name, value) <= high:
        raise OptionError(f"{name}: expected {low:g} to {high:g}, found {value!r}")


def integer(name: str, value: Any, low: int, high: int) -> None:
    """OptionError unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")


def check_clips(clips: Any) -> None:
    """OptionError unless `clip_timestamps` are rising seconds from 0."""
    if isinstance(clips, str):
        raise OptionError(
            f"clip_timestamps: expected seconds, for instance (0, 12.5, 30, 41), found the text {clips!r}"
        )
    last = 0.0
    for value in clips:
        if not last <= number("clip_timestamps", value) < math.inf:
            raise OptionError(
                "clip_timestamps: expected rising seconds from 0 (start, end, start, end, ...), "
                f"found {value!r} after {last!r}"
            )
        last = float(value)


__all__ = [
    "TIMESTAMPS",
    "Options",
    "WindowOptions",
    "between",
    "check_clips",
    "integer",
    "number",
    "one_of",
]
