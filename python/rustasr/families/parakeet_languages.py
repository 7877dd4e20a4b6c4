"""Which letters each of Parakeet v3's languages writes.

The alphabets are those of Unicode's CLDR (exemplar characters, main and auxiliary where a letter is common
in loanwords); Latin ones have a to z besides. A language lock forbids every piece with another letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rustasr.pieces import BYTE, UNKNOWN

if TYPE_CHECKING:
    from rustasr.pieces import PieceTable

_LATIN = "abcdefghijklmnopqrstuvwxyz"
_EXTRA_LATIN = {
    "cs": "áčďéěíňóřšťúůýž",
    "da": "æøåéáó",
    "de": "äöüßéà",
    "en": "éèêëïöàçñ",
    "es": "áéíñóúü",
    "et": "äõöüšž",
    "fi": "äöåšž",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "hr": "čćđšž",
    "hu": "áéíóöőúüű",
    "it": "àèéìíîòóùú",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "mt": "ċġħżàèìòù",
    "nl": "áäéëíïóöúüèê",
    "pl": "ąćęłńóśźż",
    "pt": "áàâãçéêíóôõúü",
    "ro": "ăâîșțşţ",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čšžćđ",
    "sv": "åäöéàü",
}
_OTHER_SCRIPTS = {
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюяѝ",
    "el": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "uk": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
}
ALPHABETS = {code: frozenset(_LATIN + extra) for code, extra in _EXTRA_LATIN.items()} | {
    code: frozenset(letters) for code, letters in _OTHER_SCRIPTS.items()
}


def tokens_outside(pieces: PieceTable, language: str) -> list[int]:
    """Ids of the pieces with a letter that `language` does not write. Byte pieces could spell any letter."""
    alphabet = ALPHABETS[language]
    return [
        token
        for token, piece in enumerate(pieces.pieces)
        if not (pieces.is_silent(token) or pieces.types[token] == UNKNOWN)
        and (
            pieces.types[token] == BYTE
            or any(character.isalpha() and character.lower() not in alphabet for character in piece)
        )
    ]


__all__ = ["ALPHABETS", "tokens_outside"]
