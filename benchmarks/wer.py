"""Word error rate with one documented normaliser, for every table in this project.

Normalisation, in this order, of reference and hypothesis alike:
1. Unicode NFKC, lower case (casefold would turn German ß into ss), `ё` to `е`.
2. What stands in [] or <> is dropped (noise and speaker tags); round brackets keep their words.
3. Apostrophes inside a word are dropped (`don't` = `dont`); `%` becomes ` percent `, `&` becomes ` and `.
4. Every other character that is no letter, mark or digit becomes a space.
5. Words are what white space separates.
Numbers are not rewritten: `70` and `seventy` differ, for every system alike.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


def normalize(text: str) -> list[str]:
    """The words that are compared."""
    text = unicodedata.normalize("NFKC", text).lower().replace("ё", "е")
    text = re.sub(r"\[[^\]]*\]|<[^>]*>", " ", text)
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    text = text.replace("%", " percent ").replace("&", " and ")
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return "".join(kept).split()


@dataclass
class Errors:
    """Counts that add up over clips."""

    words: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )

    @property
    def rate(self) -> float:
        """Errors per reference word; 0 for an empty reference without insertions."""
        wrong = self.substitutions + self.insertions + self.deletions
        return wrong / self.words if self.words else float(bool(wrong))


def word_errors(reference: str, hypothesis: str) -> Errors:
    """Levenshtein counts between the normalised words (a substitution before a deletion-insertion pair)."""
    ref, hyp = normalize(reference), normalize(hypothesis)
    # Each cell: (errors, substitutions, insertions, deletions) for ref[:i] against hyp[:j].
    row = [(j, 0, j, 0) for j in range(len(hyp) + 1)]
    for i, word in enumerate(ref, 1):
        above, row = row, [(i, 0, 0, i)]
        for j, other in enumerate(hyp, 1):
            e, s, n, d = above[j - 1]
            if word == other:
                row.append((e, s, n, d))
                continue
            best = (e + 1, s + 1, n, d)
            e, s, n, d = row[j - 1]
            best = min(best, (e + 1, s, n + 1, d), key=lambda c: c[0])
            e, s, n, d = above[j]
            row.append(min(best, (e + 1, s, n, d + 1), key=lambda c: c[0]))
    _, substitutions, insertions, deletions = row[-1]
    return Errors(len(ref), substitutions, insertions, deletions)
