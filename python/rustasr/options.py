"""What the options of every family share: how values are checked, and how some are overridden."""

from __future__ import annotations

import math
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


__all__ = ["TIMESTAMPS", "Options", "between", "check_clips", "integer", "number", "one_of"]
