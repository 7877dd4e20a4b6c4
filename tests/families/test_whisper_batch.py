"""A clip's output does not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
Asr = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def windows(jfk_path: Path, core_model: Asr) -> list[np.ndarray]:
    """Three windows of different lengths and loudness: [1100, 80], [400, 80], [3000, 80]."""
    import rustasr

    pcm = goldens.samples(jfk_path)
    session = core_model("tiny.en", "f32").session()
    out = []
    for piece in (pcm, pcm[64000:128000], np.tile(pcm, 3)[:480000]):
        raw = session.features(np.ascontiguousarray(piece))
        out.append(rustasr._core.normalize_log_mel(raw, float(raw.max())))
    return out


def decode(session: Any, encoded: Any, n: int, prompt: list[int], **options: Any) -> list[Any]:
    import rustasr

    chosen = rustasr._core.DecodeOptions(**options)
    return session.decode(encoded, list(range(n)), [prompt] * n, chosen)


@pytest.mark.parametrize("qtype", ["f32", "q8_0"])
@pytest.mark.parametrize("options", [{}, {"beam_size": 5}], ids=["greedy", "beam"])
def test_batched_output_equals_single(
    qtype: str, options: dict[str, Any], windows: list[np.ndarray], core_model: Asr
) -> None:
    model = core_model("tiny.en", qtype)
    metadata = model.metadata
    prompt = [metadata["whisper.token.startoftranscript"]]
    chosen = {"suppress": list(metadata["whisper.suppress_tokens"]), **options}
    session = model.session()
    together = decode(session, session.encode(windows), len(windows), prompt, **chosen)
    for order, window in enumerate(windows):
        (alone,) = decode(session, session.encode([window]), 1, prompt, **chosen)
        assert together[order].tokens == alone.tokens
        np.testing.assert_allclose(together[order].logprobs, alone.logprobs, rtol=0, atol=1e-3)
        assert together[order].no_speech_prob == pytest.approx(alone.no_speech_prob, abs=1e-4)


def test_encoded_windows_do_not_see_each_other(windows: list[np.ndarray], core_model: Asr) -> None:
    session = core_model("tiny.en", "f32").session()
    prompt = [int(core_model("tiny.en", "f32").metadata["whisper.token.startoftranscript"])]

    def logits(session: Any, encoded: Any, i: int) -> np.ndarray:
        return np.asarray(session.decode_taps(encoded, i, prompt, ["logits"])["logits"])

    together = session.encode(windows)
    backwards = session.encode(windows[::-1])
    for i in range(3):
        first = logits(session, together, i)
        second = logits(session, backwards, 2 - i)
        third = logits(session, session.encode([windows[i]]), 0)
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-4)
        np.testing.assert_allclose(first, third, rtol=0, atol=1e-4)


@pytest.mark.shared
def test_batch_size_does_not_change_the_text(asr: Asr, shared_audio: Path) -> None:
    """Cut at quiet places; two, three or eight windows at a time give the same segments."""
    model = asr("tiny.en", "f32")
    clip = shared_audio / "long" / "en_ljspeech_chapter1.flac"
    results = [model.transcribe(clip, batch_size=n) for n in (2, 3, 8)]
    for other in results[1:]:
        assert [(s.start, s.end, s.text) for s in other.segments] == [
            (s.start, s.end, s.text) for s in results[0].segments
        ]


@pytest.mark.shared
def test_batched_error_rate_is_that_of_the_sequential_run(asr: Asr, shared_audio: Path) -> None:
    import wer

    clip = shared_audio / "long" / "en_readings_8min.flac"
    reference = clip.with_suffix(".txt").read_text(encoding="utf-8")
    batched = asr("tiny.en", "f32").transcribe(clip, batch_size=8)
    goldens.assert_times_in_order(batched, batched.duration)
    assert goldens.cut_loop(batched.text) is None
    golden = goldens.rows("tiny.en-long-independent")["long/en_readings_8min.flac"]["text"]
    assert wer.word_errors(reference, batched.text).rate <= wer.word_errors(reference, golden).rate + 0.005
