"""How far word starts lie from the reader's phone times (tests/data/ru_nsh_word_starts.json)."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

from wer import normalize

FILE = Path(__file__).resolve().parent.parent / "data" / "ru_nsh_word_starts.json"


@cache
def starts() -> dict[str, list[tuple[str, float]]]:
    """Sentence id: its words with their starts in seconds (60 sentences of festvox-ru)."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    return {key: [(word.replace("ё", "е"), start) for word, start in words] for key, words in table.items()}


def start_errors(sentence: str, found: list[tuple[str, float]]) -> list[float]:
    """Found minus true start, seconds, of every word that was heard right."""
    truth = starts()[sentence]
    heard = [("".join(normalize(word)), start) for word, start in found]
    matcher = SequenceMatcher(None, [w for w, _ in truth], [w for w, _ in heard], autojunk=False)
    errors = []
    for i, j, n in matcher.get_matching_blocks():
        errors += [heard[j + k][1] - truth[i + k][1] for k in range(n)]
    return errors
