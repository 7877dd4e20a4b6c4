"""How right a text and its speakers are: word and character error rates, and the diarization error rate.

What is compared is the text without what is a matter of taste. For every language: Unicode NFKC, case
folded, typographic apostrophes made plain, everything that is no letter, mark, digit or inner apostrophe
made a space. Numbers are not rewritten: "70" and "seventy" differ. And by language:

    ru, be, uk            ё is е
    fr, it, ca            an apostrophe separates words: l'homme is two
    tr, az                I is the capital of ı, İ that of i
    ar, fa, he, ur        vowel points and tatweel are left out
    zh, yue, ja, th, ...  written without spaces: every character is a word, so that WER is CER
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr.errors import AudioError, OptionError
from rustasr.tokenizer import UNSPACED_LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rustasr.types import Turn

SAME_E = frozenset({"ru", "be", "uk"})
ELIDING = frozenset({"fr", "it", "ca"})
DOTLESS_I = frozenset({"tr", "az"})
POINTED = frozenset({"ar", "fa", "he", "ur"})
TATWEEL = "\u0640"
COLLAR_S = 0.25  # on each side of a reference boundary: NIST md-eval -c 0.25


# --- words


def normalized(text: str, language: str = "") -> str:
    """The words that are compared, with single spaces; `language` is a code ("" where it is unknown)."""
    text = unicodedata.normalize("NFKC", text)
    if language in DOTLESS_I:
        text = text.replace("I", "ı").replace("İ", "i")
    text = text.casefold().replace("’", "'").replace("ʼ", "'")
    if language in SAME_E:
        text = text.replace("ё", "е")
    if language in ELIDING:
        text = text.replace("'", " ")
    if language in POINTED:
        kept = (c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        text = "".join(kept).replace(TATWEEL, "")
    text = "".join(c if unicodedata.category(c)[0] in "LNM" or c == "'" else " " for c in text)
    words = [word.strip("'") for word in text.split()]
    if language in UNSPACED_LANGUAGES:
        words = list("".join(words).replace("'", ""))
    return " ".join(word for word in words if word)


def error_rates(
    references: Sequence[str], texts: Sequence[str], languages: Sequence[str] = ()
) -> tuple[float | None, float | None]:
    """(WER, CER) over all texts together, 0 to 1 or more; (None, None) without jiwer (extra `bench`)."""
    try:
        import jiwer
    except ModuleNotFoundError:
        return None, None
    known = languages or [""] * len(references)
    expected = [normalized(text, language) for text, language in zip(references, known, strict=True)]
    found = [normalized(text, language) for text, language in zip(texts, known, strict=True)]
    return float(jiwer.wer(expected, found)), float(jiwer.cer(expected, found))


# --- speakers


@dataclass(frozen=True, slots=True)
class SpeakerErrors:
    """Wrong seconds of one recording, or of several added up: `missed` speech, `false_alarm` where nobody
    speaks, `confusion` of speakers; all over `speech` of the reference, in which overlap counts once for each
    speaker. `speakers` are in the reference, `found` in the hypothesis.
    """

    speech: float
    missed: float
    false_alarm: float
    confusion: float
    speakers: int
    found: int

    @property
    def rate(self) -> float:
        """The diarization error rate (DER)."""
        wrong = self.missed + self.false_alarm + self.confusion
        return wrong / self.speech if self.speech else float(wrong > 0)

    def __add__(self, other: SpeakerErrors) -> SpeakerErrors:
        return SpeakerErrors(
            self.speech + other.speech,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
            self.speakers + other.speakers,
            self.found + other.found,
        )


def speaker_errors(
    reference: Iterable[Turn],
    found: Iterable[Turn],
    regions: Sequence[tuple[float, float]],
    collar_s: float = COLLAR_S,
) -> SpeakerErrors:
    """Errors of `found` against `reference` inside `regions` (start, end in seconds), by pyannote.metrics.

    `collar_s` seconds on each side of a reference boundary are not scored (pyannote's `collar` is both sides
    together), overlap is. Speakers are those who speak inside the regions. Raises OptionError without the
    package.
    """
    try:
        from pyannote.core import Annotation, Segment, Timeline
        from pyannote.metrics.diarization import DiarizationErrorRate
    except ImportError as error:
        raise OptionError(
            f"the diarization error rate needs pyannote.metrics, which cannot be imported ({error}); "
            'pip install "rustasr[bench]"'
        ) from error

    def annotation(turns: Iterable[Turn]) -> Annotation:
        made = Annotation()
        for i, turn in enumerate(turns):
            if turn.end > turn.start:
                made[Segment(turn.start, turn.end), i] = turn.speaker
        return made

    scored = Timeline([Segment(start, end) for start, end in regions])
    wanted, given = annotation(reference), annotation(found)
    parts = DiarizationErrorRate(collar=2 * collar_s)(wanted, given, uem=scored, detailed=True)
    return SpeakerErrors(
        float(parts["total"]),
        float(parts["missed detection"]),
        float(parts["false alarm"]),
        float(parts["confusion"]),
        len(wanted.crop(scored).labels()),
        len(given.crop(scored).labels()),
    )


def read_uem(text: str, name: str = "UEM") -> dict[str, list[tuple[float, float]]]:
    """Regions to be scored by recording: lines of `<file> <channel> <start> <end>`, in seconds. Raises
    AudioError for another line; `name` is what the message calls the text.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith(";"):
            continue
        try:
            start, end = float(fields[2]), float(fields[3])
        except (IndexError, ValueError):
            raise AudioError(
                f"{name}, line {number}: expected <file> <channel> <start> <end>, found {line.strip()!r}"
            ) from None
        found.setdefault(fields[0], []).append((start, end))
    return found


__all__ = [
    "COLLAR_S",
    "SpeakerErrors",
    "error_rates",
    "normalized",
    "read_uem",
    "speaker_errors",
]
