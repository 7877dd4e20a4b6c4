"""Word timestamps against openai-whisper's (cross-attention alignment), and that they run forwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whisper_goldens as goldens

pytestmark = [pytest.mark.weights]
Asr = Callable[[str, str], Any]
WORD_TOLERANCE = 0.021  # one step of the alignment: ties of the path may fall either way
CASES = [
    pytest.param(name, clip, id=f"{name}-{clip.removesuffix('.flac')}")
    for name in ("tiny.en-words", "base-words")
    for clip in goldens.rows(name)
]


def check_words(result: Any, golden: dict[str, Any]) -> None:
    found = [w for s in result.segments for w in s.words or ()]
    wanted = [w for s in golden["segments"] for w in s["words"]]
    assert [w.text.strip() for w in found] == [w[0].strip() for w in wanted]
    for have, (text, start, end, probability) in zip(found, wanted, strict=True):
        assert have.start == pytest.approx(start, abs=WORD_TOLERANCE), text
        assert have.end == pytest.approx(end, abs=WORD_TOLERANCE), text
        assert have.confidence == pytest.approx(probability, abs=5e-3), text
    exact = sum(
        abs(h.start - w[1]) < 1e-6 and abs(h.end - w[2]) < 1e-6 for h, w in zip(found, wanted, strict=True)
    )
    assert exact >= 0.95 * len(wanted), f"{exact} of {len(wanted)} words have the very same times"


@pytest.mark.parametrize("name", ["tiny.en-words", "base-words"])
def test_words_of_the_recording_in_the_repository(name: str, asr: Asr, jfk_path: Path) -> None:
    golden = goldens.rows(name)["en/jfk.flac"]
    result = asr(golden["model"], "f32").transcribe(jfk_path, language="en", timestamps="word")
    check_words(result, golden)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), CASES)
def test_word_times_equal_openai_whisper(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    golden = goldens.rows(name)[clip]
    options = {"language": golden["forced_language"], "timestamps": "word"}
    result = asr(golden["model"], "f32").transcribe(shared_audio / clip, **options)
    check_words(result, golden)
    goldens.assert_times_in_order(result, golden["duration"])


def test_words_join_to_the_text(asr: Asr, jfk_path: Path) -> None:
    result = asr("base", "f32").transcribe(jfk_path, language="en", timestamps="word")
    joined = " ".join(w.text.strip() for s in result.segments for w in s.words)
    assert joined == result.text.strip()


@pytest.mark.shared
@pytest.mark.slow
def test_word_starts_lie_near_the_phone_labels(asr: Asr, shared_audio: Path) -> None:
    """Median distance to the reader's phone times over 60 Russian sentences with base: at most 150 ms."""
    import word_truth

    errors: list[float] = []
    for sentence in word_truth.starts():
        clip = shared_audio / "ru_nsh" / f"{sentence}.flac"
        result = asr("base", "f32").transcribe(clip, language="ru", timestamps="word")
        errors += word_truth.start_errors(sentence, [(w.text, w.start) for w in result.words])
    assert len(errors) > 600
    assert sorted(abs(e) for e in errors)[len(errors) // 2] <= 0.150
