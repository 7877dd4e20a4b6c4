"""Segments in, subtitle cues out: short enough to read, cut where a reader would pause.

A cue has at most two lines of 42 characters (a wide East Asian character counts as two) and stays at
most 7 s. Cuts prefer sentence ends, then clause ends, then pauses. Every written character is kept.
Times come from the words where the segment has them, otherwise they are shared out by characters.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rustasr.types import Segment

LINE_WIDTH = 42
MAX_LINES = 2
MAX_SECONDS = 7.0
MIN_SECONDS = 1.0  # a shorter cue is held while nothing else wants the screen
PAUSE_SECONDS = 0.4

SENTENCE_END = frozenset(".!?…。！？؟।")
CLAUSE_END = frozenset(",;:—–、，；：،")
CLOSING = frozenset("\"'”’»)]}」』）】》〉")
OPENING = frozenset("([{«“‘「『（【《〈¿¡")
# Scripts that are written without spaces between words: a line may break at any of these characters.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x30FF),  # CJK radicals and punctuation, kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),  # full-width forms
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: milliseconds from the beginning of the file, one or two lines, and who says them."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece of text that is not broken: a word, or one character of an unspaced script."""

    text: str
    spaced: bool  # a space separates it from the piece before
    start: float
    end: float
    width: int


def cues(segments: Iterable[Segment], duration: float, *, names: bool = False) -> list[Cue]:
    """The cues of all segments in order. Times never overlap, run backwards or leave the file.

    `names`: a segment begins with the name of its speaker, where that is known.
    """
    limit = int(duration * 1000)
    made: list[Cue] = []
    for segment in segments:
        units = list(_units(segment))
        if names and units and segment.speaker is not None:
            units[:1] = _named(units[0], segment.speaker)
        for first, last in _partition(units):
            cue = _cue(units[first:last], made[-1].end_ms if made else 0, limit)
            made.append(replace(cue, speaker=segment.speaker))
    return _held(made, limit)


def _named(unit: _Unit, speaker: str) -> list[_Unit]:
    """The piece after the name: in one, since they are read together, where a line has room for both."""
    text = f"{' '.join(speaker.split())}: {unit.text}"
    if text_width(text) <= LINE_WIDTH:
        return [replace(unit, text=text, width=text_width(text))]
    pieces = [piece for word in f"{speaker}:".split() for piece in _pieces(word)]
    name = [_Unit(piece, i > 0, unit.start, unit.start, text_width(piece)) for i, piece in enumerate(pieces)]
    return [*name, replace(unit, spaced=True)]


