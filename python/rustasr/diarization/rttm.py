"""RTTM, the NIST format of turns: one line each, times in seconds.

    SPEAKER <file> <channel> <start> <duration> <NA> <NA> <name> <NA> <NA>

Fields are separated by white space, so that names cannot contain any: it is written as "_". Times are
written to the millisecond. Of other line types (SPKR-INFO, LEXEME, ...) and of comments (;;) nothing is read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rustasr.errors import AudioError
from rustasr.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable


def to_rttm(turns: Iterable[Turn], recording: str, channel: int = 1) -> str:
    """The turns of one recording, in order; a turn that rounds to no time is left out."""
    lines = []
    for turn in sorted(turns):
        start, end = round(turn.start * 1000), round(turn.end * 1000)
        if end > start:
            times = f"{start / 1000:.3f} {(end - start) / 1000:.3f}"
            fields = (_field(recording), str(channel), times, "<NA> <NA>", _field(turn.speaker), "<NA> <NA>")
            lines.append(" ".join(("SPEAKER", *fields)))
    return "".join(f"{line}\n" for line in lines)


def read_rttm(text: str, name: str = "RTTM") -> dict[str, list[Turn]]:
    """Turns by recording, each in order. Raises AudioError for a line that is no turn; `name` is what the
    message calls the text.
    """
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith(";") or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise AudioError(
                f"{name}, line {number}: expected SPEAKER and at least 7 more fields, found {len(fields) - 1}"
            )
        start, duration = (_seconds(field, name, number) for field in fields[3:5])
        turn = Turn(start, round(start + duration, 6), fields[7])
        found.setdefault(fields[1], []).append(turn)
    return {recording: sorted(turns) for recording, turns in found.items()}


def _seconds(field: str, name: str, number: int) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise AudioError(f"{name}, line {number}: expected seconds from 0, found {field!r}")
    return value


def _field(text: str) -> str:
    return "_".join(text.split()) or "_"


__all__ = ["read_rttm", "to_rttm"]
