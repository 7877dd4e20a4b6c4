"""Whisper's log mel against openai-whisper's (`log_mel_spectrogram`), frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
TOLERANCE = 1e-5  # of the normalised log mel
SILENCE = np.zeros(480000, np.float32)  # openai-whisper puts 30 s of silence behind every recording


@pytest.fixture(scope="module")
def session(core_model: Callable[[str, str], Any]) -> Any:
    return core_model("tiny.en", "f32").session()


def normalized(session: Any, pcm: np.ndarray) -> np.ndarray:
    import rustasr

    raw = session.features(pcm)
    return rustasr._core.normalize_log_mel(raw, float(raw.max()))


def test_log_mel_equals_openai_whisper(session: Any, jfk_path: Path) -> None:
    golden = goldens.layers("tiny.en")
    mel = normalized(session, np.concatenate([goldens.samples(jfk_path), SILENCE]))
    assert mel.shape == (4100, 80)
    rows = [0, 1, 2, 57, 500, 501, 502, 1098, 1099, 1100, 1101, 2999]
    np.testing.assert_allclose(mel[rows], golden["mel.rows"], rtol=0, atol=TOLERANCE)
    mean, deviation, *_ = golden["mel.stats"]
    assert mel[:3000].mean(dtype=np.float64) == pytest.approx(mean, abs=TOLERANCE)
    assert mel[:3000].std(dtype=np.float64) == pytest.approx(deviation, abs=TOLERANCE)


def test_last_frames_reflect_the_end_of_the_recording(session: Any, jfk_path: Path) -> None:
    golden = goldens.layers("tiny.en")
    mel = normalized(session, goldens.samples(jfk_path))
    assert mel.shape == (1100, 80)  # floor(samples / 160): the frame behind the last hop is dropped
    rows = [0, 1, 2, 57, 500, 501, 502, 1098, 1099]
    np.testing.assert_allclose(mel[rows], golden["mel_clip.rows"], rtol=0, atol=TOLERANCE)


def test_silence_is_the_floor(session: Any) -> None:
    raw = session.features(np.zeros(16000, np.float32))
    assert raw.shape == (100, 80)
    np.testing.assert_array_equal(raw, np.full_like(raw, -10.0))  # log10 of the clamp 1e-10


def test_blocks_equal_the_whole(session: Any, core_model: Callable[[str, str], Any], jfk_path: Path) -> None:
    import rustasr
    from rustasr.families.whisper_features import read_log_mel

    pcm, metadata = goldens.samples(jfk_path), core_model("tiny.en", "f32").metadata
    whole = normalized(session, np.concatenate([pcm, SILENCE]))
    for block in (16000, 47999, 160):
        pieces = (np.ascontiguousarray(pcm[i : i + block]) for i in range(0, len(pcm), block))
        mel, n_samples = read_log_mel(pieces, session, metadata, rustasr._core.normalize_log_mel)
        with mel:
            assert (n_samples, mel.n_frames) == (len(pcm), len(pcm) // 160)
            np.testing.assert_array_equal(mel.window(0, mel.n_frames), whole[: mel.n_frames])


def test_other_arrays_are_refused(session: Any) -> None:
    for bad in (
        np.zeros(1600),
        np.zeros(3200, np.float32)[::2],
        np.zeros((2, 800), np.float32),
        [0.0] * 1600,
    ):
        with pytest.raises((TypeError, ValueError)):
            session.features(bad)
