"""Long recordings: nothing dropped, nothing looped, times in order; and silence stays silent."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wer
import whisper_goldens as goldens

pytestmark = [pytest.mark.weights, pytest.mark.shared]
Asr = Callable[[str, str], Any]
READINGS = "long/en_readings_8min.flac"


def spoken(audio: Path, clip: str) -> list[tuple[float, float, str]]:
    """(start, end, sentence) of a long reading, seconds."""
    with (audio / clip).with_suffix(".segments.tsv").open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(float(r["start"]), float(r["end"]), r["text"]) for r in table]


def check_complete(result: Any, audio: Path, clip: str, allowed: float, missed: float) -> None:
    """Error rate within `allowed`, no sentence without text (but for `missed` of the words), no loop."""
    reference = " ".join(text for _, _, text in spoken(audio, clip))
    errors = wer.word_errors(reference, result.text)
    assert errors.rate <= allowed, errors
    assert errors.deletions <= missed * errors.words, errors
    assert goldens.cut_loop(result.text) is None
    for start, end, text in spoken(audio, clip):
        covered = sum(max(0.0, min(end, s.end) - max(start, s.start)) for s in result.segments)
        assert covered >= 0.5 * (end - start), f"{start:.1f}-{end:.1f} s has no text: {text!r}"
    goldens.assert_times_in_order(result, result.duration)


def bound(name: str, clip: str, audio: Path) -> float:
    """The error rate of openai-whisper's stored text, plus half a percent."""
    reference = " ".join(text for _, _, text in spoken(audio, clip))
    return wer.word_errors(reference, goldens.rows(name)[clip]["text"]).rate + 0.005


def test_eight_minutes_of_english(asr: Asr, shared_audio: Path) -> None:
    """tiny.en, word times as well, default options."""
    result = asr("tiny.en", "f32").transcribe(shared_audio / READINGS, timestamps="word")
    check_complete(result, shared_audio, READINGS, bound("tiny.en-long", READINGS, shared_audio), 0.02)


def test_eight_minutes_equal_openai_whisper(asr: Asr, shared_audio: Path) -> None:
    """Segment by segment, each window conditioned on the text before it: a difference would grow."""
    golden = goldens.rows("tiny.en-long")[READINGS]
    goldens.assert_same_segments(asr("tiny.en", "f32").transcribe(shared_audio / READINGS), golden)


@pytest.mark.slow
def test_independent_windows_equal_openai_whisper(asr: Asr, shared_audio: Path) -> None:
    golden = goldens.rows("tiny.en-long-independent")[READINGS]
    result = asr("tiny.en", "f32").transcribe(shared_audio / READINGS, condition_on_previous_text=False)
    goldens.assert_same_segments(result, golden)


@pytest.mark.slow
@pytest.mark.parametrize("clip", goldens.rows("base-long"))
def test_long_readings_with_base(clip: str, asr: Asr, shared_audio: Path) -> None:
    golden = goldens.rows("base-long")[clip]
    language = golden["language"]
    result = asr("base", "f32").transcribe(shared_audio / clip, language=language, timestamps="word")
    check_complete(result, shared_audio, clip, bound("base-long", clip, shared_audio), 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("clip", goldens.rows("base-long"))
def test_long_readings_with_base_equal_openai_whisper(clip: str, asr: Asr, shared_audio: Path) -> None:
    golden = goldens.rows("base-long")[clip]
    result = asr("base", "f32").transcribe(shared_audio / clip, language=golden["language"])
    goldens.assert_same_segments(result, golden)


@pytest.mark.parametrize("model", ["tiny.en", pytest.param("base", marks=pytest.mark.slow)])
def test_no_speech_gives_no_text_or_a_flag(model: str, asr: Asr, shared_audio: Path) -> None:
    clips = [c for c in goldens.manifest(shared_audio) if c.startswith("nonspeech/")]
    assert len(clips) >= 15
    kept = {}
    for clip in clips:
        result = asr(model, "q8_0").transcribe(shared_audio / clip, language="en")
        unmarked = [s.text for s in result.segments if s.text.strip() and not s.flags]
        if unmarked:
            kept[clip] = unmarked
    assert not kept
