"""RTTM: what is written comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.diarization import read_rttm, to_rttm
from rustasr.errors import AudioError
from rustasr.types import Turn

milliseconds = st.integers(0, 40_000_000)
turns = st.builds(
    lambda start, length, speaker: Turn(start / 1000, (start + length) / 1000, speaker),
    milliseconds,
    st.integers(1, 100_000),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12),
)


@given(st.lists(turns, max_size=12))
def test_turns_come_back_as_they_were(given_turns: list[Turn]) -> None:
    text = to_rttm(given_turns, "call.7")
    assert read_rttm(text) == ({"call.7": sorted(given_turns)} if given_turns else {})
    assert to_rttm(read_rttm(text).get("call.7", []), "call.7") == text


def test_a_line_has_the_ten_fields_of_the_format() -> None:
    assert to_rttm([Turn(1.5, 2.25, "Ann Lee")], "my call") == (
        "SPEAKER my_call 1 1.500 0.750 <NA> <NA> Ann_Lee <NA> <NA>\n"
    )


def test_a_turn_that_rounds_to_nothing_is_left_out() -> None:
    assert to_rttm([Turn(1.0, 1.0004, "A")], "x") == ""


def test_other_lines_are_passed_over_and_recordings_kept_apart() -> None:
    text = """;; made by hand
SPKR-INFO a 1 <NA> <NA> <NA> unknown s1 <NA>
SPEAKER b 1 4 1 <NA> <NA> s2 <NA> <NA>

SPEAKER a 1 3.0 .5 <NA> <NA> s1 0.9 <NA>
SPEAKER b 1 0.1 0.2 <NA> <NA> s1
"""
    assert read_rttm(text) == {
        "a": [Turn(3.0, 3.5, "s1")],
        "b": [Turn(0.1, 0.3, "s1"), Turn(4.0, 5.0, "s2")],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER a 1 3.0", r"x.rttm, line 2: expected SPEAKER and at least 7 more fields, found 3"),
        ("SPEAKER a 1 -3 1 <NA> <NA> s", r"line 2: expected seconds from 0, found '-3'"),
        ("SPEAKER a 1 3 nan <NA> <NA> s", r"line 2: expected seconds from 0, found 'nan'"),
        ("SPEAKER a 1 3 long <NA> <NA> s", r"found 'long'"),
    ],
)
def test_a_damaged_line_is_named(line: str, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        read_rttm(f"\n{line}\n", "x.rttm")
