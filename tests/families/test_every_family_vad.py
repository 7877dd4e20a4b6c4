"""Behind a voice activity detector every family hears speech alone and tells times of the recording."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wer import normalize

from rustasr.audio import SAMPLE_RATE, load_audio
from rustasr.progress import PartialText, Progress
from rustasr.vad import Span

FAMILIES = ("tiny.en", "gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt", "qwen3-asr-micro")


class Told:
    """A detector that was told where the speech is."""

    def __init__(self, *spans: Span) -> None:
        self.spans = list(spans)
        self.n_samples = 0

    def speech(self, blocks: Iterable[Any]) -> list[Span]:
        self.n_samples = sum(len(block) for block in blocks)
        return self.spans


def built(clips: list[Path]) -> tuple[Any, list[Span]]:
    """20 s of noise with two clips in it: the samples, and where the clips are."""
    noise = np.random.default_rng(1).normal(0, 0.003, 40 * SAMPLE_RATE).astype(np.float32)
    spans = []
    for start_s, path in zip((4, 22), clips, strict=True):
        samples = load_audio(path)[: 15 * SAMPLE_RATE]
        spans.append(Span(start_s * SAMPLE_RATE, start_s * SAMPLE_RATE + len(samples)))
        noise[spans[-1].start : spans[-1].end] += samples
    return noise, spans


def timestamps(name: str) -> str:
    return "segment" if name.startswith("qwen") else "word"


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.parametrize("name", FAMILIES)
def test_times_are_those_of_the_recording(
    name: str, any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    model, (samples, spans) = any_model(name), built(two_clips(name))
    vad = Told(*spans)
    reports, texts = list[Progress](), list[PartialText]()
    result = model.transcribe(
        samples, vad=vad, timestamps=timestamps(name), progress=reports.append, on_text=texts.append
    )
    assert vad.n_samples == len(samples)
    assert result.duration == 40.0
    borders = [(span.start / SAMPLE_RATE - 0.25, span.end / SAMPLE_RATE + 0.25) for span in spans]
    timed = result.words or result.segments
    assert len(timed) > 1
    if result.words:  # without them a segment may go from the first stretch to the second
        assert all(any(a <= word.start <= word.end <= b for a, b in borders) for word in timed)
        assert {borders[0][1] < word.start for word in timed} == {False, True}, "both clips were heard"
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(timed))
    assert result.coverage is not None
    assert result.coverage.speech_seconds == pytest.approx(sum(span.length for span in spans) / SAMPLE_RATE)
    assert result.coverage.share > 0.9
    assert [report.done_s for report in reports] == sorted(report.done_s for report in reports)
    assert (reports[-1].done_s, reports[-1].total_s) == (pytest.approx(40.0, abs=0.1), 40.0)
    assert [segment.text for segment in reports[-1].segments_so_far] == [s.text for s in result.segments]
    assert reports[-1].eta_s == pytest.approx(0.0, abs=0.1)
    finals = [text for text in texts if text.final]
    assert normalize(" ".join(text.text for text in finals)) == normalize(result.text)
    assert all(any(a <= text.start <= b for a, b in borders) for text in finals)


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.parametrize("name", FAMILIES)
def test_clips_choose_among_the_speech(
    name: str, any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    model, (samples, spans) = any_model(name), built(two_clips(name))
    both = model.transcribe(samples, vad=Told(*spans), clip_timestamps=(20.0,))
    alone = model.transcribe(samples, vad=Told(spans[1]))
    assert both.text == alone.text != ""
    assert both.segments == alone.segments
    assert both.coverage == alone.coverage


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.parametrize("name", FAMILIES)
def test_where_nobody_speaks_there_is_no_text(name: str, any_model: Callable[[str], Any]) -> None:
    result = any_model(name).transcribe(np.full(SAMPLE_RATE, 0.1, np.float32), vad=Told())
    assert (result.text, result.segments, result.duration) == ("", (), 1.0)
    assert result.coverage is not None
    assert result.coverage.share == 1.0


@pytest.mark.weights
@pytest.mark.shared
def test_a_cancelled_run_has_its_part_in_the_recordings_times(
    any_model: Callable[[str], Any], two_clips: Callable[[str], list[Path]]
) -> None:
    from rustasr.errors import Cancelled

    model, (samples, spans) = any_model("gigaam-micro-ctc"), built(two_clips("gigaam-micro-ctc"))

    def stop(progress: Progress) -> None:
        if progress.segments_so_far:
            model.cancel()

    with pytest.raises(Cancelled) as stopped:
        model.transcribe(
            samples, vad=Told(*spans), window_seconds=3.0, batch_size=1, timestamps="word", progress=stop
        )
    partial = stopped.value.partial
    assert partial is not None
    assert partial.duration == 40.0
    assert partial.words[0].start >= 3.75
    assert partial.coverage is not None
    assert partial.coverage.gaps
