"""Turns in order: joined, named, counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rustasr.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def speakers_of(turns: Iterable[Turn]) -> list[str]:
    """The speakers, in the order in which they are first heard."""
    return list(dict.fromkeys(turn.speaker for turn in sorted(turns)))


def joined(turns: Iterable[Turn], gap_s: float = 0.0) -> list[Turn]:
    """Turns in order, those of one speaker joined where they overlap, and where at most `gap_s` lies between
    them in which nobody else speaks.
    """
    made, last = list[Turn](), dict[str, int]()  # by speaker: the place of the last turn
    for turn in sorted(turns):
        place = last.get(turn.speaker)
        if place is not None:
            before = made[place]
            others = max((made[i].end for name, i in last.items() if name != turn.speaker), default=0.0)
            is_alone = turn.start - before.end <= gap_s and others <= before.end
            if turn.start <= before.end or is_alone:
                made[place] = replace(before, end=max(before.end, turn.end))
                continue
        last[turn.speaker] = len(made)
        made.append(turn)
    return sorted(made)


def renamed(turns: Iterable[Turn], names: Mapping[str, str]) -> list[Turn]:
    """The same turns with other names; a speaker without an entry keeps the old one."""
    return [replace(turn, speaker=names.get(turn.speaker, turn.speaker)) for turn in turns]


__all__ = ["joined", "renamed", "speakers_of"]
