"""Result types: derived values, immutability, and the short ways to the writers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rustasr import writers
from rustasr.progress import Progress
from rustasr.types import Segment, TranscriptionResult, Word

WORDS = (Word(0.0, 0.4, " Hello", 0.9), Word(0.4, 0.9, " world", 0.8))
RESULT = TranscriptionResult(
    "Hello world",
    (Segment(0.0, 1.0, "Hello world", WORDS), Segment(1.0, 2.0, "again")),
    "en",
    4.0,
    1.0,
    "tiny",
)


def test_rtf_is_work_per_second_of_audio() -> None:
    assert RESULT.rtf == 0.25
    assert dataclasses.replace(RESULT, duration=0.0).rtf == 0.0


def test_words_of_all_segments_in_order() -> None:
    assert RESULT.words == WORDS
    assert RESULT.segments[0].duration == 1.0


def test_results_are_frozen_and_slotted() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RESULT.text = "other"  # type: ignore[misc]
    for kind in (Word, Segment, TranscriptionResult):
        assert "__dict__" not in dir(kind)


def test_methods_give_what_the_writers_give() -> None:
    assert RESULT.to_dict() == json.loads(RESULT.to_json()) == writers.to_dict(RESULT)
    assert RESULT.to_json(indent=None).count("\n") == 1
    assert RESULT.to_text() == "Hello world\nagain\n"
    assert RESULT.to_srt() == writers.to_srt(RESULT)
    assert RESULT.to_vtt().startswith("WEBVTT\n\n")
    assert RESULT.to_tsv().splitlines()[1] == "0\t1000\tHello world"


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(5, 10, 0.5), (20, 10, 1.0), (5, None, None), (5, 0, None), (-1, 10, 0.0)]
)
def test_progress_fraction_stays_between_nothing_and_all(
    done: float, total: float | None, fraction: float | None
) -> None:
    assert Progress(done, total).fraction == fraction
