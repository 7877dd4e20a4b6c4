"""Every family gives its text as it comes in, and stops when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rustasr.audio import load_audio
from rustasr.errors import Cancelled, OptionError
from rustasr.model import AsrModel

if TYPE_CHECKING:
    from rustasr.progress import Progress

FAMILIES = ("tiny.en", "gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt", "qwen3-asr-micro")
pytestmark = [pytest.mark.weights, pytest.mark.shared]


def clip(two_clips: Callable[[str], list[Path]], name: str) -> np.ndarray:
    return load_audio(two_clips(name)[0])


def small_windows(name: str) -> dict[str, Any]:
    """Options that make several rounds of a minute of sound, where a family has them."""
    return {} if name == "tiny.en" else {"window_seconds": 3.0, "batch_size": 1}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_ends_with_what_transcribe_returns(
    name: str, any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    model: AsrModel = any_model(name)
    assert isinstance(model, AsrModel)
    samples = clip(two_clips, name)
    with model.stream(samples, **small_windows(name)) as stream:
        texts = list(stream)
        result = stream.result()
    whole = model.transcribe(samples, **small_windows(name))
    assert (result.text, result.segments) == (whole.text, whole.segments)
    assert whole.text
    finals = [text for text in texts if text.final]
    assert "".join("".join(text.text for text in finals).split()) == "".join(whole.text.split())
    assert [text.start for text in finals] == sorted(text.start for text in finals)


@pytest.mark.parametrize("name", FAMILIES)
def test_errors_come_out_of_the_stream(name: str, any_model: Callable[[str], Any]) -> None:
    stream = any_model(name).stream(np.zeros(16000, np.float32), no_such_option=1)
    with pytest.raises(OptionError, match="no_such_option"):
        next(stream)
    with pytest.raises(OptionError, match="no_such_option"):
        stream.result()


@pytest.mark.parametrize("name", FAMILIES)
def test_cancel_stops_a_stream_from_another_thread(
    name: str, any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    model: AsrModel = any_model(name)
    samples = np.tile(clip(two_clips, name), 40)  # minutes: longer than the test waits
    begun = threading.Event()

    def progress(_report: Progress) -> None:
        begun.set()
        time.sleep(0.01)

    stream = model.stream(samples, progress=progress, **small_windows(name))
    assert begun.wait(60)
    model.cancel()
    with pytest.raises(Cancelled) as stopped:
        stream.result()
    partial = stopped.value.partial
    assert partial is not None
    assert "interrupted" in partial.warnings[-1]
    # The next run knows nothing of it.
    again = model.transcribe(samples[: 16000 * 4], **small_windows(name))
    assert not [warning for warning in again.warnings if "interrupted" in warning]


@pytest.mark.parametrize("name", FAMILIES)
def test_closing_a_stream_stops_its_work(
    name: str, any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    samples = np.tile(clip(two_clips, name), 40)
    with any_model(name).stream(samples, **small_windows(name)) as stream:
        first = next(stream)
    assert first.text
    assert list(stream) == []
    with pytest.raises(Cancelled):
        stream.result()