def text_width(text: str) -> int:
    """Columns that a text takes: two for a wide East Asian character, one for any other."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _cue(units: Sequence[_Unit], earliest: int, limit: int) -> Cue:
    start = min(max(earliest, round(units[0].start * 1000)), limit)
    end = max(start, min(round(units[-1].end * 1000), start + int(MAX_SECONDS * 1000), limit))
    return Cue(start, end, _lines(units))


def _held(made: Sequence[Cue], limit: int) -> list[Cue]:
    """Hold a cue that is too short to read until `MIN_SECONDS`, or until the next one begins."""
    held = []
    for index, cue in enumerate(made):
        room = made[index + 1].start_ms if index + 1 < len(made) else limit
        end = max(cue.end_ms, min(cue.start_ms + int(MIN_SECONDS * 1000), room))
        held.append(replace(cue, end_ms=end))
    return held


# --- a segment's text as timed pieces


def _units(segment: Segment) -> Iterator[_Unit]:
    times = _character_times(segment)
    at = 0
    for word in segment.text.split():
        for index, piece in enumerate(_pieces(word)):
            start, end = times[at][0], times[at + len(piece) - 1][1]
            at += len(piece)
            yield _Unit(piece, index == 0 and at > len(piece), start, end, text_width(piece))


def _character_times(segment: Segment) -> list[tuple[float, float]]:
    """(start, end) of every written character, spaces left out."""
    text = "".join(segment.text.split())
    words = [(w.start, w.end, "".join(w.text.split())) for w in segment.words or ()]
    if "".join(word for _, _, word in words) != text:
        words = [(segment.start, segment.end, text)]
    times = []
    for start, end, word in words:
        step = (end - start) / len(word) if word else 0.0
        times += [(start + step * i, start + step * (i + 1)) for i in range(len(word))]
    return times


def _pieces(word: str) -> Iterator[str]:
    """A spaced word as it is; unspaced scripts character by character; nothing wider than a line."""
    if word.isascii() and len(word) <= LINE_WIDTH:
        yield word
        return
    piece = ""
    for char in word:
        if piece and (_breaks(piece[-1], char) or text_width(piece + char) > LINE_WIDTH):
            yield piece
            piece = ""
        piece += char
    if piece:
        yield piece


def _breaks(before: str, after: str) -> bool:
    """May a line end between these two characters of one spaced word?"""
    if not (_unspaced(before) or _unspaced(after)) or before in OPENING:
        return False
    joins = (
        after in SENTENCE_END or after in CLAUSE_END or after in CLOSING or after in "ーっゃゅょッャュョ々"
    )
    return not joins and not unicodedata.category(after).startswith("M")


def _unspaced(char: str) -> bool:
    code = ord(char)
    return any(low <= code <= high for low, high in UNSPACED)


# --- where to cut


def _partition(units: Sequence[_Unit]) -> list[tuple[int, int]]:
    """The cheapest cut into cues, as (first, last) ranges: a shortest path over the pieces."""
    if not units:
        return []
    # Two cues cost more than 2: a single one that is no dearer needs no search.
    whole = next((cost for first, cost in _cue_costs(units, len(units)) if first == 0), float("inf"))
    if whole <= 2.0:
        return [(0, len(units))]
    best = [0.0] + [float("inf")] * len(units)
    previous = [0] * (len(units) + 1)
    for last in range(1, len(units) + 1):
        cut = _cut_cost(units, last)
        for first, cost in _cue_costs(units, last):
            if best[first] + cost + cut < best[last]:
                best[last], previous[last] = best[first] + cost + cut, first
    cuts, last = [], len(units)
    while last > 0:
        cuts.append((previous[last], last))
        last = previous[last]
    return cuts[::-1]


def _cue_costs(units: Sequence[_Unit], last: int) -> Iterator[tuple[int, float]]:
    """(first, cost) of every cue that may end before piece `last`, the shortest first.

    One for the cue itself, more when it is too short to read or bridges a silence; the square of its
    width makes neighbours share a text evenly. A single piece is always allowed; a cue that is too long
    or too wide ends the list, since longer ones are too.
    """
    end, width, silence = units[last - 1].end, 0, 0.0
    for first in range(last - 1, -1, -1):
        unit = units[first]
        width += unit.width + unit.spaced
        if first < last - 1:
            silence = max(silence, units[first + 1].start - unit.end)
            if end - unit.start > MAX_SECONDS or (width > LINE_WIDTH and not _fits(units, first, last)):
                return
        cost = 1.0 + 0.7 * (end - unit.start < MIN_SECONDS) + 1.0 * (silence > 2 * PAUSE_SECONDS)
        yield first, cost + (width / (MAX_LINES * LINE_WIDTH)) ** 2


def _fits(units: Sequence[_Unit], first: int, last: int) -> bool:
    """Do the pieces fill no more than `MAX_LINES` lines?"""
    lines, width = 1, 0
    for index in range(first, last):
        unit = units[index]
        wider = width + unit.width + (unit.spaced and width > 0)
        if wider > LINE_WIDTH:
            lines, wider = lines + 1, unit.width
            if lines > MAX_LINES:
                return False
        width = wider
    return True


def _cut_cost(units: Sequence[_Unit], last: int) -> float:
    """How much a reader minds a cut after piece `last - 1`."""
    if last == len(units):
        return 0.0
    mark = units[last - 1].text.rstrip("".join(CLOSING))[-1:]
    if mark in SENTENCE_END and mark:
        return 0.0
    pause = units[last].start - units[last - 1].end >= PAUSE_SECONDS
    if mark in CLAUSE_END and mark:
        return 0.2 if pause else 0.5
    return 0.4 if pause else 2.5


def _lines(units: Sequence[_Unit]) -> tuple[str, ...]:
    """One line when it fits, otherwise the two whose break reads best."""
    whole = _join(units)
    if text_width(whole) <= LINE_WIDTH:
        return (whole,)
    splits = [(_join(units[:cut]), _join(units[cut:]), _cut_cost(units, cut)) for cut in range(1, len(units))]
    fitting = [s for s in splits if max(text_width(s[0]), text_width(s[1])) <= LINE_WIDTH]
    first, second, _ = min(fitting, key=lambda s: abs(text_width(s[0]) - text_width(s[1])) + 12 * s[2])
    return (first, second)


def _join(units: Sequence[_Unit]) -> str:
    return "".join((" " if unit.spaced and index else "") + unit.text for index, unit in enumerate(units))
