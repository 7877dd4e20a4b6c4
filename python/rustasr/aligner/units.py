"""A text as the units that Qwen3-ForcedAligner times, and the units as written words again.

A unit keeps letters, numbers and apostrophes only. Between spaces it is a word, except that every
ideograph is a unit of its own (qwen-asr 0.0.6, inference/qwen3_forced_aligner.py).

- Japanese: the words of the package `nagisa` (pip install rustasr[align]), as the official code has them.
  Without it a unit ends where hiragana are followed by another script, which is about a phrase.
- Korean: the official code cuts a word into the longest beginning that a dictionary knows, and the rest.
  The dictionary lies in the package `qwen-asr`, and is used where that is installed. Without it words stay
  whole, as in transformers' own port of the aligner. Either way the two parts make one written word.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rustasr.subtitles import OPENING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# CJK ideographs: qwen3_forced_aligner.py, and transformers 5.23 for the last range.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_KOREAN_DICTIONARY = Path("inference", "assets", "korean_dict_jieba.dict")


@dataclass(frozen=True, slots=True)
class Unit:
    """What the aligner sees of a stretch [start, end) of the text. `continues`: of the word before it."""

    text: str
    start: int
    end: int
    continues: bool = False


def units(text: str, language: str) -> list[Unit]:
    """The units of `text` in order. `language` is a code; "" is treated as any language with spaces."""
    if language == "ja":
        found = _nagisa_units(text)
        return list(_phrases(text)) if found is None else found
    if language == "ko":
        return list(_korean(text, korean_dictionary()))
    return list(_spaced(text))


def is_kept(character: str) -> bool:
    """Whether a character is part of a unit."""
    return character == "'" or unicodedata.category(character)[0] in "LN"


def is_ideograph(character: str) -> bool:
    """Whether a character is a unit of its own."""
    code = ord(character)
    return any(low <= code <= high for low, high in IDEOGRAPHS)


def _unit(text: str, places: Sequence[int], *, continues: bool = False) -> Unit:
    return Unit("".join(text[i] for i in places), places[0], places[-1] + 1, continues)


def _spaced(text: str) -> Iterator[Unit]:
    for word in re.finditer(r"\S+", text):
        run = list[int]()
        for i in range(*word.span()):
            if not is_kept(text[i]):
                continue
            if is_ideograph(text[i]):
                if run:
                    yield _unit(text, run)
                    run = []
                yield _unit(text, [i])
            else:
                run.append(i)
        if run:
            yield _unit(text, run)


# --- Japanese


def _nagisa_units(text: str) -> list[Unit] | None:
    """The words of nagisa; None where it is not installed."""
    try:
        import nagisa
    except ImportError:
        return None
    return list(_placed(text, nagisa.tagging(text).words))


def _placed(text: str, words: Iterable[str]) -> Iterator[Unit]:
    """Words of the text's NFKC form (nagisa normalises) with their places in the text.

    They are compared letter by letter in the form that composes nothing.
    """
    letters = [(letter, i) for i, c in enumerate(text) for letter in unicodedata.normalize("NFKD", c)]
    at = end = 0
    for word in words:
        kept = "".join(filter(is_kept, word))
        places = list[int]()
        for letter in unicodedata.normalize("NFKD", kept):
            ahead = next((n for n in range(at, len(letters)) if letters[n][0] == letter), None)
            if ahead is not None:  # else the package has changed it
                places.append(letters[ahead][1])
                at = ahead + 1
        if kept:
            start = max(end, places[0]) if places else end
            end = max(start, places[-1] + 1) if places else end
            yield Unit(kept, start, end)


def _phrases(text: str) -> Iterator[Unit]:
    """Stretches without a break, cut where hiragana end."""
    run = list[int]()
    for i, character in enumerate(text):
        if not is_kept(character):
            breaks = True
        else:
            breaks = bool(run) and _is_hiragana(text[run[-1]]) and not _is_hiragana(character)
        if breaks and run:
            yield _unit(text, run)
            run = []
        if is_kept(character):
            run.append(i)
    if run:
        yield _unit(text, run)


def _is_hiragana(character: str) -> bool:
    return "\u3040" <= character <= "\u309f"


# --- Korean


@functools.cache
def korean_dictionary() -> frozenset[str]:
    """The words of the official dictionary; none where `qwen-asr` is not installed."""
    found = importlib.util.find_spec("qwen_asr")
    folders = list(found.submodule_search_locations or ()) if found else []
    paths = [path for folder in folders if (path := Path(folder) / _KOREAN_DICTIONARY).is_file()]
    if not paths:
        return frozenset()
    lines = paths[0].read_text(encoding="utf-8").splitlines()
    return frozenset(line.split()[0] for line in lines if line.strip())


def _korean(text: str, dictionary: frozenset[str]) -> Iterator[Unit]:
    """soynlp 0.0.493, LTokenizer: the longest known beginning of at least two characters, and the rest."""
    for match in re.finditer(r"\S+", text):
        first, last = match.span()
        known = [end for end in range(first + 2, last + 1) if text[first:end] in dictionary]
        cut = max(known, default=last) if last - first > 2 else last
        parts = [[i for i in range(*part) if is_kept(text[i])] for part in ((first, cut), (cut, last))]
        for n, places in enumerate(part for part in parts if part):
            yield _unit(text, places, continues=n > 0)


# --- back to the text


def written_words(text: str, found: Sequence[Unit]) -> list[tuple[int, int, int, int]]:
    """(first unit, last unit, start, end) of every written word: the text between [start, end).

    Each character belongs to a word: what closes to the one before, what opens to the one after.
    """
    words = list[tuple[int, int, int, int]]()
    for n, unit in enumerate(found):
        if words and unit.continues:
            first, _, start, _ = words[-1]
            words[-1] = (first, n, start, unit.end)
            continue
        start = 0
        if words:
            first, last, before, end = words[-1]
            start = _border(text, end, unit.start)
            words[-1] = (first, last, before, start)
        words.append((n, n, start, unit.end))
    if words:
        words[-1] = (*words[-1][:3], len(text))
    return words


def _border(text: str, end: int, start: int) -> int:
    """Where, between two units, the one ends and the other begins."""
    between = text[end:start]
    spaces = [i for i, character in enumerate(between) if character.isspace()]
    if spaces:
        return end + spaces[-1] + 1
    opening = (i for i, character in enumerate(between) if character in OPENING)
    return end + next(opening, len(between))


__all__ = ["Unit", "is_ideograph", "is_kept", "korean_dictionary", "units", "written_words"]
