"""Scores: what the normaliser makes alike, error rates over texts, and DER beside a count on a grid."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.errors import AudioError
from rustasr.scoring import SpeakerErrors, error_rates, normalized, read_uem, speaker_errors
from rustasr.types import Turn
from speakers import error_rate


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("", "Don’t — STOP,  1.5 ﬁne! ", "don't stop 1 5 fine"),
        ("", "Ещё Раз…", "ещё раз"),
        ("ru", "Ещё Раз…", "еще раз"),
        ("en", "'quoted' rock 'n' roll", "quoted rock n roll"),
        ("de", "Straße STRASSE", "strasse strasse"),
        ("fr", "L’homme qu'elle", "l homme qu elle"),
        ("tr", "Isparta İzmir", "ısparta izmir"),
        ("zh", "我们 去，北京。", "我 们 去 北 京"),
        ("ja", "0'0 です", "0 0 で す"),
        ("he", "שָׁלוֹם", "שלום"),
        ("ar", "مرحـــبا", "مرحبا"),
    ],
)
def test_what_is_a_matter_of_taste_is_not_compared(language: str, text: str, words: str) -> None:
    assert normalized(text, language) == words


@given(st.text(), st.sampled_from(["", "en", "fr", "tr", "ar", "zh", "ru"]))
def test_normalising_again_changes_nothing(text: str, language: str) -> None:
    once = normalized(text, language)
    assert normalized(once, language) == once


def test_error_rates_are_over_all_texts_together() -> None:
    pytest.importorskip("jiwer", reason="the bench extra is not installed")
    wer, cer = error_rates(["One, two three.", "four"], ["one two four", "four"])
    assert wer == pytest.approx(0.25)
    assert cer is not None and 0 < cer < 0.5


def test_chinese_is_compared_by_character() -> None:
    pytest.importorskip("jiwer", reason="the bench extra is not installed")
    wer, _ = error_rates(["我们去北京。", "one two"], ["我们在北京", "one two"], ["zh", "en"])
    assert wer == pytest.approx(1 / 7)


# --- speakers

turns = st.lists(
    st.tuples(st.integers(0, 90), st.integers(2, 30), st.sampled_from("abc")).map(
        lambda t: Turn(t[0] / 2, (t[0] + t[1]) / 2, t[2])
    ),
    min_size=1,
    max_size=6,
)


def apart(found: list[Turn]) -> list[Turn]:
    """Turns of which no two of one speaker touch: where pyannote counts tracks the grid counts speakers."""
    made: list[Turn] = []
    for turn in sorted(found):
        if all(t.speaker != turn.speaker or t.end < turn.start for t in made):
            made.append(turn)
    return made


@settings(deadline=None, max_examples=60)
@given(turns, turns)
def test_errors_are_those_of_a_count_on_a_grid(reference: list[Turn], found: list[Turn]) -> None:
    pytest.importorskip("pyannote.metrics", reason="the bench extra is not installed")
    reference, found = apart(reference), apart(found)
    made = speaker_errors(reference, found, [(0.0, 70.0)])
    if made.speech > 0.5:
        assert made.rate == pytest.approx(error_rate(reference, found, 70.0), abs=0.03)
    assert made.speakers == len({t.speaker for t in reference})
    assert made.found == len({t.speaker for t in found})


def test_only_the_regions_are_scored_and_names_do_not_matter() -> None:
    pytest.importorskip("pyannote.metrics", reason="the bench extra is not installed")
    reference = [Turn(0, 10, "a"), Turn(10, 20, "b"), Turn(40, 50, "c")]
    found = [Turn(0, 10, "x"), Turn(10, 15, "y"), Turn(60, 70, "z")]
    made = speaker_errors(reference, found, [(0.0, 20.0)])
    assert made == SpeakerErrors(pytest.approx(19.0), pytest.approx(4.75), 0.0, 0.0, 2, 2)
    assert made.rate == pytest.approx(4.75 / 19)
    both = made + made
    assert both.rate == pytest.approx(made.rate) and both.speakers == 4


def test_uem() -> None:
    assert read_uem(";; comment\n\na 1 0.0 30\nb 1 1 2\na 1 40 50.5\n") == {
        "a": [(0.0, 30.0), (40.0, 50.5)],
        "b": [(1.0, 2.0)],
    }
    with pytest.raises(AudioError, match="x.uem, line 2: expected <file>"):
        read_uem("a 1 0 1\na 1 0\n", "x.uem")
