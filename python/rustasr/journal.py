"""What a transcription has finished stays finished: an append-only file of its rounds.

::

    header   what the rounds belong to: the recording, the model, the options
    round    [key, value, seconds]          one line each, with a checksum, written before the next begins

A run asks `remember` for every round. What the journal holds is given back without computing it, so that
the run goes through the same states as the one that was interrupted, and arrives where that stopped; what
it does not hold is computed and written down. Nothing else has to be saved: a round's value and the rules
that follow it say everything, random numbers too (every window draws from a stream of its own).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import types
import typing
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rustasr.audio import AudioSource, FileSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

T = TypeVar("T")

FORMAT = 1
PATIENCE_S = 5.0  # work of less than this is not worth a file
SYNC_S = 1.0  # work of less than this is not worth waiting for the disk
_PIECE = 1 << 20


class Rounds:
    """Rounds that nothing remembers."""

    replaying = False  # whether the last round was known before
    known_seconds = 0.0  # spent on these by an earlier run
    warnings: tuple[str, ...] = ()

    def remember(self, key: Sequence[Any], kind: Any, compute: Callable[[], T]) -> T:  # noqa: ARG002
        """What `compute` gives, or gave before. `key` (JSON values) tells the rounds of a run apart; `kind`
        is the type of the value: plain values, and lists, tuples, dataclasses and dictionaries (with texts
        as keys) of them.
        """
        return compute()

    def close(self) -> None:
        """Let go of the file."""


class RoundsWithin(Rounds):
    """The rounds of a part of larger work, kept among those of the whole, which has the file and warns."""

    def __init__(self, whole: Rounds, name: str) -> None:
        self._whole, self._name = whole, name

    def remember(self, key: Sequence[Any], kind: Any, compute: Callable[[], T]) -> T:
        value = self._whole.remember([self._name, *key], kind, compute)
        self.replaying = self._whole.replaying
        return value


class Journal(Rounds):
    """Rounds in the file at `path`, which is continued where it belongs to the same work.

    `identity` names what the work depends on, each with a text that changes when it does. A file of other
    work, or one that is damaged, is moved to NAME.1, NAME.2, … and `warnings` says so; a last line that was
    not written to its end is left out. `spent` gives the seconds spent so far, earlier runs included.
    """

    def __init__(
        self,
        path: Path,
        identity: Callable[[], Mapping[str, str]],
        spent: Callable[[], float],
        patience_s: float | None = None,
    ) -> None:
        self._path = path
        self._identity = identity
        self._spent = spent
        self._began = time.monotonic()
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._held = list[bytes]()  # rounds of which the file does not know yet
        self._out: IO[bytes] | None = None
        self._known: IO[bytes] | None = None
        self._failed = False
        self._synced = 0.0
        if path.exists():
            self._open()

    def remember(self, key: Sequence[Any], kind: Any, compute: Callable[[], T]) -> T:
        found = self._next(list(key))
        self.replaying = found is not None
        if found is not None:
            self.known_seconds = found[1]
            value: T = build(kind, found[0])
            return value
        value = compute()
        self._held.append(_line([list(key), plain(value), round(self._spent(), 3)]))
        if self._out is not None or time.monotonic() - self._began >= self._patience_s:
            self._write()
        return value

    def close(self) -> None:
        for file in (self._out, self._known):
            if file is not None:
                file.close()

    # An earlier run's file

    def _open(self) -> None:
        """Continue the file, or move it out of the way."""
        good, problem = 0, ""
        with self._path.open("rb") as file:
            for n, line in enumerate(file):
                content = _content(line)
                if content is None:
                    # What a kill or a power failure leaves is an unfinished last line.
                    problem = "" if not file.read(1) else f"it is damaged in line {n + 1} (byte {good})"
                    break
                if n == 0:
                    problem = self._foreign(content)
                    if problem:
                        break
                good += len(line)
        if problem:
            self._set_aside(problem)
        elif good:
            os.truncate(self._path, good)
            self._known = self._path.open("rb")
            self._known.readline()
        else:
            self._path.unlink()

    def _foreign(self, header: Any) -> str:
        """What the header's work has different from ours; "" for nothing."""
        if not isinstance(header, dict) or header.get("journal") != FORMAT:
            return "it is no journal of this version"
        ours = self._identity()
        other = [name for name in ours if header.get(name) != ours[name]]
        return f"it was written for another {' and another '.join(other)}" if other else ""

    def _set_aside(self, problem: str) -> None:
        n = 1
        while (aside := self._path.with_name(f"{self._path.name}.{n}")).exists():
            n += 1
        self._path.replace(aside)
        self.warnings += (
            f"the journal {self._path} cannot be continued: {problem}; it was kept as {aside.name}, and the "
            "recording was begun anew",
        )

    def _next(self, key: list[Any]) -> tuple[Any, float] | None:
        """(value, seconds) of the next round that the file knows."""
        if self._known is None:
            return None
        place = self._known.tell()
        content = _content(self._known.readline())
        if content is not None and content[0] == json.loads(json.dumps(key)):
            return content[1], float(content[2])
        at_end = content is None
        self._known.close()
        self._known = None
        if at_end:
            self._out = self._path.open("ab")
        else:  # the rounds before are ours, so the program must have changed
            rest = self._path.read_bytes()
            self._set_aside(f"its round at byte {place} is not the one that follows here")
            self._path.write_bytes(rest[:place])
            self._out = self._path.open("ab")
        self._began = time.monotonic() - self._patience_s
        return None

    def _write(self) -> None:
        """What is held goes to the disk. Where that fails the work is done without a journal."""
        lines, self._held = self._held, []
        if self._failed:
            return
        try:
            if self._out is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._out = self._path.open("wb")
                lines.insert(0, _line({"journal": FORMAT, **self._identity()}))
            self._out.write(b"".join(lines))
            self._out.flush()  # to the system: no kill of this process can undo it
            if time.monotonic() - self._synced >= SYNC_S:
                os.fsync(self._out.fileno())  # to the disk: nor can a power failure
                self._synced = time.monotonic()
        except OSError as error:
            self._failed = True
            self.warnings += (
                f"the journal {self._path} cannot be written ({error}): this run cannot be resumed",
            )


