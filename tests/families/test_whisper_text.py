"""Text, token ids and times against openai-whisper's on real speech, with float32 weights.

openai-whisper ran at temperature 0; none of these clips made its default ladder of temperatures try another
one, so the default options must give the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
Asr = Callable[[str, str], Any]

# The reference itself is a coin toss: its best two tokens are closer than float32 sums of another order.
NEAR_TIE = 2e-4


# Clips a run without --run-slow takes from each folder: enough to show a deviation, few enough for minutes.
OFTEN = {"en": 24, "ru_nsh": 6}
ELSEWHERE = 2


def cases(*names: str) -> list[Any]:
    """One test per stored clip; those beyond OFTEN of a folder are slow."""
    out = []
    for name in names:
        seen: dict[str, int] = {}
        for clip, golden in goldens.rows(name).items():
            if "fallback" in golden:
                continue
            folder = clip.split("/")[0]
            seen[folder] = seen.get(folder, 0) + 1
            marks = [pytest.mark.slow] if seen[folder] > OFTEN.get(folder, ELSEWHERE) else []
            out.append(pytest.param(name, clip, id=f"{name}-{clip.removesuffix('.flac')}", marks=marks))
    return out


def check(asr: Asr, audio: Path, name: str, clip: str, **options: Any) -> None:
    golden = goldens.rows(name)[clip]
    result = asr(golden["model"], "f32").transcribe(audio, language=golden["forced_language"], **options)
    assert result.language == golden["language"]
    assert result.duration == pytest.approx(golden["duration"], abs=0.001)
    try:
        goldens.assert_same_segments(result, golden)
    except AssertionError:
        if goldens.margin(golden) < NEAR_TIE:
            pytest.xfail(goldens.describe(golden))
        raise
    for segment, wanted in zip(
        result.segments, [s for s in golden["segments"] if s["text"].strip()], strict=True
    ):
        assert segment.avg_logprob == pytest.approx(wanted["avg_logprob"], abs=2e-3)
        assert segment.no_speech_prob == pytest.approx(wanted["no_speech_prob"], abs=2e-3)
        assert segment.compression_ratio == pytest.approx(wanted["compression_ratio"], abs=1e-3)
        assert segment.temperature == wanted["temperature"]


@pytest.mark.parametrize("name", ["tiny.en-greedy", "base-greedy"])
def test_the_recording_in_the_repository(name: str, asr: Asr, jfk_path: Path) -> None:
    check(asr, jfk_path, name, "en/jfk.flac")


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), cases("tiny.en-greedy", "base-greedy"))
def test_greedy_text_and_times_equal(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    check(asr, shared_audio / clip, name, clip)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), cases("tiny.en-beam5", "base-beam5"))
def test_beam_search_equal(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    check(asr, shared_audio / clip, name, clip, beam_size=5)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), cases("base-translate"))
def test_translation_equal(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    check(asr, shared_audio / clip, name, clip, task="translate")


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), cases("base-prompt"))
def test_initial_prompt_equal(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    check(
        asr, shared_audio / clip, name, clip, initial_prompt="Printing, typography, and the Gutenberg Bible."
    )


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip"), cases("base-no-timestamps"))
def test_text_without_timestamps_equal(name: str, clip: str, asr: Asr, shared_audio: Path) -> None:
    golden = goldens.rows(name)[clip]
    if golden["duration"] > 30:
        pytest.skip("over 30 s the recording is cut at quiet places, not where openai-whisper cuts it")
    options = {"language": golden["forced_language"], "timestamps": "none"}
    result = asr(golden["model"], "f32").transcribe(shared_audio / clip, **options)
    assert result.text.strip() == golden["text"].strip()


@pytest.mark.shared
@pytest.mark.parametrize("clip", goldens.rows("base-detect"))
def test_detected_language_equal(clip: str, asr: Asr, core_model: Asr, shared_audio: Path) -> None:
    import numpy as np

    import rustasr

    golden = goldens.rows("base-detect")[clip]
    model = core_model("base", "f32")
    session = model.session()
    raw = session.features(
        np.concatenate([goldens.samples(shared_audio / clip), np.zeros(480000, np.float32)])
    )
    window = rustasr._core.normalize_log_mel(raw, float(raw.max()))[:3000]
    probabilities = session.detect_language(session.encode([np.ascontiguousarray(window)]))[0]
    languages = model.metadata["whisper.languages"]
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    for language, probability in golden["top"]:
        assert probabilities[languages.index(language)] == pytest.approx(probability, abs=2e-3), language
    assert languages[int(probabilities.argmax())] == golden["top"][0][0]
