"""Speech that a family missed, or looped over, is heard again by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wer import normalize

from rustasr.audio import SAMPLE_RATE, load_audio
from rustasr.families.conformer import Conformer
from rustasr.families.whisper_longform import Transcriber
from rustasr.progress import PartialText
from rustasr.second_look import HEARD_AGAIN
from rustasr.vad import Span

CONFORMERS = ("gigaam-micro-ctc", "parakeet-micro-tdt")


class Told:
    """A detector that was told where the speech is."""

    def __init__(self, *spans: Span) -> None:
        self.spans = list(spans)

    def speech(self, blocks: Any) -> list[Span]:
        for _ in blocks:
            pass
        return self.spans


def two_stretches(clips: list[Any]) -> tuple[Any, Told]:
    silence = np.zeros(5 * SAMPLE_RATE, np.float32)
    first, second = clips
    start = len(silence) * 2 + len(first)
    spans = Span(len(silence), len(silence) + len(first)), Span(start, start + len(second))
    return np.concatenate([silence, first, silence, second, silence]), Told(*spans)


@pytest.mark.shared
@pytest.mark.parametrize("name", CONFORMERS)
def test_what_was_missed_is_found(
    name: str,
    any_model: Callable[[str], Any],
    two_clips: Callable[[str], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, vad = two_stretches([load_audio(path)[: 10 * SAMPLE_RATE] for path in two_clips(name)])
    hear, deaf = Conformer._hear, [True]

    def first_time_deaf(self: Any, run: Any, windows: Any) -> Any:
        return [("", []) for _ in windows] if deaf and deaf.pop() else hear(self, run, windows)

    monkeypatch.setattr(Conformer, "_hear", first_time_deaf)
    told = list[PartialText]()
    found = any_model(name).transcribe(samples, vad=vad, timestamps="word", on_text=told.append)
    assert not deaf
    assert found.coverage is not None
    assert found.coverage.share > 0.85
    assert all(HEARD_AGAIN in segment.flags for segment in found.segments)
    assert all(
        any(s.start / 16000 <= w.start <= w.end <= s.end / 16000 for s in vad.spans) for w in found.words
    )
    assert normalize(found.text) == normalize(" ".join(text.text for text in told))
    plain = any_model(name).transcribe(samples, vad=vad)
    assert not any(HEARD_AGAIN in segment.flags for segment in plain.segments)
    assert len(normalize(found.text)) > 0.8 * len(normalize(plain.text))


@pytest.mark.weights
def test_a_window_that_whisper_skipped_is_found(
    any_model: Callable[[str], Any], jfk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jfk = load_audio(jfk_path)
    samples, vad = two_stretches([jfk, jfk])
    conclude, deaf = Transcriber._conclude, [True]

    def skip_first(self: Any, track: Any, window: Any, decoding: Any) -> Any:
        drafts = conclude(self, track, window, decoding)
        return [] if deaf and deaf.pop() else drafts

    monkeypatch.setattr(Transcriber, "_conclude", skip_first)
    found = any_model("tiny.en").transcribe(samples, vad=vad, timestamps="word")
    assert found.text.lower().count("ask not what your country can do for you") == 2
    assert found.coverage is not None
    assert found.coverage.gaps == ()


@pytest.mark.weights
def test_a_loop_is_heard_again(
    any_model: Callable[[str], Any], jfk_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rustasr.families.whisper_words import Draft

    conclude, looped = Transcriber._conclude, [True]

    def loop_first(self: Any, track: Any, window: Any, decoding: Any) -> Any:
        drafts = conclude(self, track, window, decoding)
        if looped and looped.pop():
            tokens = self._tokenizer.encode(" thank you" * 9)
            first, last = drafts[0], drafts[-1]
            return [Draft(first.start, last.end, tokens, self._tokenizer.text(tokens), decoding)]
        return drafts

    monkeypatch.setattr(Transcriber, "_conclude", loop_first)
    found = any_model("tiny.en").transcribe(load_audio(jfk_path))
    assert not looped
    assert "ask not what your country" in found.text
    assert "thank you" not in found.text
    assert all(segment.flags == (HEARD_AGAIN,) for segment in found.segments)
