#!/usr/bin/env python3
"""Make tests/data/ru_nsh_word_starts.json: when each word of the Russian readings begins, by its phones.

    make-word-starts.py VOICE_FOLDER OUT.json [ID...]

VOICE_FOLDER is usr/share/festival/voices/russian/msu_ru_nsh_clunits of the Debian package festvox-ru
(Nickolay V. Shmyrev, BSD-like licence): etc/txt.done.data has the sentences, lab/ID.lab the phones with their
END times in seconds. Letters are aligned to phones class by class (vowel to vowel, consonant to its voiced or
devoiced, hard or soft phones); a word begins where the first phone of its first letter begins. Words whose
first letter finds no phone of its class are left out.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

VOWELS = "аеёиоуыэюя"
LETTERS = {  # letter: class of the phones that may stand for it
    **dict.fromkeys("бп", "p"), **dict.fromkeys("вф", "f"), **dict.fromkeys("гк", "k"),
    **dict.fromkeys("дт", "t"), **dict.fromkeys("зс", "s"), **dict.fromkeys("жш", "sh"),
    **dict.fromkeys(VOWELS, "V"),
    "х": "h", "ц": "c", "ч": "ch", "щ": "sch", "л": "l", "м": "m", "н": "n", "р": "r", "й": "j",
}  # fmt: skip
PHONES = {
    **dict.fromkeys(["b", "bb", "p", "pp"], "p"),
    **dict.fromkeys(["v", "vv", "f", "ff"], "f"),
    **dict.fromkeys(["g", "gg", "k", "kk"], "k"),
    **dict.fromkeys(["d", "dd", "t", "tt"], "t"),
    **dict.fromkeys(["z", "zz", "s", "ss"], "s"),
    **dict.fromkeys(["zh", "sh"], "sh"),
    **dict.fromkeys(["h", "hh"], "h"),
    **dict.fromkeys(["l", "ll"], "l"),
    **dict.fromkeys(["m", "mm"], "m"),
    **dict.fromkeys(["n", "nn"], "n"),
    **dict.fromkeys(["r", "rr"], "r"),
    "c": "c",
    "ch": "ch",
    "sch": "sch",
    "j": "j",
}  # fmt: skip  (every other phone but the pauses is a vowel)
PAUSES = {"pau", "#"}
GAP = 1.5


def read_phones(path: Path) -> list[tuple[float, str]]:
    """(start in seconds, class) of every phone but the pauses."""
    out, start = [], 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) != 3:
            continue
        if fields[2] not in PAUSES:
            out.append((start, PHONES.get(fields[2], "V")))
        start = float(fields[0])
    return out


def classes(word: str) -> list[str]:
    """The classes that the letters of a word should sound as; a iotated vowel brings its j along."""
    out: list[str] = []
    before = ""
    for letter in word:
        if letter in "еёюя" and (not before or before in VOWELS + "ъь"):
            out.append("j")
        if letter in LETTERS:
            out.append(LETTERS[letter])
        before = letter
    return out


def cost(a: str, b: str) -> float:
    if a == b:
        return 0.0
    return 3.0 if "V" in (a, b) else 1.0


def align(expected: list[str], found: list[str]) -> list[int | None]:
    """Index of the phone that each expected class is paired with (None: none), by least cost."""
    n, m = len(expected), len(found)
    table = [[j * GAP for j in range(m + 1)]]
    for i in range(1, n + 1):
        row = [i * GAP]
        for j in range(1, m + 1):
            pair = table[i - 1][j - 1] + cost(expected[i - 1], found[j - 1])
            row.append(min(pair, table[i - 1][j] + GAP, row[j - 1] + GAP))
        table.append(row)
    out: list[int | None] = [None] * n
    i, j = n, m
    while i and j:
        if table[i][j] == table[i - 1][j - 1] + cost(expected[i - 1], found[j - 1]):
            i, j = i - 1, j - 1
            out[i] = j
        elif table[i][j] == table[i - 1][j] + GAP:
            i -= 1
        else:
            j -= 1
    return out


def word_starts(sentence: str, phones: list[tuple[float, str]]) -> list[tuple[str, float]]:
    """(word, start in seconds), words in lower case without stress marks."""
    words = re.findall(r"[а-яё]+", sentence.lower().replace("+", ""))
    expected, first = [], []
    for word in words:
        first.append(len(expected))
        expected += classes(word)
    paired = align(expected, [c for _, c in phones])
    out = []
    for word, at in zip(words, first, strict=True):
        phone = paired[at] if at < len(paired) else None
        if phone is not None and phones[phone][1] == expected[at]:
            out.append((word, round(phones[phone][0], 3)))
    return out


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    voice, out, wanted = Path(sys.argv[1]), Path(sys.argv[2]), set(sys.argv[3:])
    rows = {}
    for line in (voice / "etc" / "txt.done.data").read_text(encoding="utf-8").splitlines():
        found = re.match(r'\(\s*(\w+)\s+"(.*)"\s*\)', line)
        if found and (not wanted or found[1] in wanted):
            rows[found[1]] = word_starts(found[2], read_phones(voice / "lab" / f"{found[1]}.lab"))
    text = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in rows.items()
    )
    out.write_text("{\n" + text + "\n}\n", encoding="utf-8")
    print(f"{out}: {len(rows)} sentences, {sum(map(len, rows.values()))} words")


if __name__ == "__main__":
    main()
