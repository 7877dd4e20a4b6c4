"""A model's own configuration (JSON, YAML or OmegaConf) as checked values.

Each getter says what it wants; a key that is missing or holds something else is a ModelFileError with the
file, the key's path, what was expected and what was found.
"""

from __future__ import annotations

import re
from typing import Any

from rustasr.convert.common import shown
from rustasr.errors import ModelFileError, UnsupportedModelError

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MAX_REFERENCES = 16
_REQUIRED: Any = object()


class Config:
    """One level of a configuration. `${a.b}` as a whole value stands for the value at that path from the
    root, as in OmegaConf."""

    def __init__(self, data: Any, where: str, path: str = "", root: Config | None = None) -> None:
        if not isinstance(data, dict):
            raise ModelFileError(f"{where}: {path or 'it'} is {shown(data)}, expected keys with values")
        self.data, self.where, self.path = data, where, path
        self.root = root or self

    def section(self, key: str) -> Config:
        """The level below `key`."""
        return Config(self.value(key), self.where, self._full(key), self.root)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.value(key, None) is not None

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """Whatever is at `key`."""
        found = self.data.get(key, default)
        if found is _REQUIRED:
            raise ModelFileError(f"{self.where}: {self._full(key)!r} is missing")
        return self._resolved(found, key)

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        """A whole number from `low` to `high`."""
        found = self.value(key, default)
        if type(found) is not int or not low <= found <= high:
            raise self._wrong(key, found, f"a whole number {low} to {high}")
        return found

    def number(self, key: str, low: float, high: float, default: Any = _REQUIRED) -> float:
        """A number from `low` to `high`."""
        found = self.value(key, default)
        if type(found) not in (int, float) or not low <= found <= high:
            raise self._wrong(key, found, f"a number {low:g} to {high:g}")
        return float(found)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """true or false."""
        found = self.value(key, default)
        if type(found) is not bool:
            raise self._wrong(key, found, "true or false")
        return found

    def text(self, key: str) -> str:
        """Text that is not empty."""
        found = self.value(key)
        if not isinstance(found, str) or not found:
            raise self._wrong(key, found, "text")
        return found

    def choice(self, key: str, known: tuple[str, ...], default: Any = _REQUIRED) -> str:
        """One of the `known` words; another word is an UnsupportedModelError."""
        found = self.value(key, default)
        if found not in known or not isinstance(found, str):
            raise self._unsupported(key, found, " or ".join(map(repr, known)))
        return found

    def integers(self, key: str, low: int, high: int, most: int) -> tuple[int, ...]:
        """A list of one to `most` whole numbers."""
        found = self.value(key)
        good = isinstance(found, list) and 0 < len(found) <= most
        if not good or any(type(item) is not int or not low <= item <= high for item in found):
            raise self._wrong(key, found, f"1 to {most} whole numbers {low} to {high}")
        return tuple(found)

    def fixed(self, **wanted: Any) -> None:
        """Keys that may be absent or null but, when set, must have the value that is implemented."""
        for key, value in wanted.items():
            found = self.value(key, None)
            if found is not None and (found != value or isinstance(found, bool) != isinstance(value, bool)):
                raise self._unsupported(key, found, repr(value))

    def _resolved(self, found: Any, key: str) -> Any:
        for _ in range(_MAX_REFERENCES):
            match = _REFERENCE.fullmatch(found) if isinstance(found, str) else None
            if match is None:
                return found
            found = self.root.data
            for part in match[1].split("."):
                if not isinstance(found, dict) or part not in found:
                    raise ModelFileError(
                        f"{self.where}: {self._full(key)!r} refers to {match[1]!r}, which is missing"
                    )
                found = found[part]
        raise ModelFileError(f"{self.where}: {self._full(key)!r} refers to itself")

    def _full(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def equals(self, key: str, wanted: int) -> None:
        """The same number as another part of the configuration has."""
        if self.value(key) != wanted:
            raise self._wrong(key, self.value(key), f"{wanted} as in the other parts")

    def _wrong(self, key: str, found: Any, wanted: str) -> ModelFileError:
        return ModelFileError(f"{self.where}: {self._full(key)!r} is {shown(found)}, expected {wanted}")

    def _unsupported(self, key: str, found: Any, wanted: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{self.where}: {self._full(key)!r} is {shown(found)}, only {wanted} is implemented"
        )