def _line(content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_number)
    raw = text.encode("utf-8", "surrogatepass")
    return b'{"crc":"%08x","content":%s}\n' % (zlib.crc32(raw), raw)


_HEAD = len(b'{"crc":"00000000","content":')


def _content(line: bytes) -> Any:
    """What a line holds, or None for one that is damaged or not complete."""
    raw = line[_HEAD:-2]
    if not line.endswith(b"}\n") or line[:_HEAD] != b'{"crc":"%08x","content":' % zlib.crc32(raw):
        return None
    return json.loads(raw.decode("utf-8", "surrogatepass"))


def _number(value: Any) -> float:
    """NumPy's numbers, exactly."""
    return float(value)


# --- values as JSON and back


def plain(value: Any) -> Any:
    """A value as JSON has it: a dataclass is the list of its fields."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if dataclasses.is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def build(kind: Any, value: Any) -> Any:
    """The value of type `kind` that `plain` was given."""
    if value is None:
        return None
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return build(next(one for one in inner if one is not type(None)), value)
    if origin is dict:
        return {name: build(inner[1], item) for name, item in value.items()}
    if origin in (list, tuple):
        each = [inner[0]] * len(value) if origin is list or inner[-1] is Ellipsis else inner
        return origin(build(one, item) for one, item in zip(each, value, strict=True))
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        names = [field.name for field in dataclasses.fields(kind)]
        make: Any = kind
        return make(**{name: build(hints[name], item) for name, item in zip(names, value, strict=True)})
    if isinstance(kind, type) and issubclass(kind, tuple):  # a NamedTuple
        return kind(*value)
    return value


_known_hints: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _known_hints:
        _known_hints[kind] = typing.get_type_hints(kind)
    return _known_hints[kind]


# --- identities


def identity(source: AudioSource, model: Any, *settings: Any) -> dict[str, str]:
    """What the rounds of a transcription belong to. `settings` are all that changes what `model` makes of
    the recording: plain values, dataclasses, and what `settings_of` gives for the rest.
    """
    import rustasr

    path = getattr(getattr(model, "core", None), "path", None)
    return {
        "recording": recording_identity(source),
        "model": str(model.name) if path is None else model_identity(path),
        "set of options": repr(settings),
        "version of rustasr": str(rustasr.__version__),
    }


def settings_of(helper: Any) -> Any:
    """What tells a detector, an aligner or an encoder from others: its file, or its class and options."""
    path = getattr(getattr(helper, "core", None), "path", None)
    if path is not None:
        return model_identity(path), getattr(helper, "options", None)
    if helper is None or isinstance(helper, (str, Path)):
        return None if helper is None else str(helper)
    return type(helper).__name__, getattr(helper, "name", None), getattr(helper, "options", None)


def recording_identity(source: AudioSource) -> str:
    """SHA-256 of a recording's file, and its channel that is heard; of the samples where it has no file."""
    digest = hashlib.sha256()
    if isinstance(source, FileSource):
        with source.raw() as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return f"{digest.hexdigest()} channel {source.channel}"
    for block in source.blocks(30.0):
        digest.update(block.tobytes())
    return digest.hexdigest()


def model_identity(path: str | Path) -> str:
    """SHA-256 over a model file's size, its beginning (what it says of itself) and samples of its weights."""
    digest = hashlib.sha256()
    with contextlib.closing(Path(path).open("rb")) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        digest.update(file.read(4 * _PIECE))
        for n in range(64):
            file.seek(size * n // 64)
            digest.update(file.read(1 << 14))
    return digest.hexdigest()


__all__ = [
    "Journal",
    "Rounds",
    "RoundsWithin",
    "build",
    "identity",
    "model_identity",
    "plain",
    "recording_identity",
    "settings_of",
]
