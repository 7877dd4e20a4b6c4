"""Transcribing only what a voice activity detector takes for speech, with any family.

::

    recording ─► Vad ─► spans of speech ─► PackedSource ─► a family, as if that were the recording
                                                             │
    times of the recording, coverage ◄── result, progress, text as it comes in
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rustasr.audio import SAMPLE_RATE
from rustasr.coverage import SLACK_S, coverage, with_coverage
from rustasr.packing import PackedSource
from rustasr.progress import PartialText, Progress, ProgressCallback, TextCallback
from rustasr.repetition import with_flag
from rustasr.segments import split
from rustasr.vad import GradedVad, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rustasr.audio import AudioSource
    from rustasr.types import Segment, TranscriptionResult, Word
    from rustasr.vad import Vad

SURE = 0.95  # speech in which a detector's probability never gets so high is in doubt
NO_SPEECH = "no_speech"  # the flag


@dataclass(frozen=True, slots=True)
class Speech:
    """What a detector heard in a recording of `n_samples` samples: spans, rising and apart. `doubtful` are
    those of them about which a detector that has probabilities is never sure.
    """

    spans: tuple[Span, ...]
    n_samples: int
    doubtful: tuple[Span, ...] = ()

    @property
    def duration(self) -> float:
        """Length of the recording in seconds."""
        return self.n_samples / SAMPLE_RATE

    @property
    def seconds(self) -> list[tuple[float, float]]:
        """The spans as (start, end) in seconds."""
        return [
            (span.start / SAMPLE_RATE, min(span.end, self.n_samples) / SAMPLE_RATE) for span in self.spans
        ]

    def within(self, parts: Sequence[tuple[int, int | None]]) -> Speech:
        """Only what lies in the parts, (start, end) in samples that rise; None: to the end."""

        def cut(spans: Sequence[Span]) -> tuple[Span, ...]:
            pieces = (
                Span(max(span.start, first), span.end if last is None else min(span.end, last))
                for first, last in parts
                for span in spans
            )
            return tuple(span for span in pieces if span.length > 0)

        return Speech(cut(self.spans), self.n_samples, cut(self.doubtful))

    @property
    def sure(self) -> Speech:
        """Only what is not in doubt."""
        doubtful = set(self.doubtful)
        return Speech(tuple(span for span in self.spans if span not in doubtful), self.n_samples)


def find_speech(vad: Vad, blocks: Iterable[NDArray[np.float32]]) -> Speech:
    """Run a detector over all samples of a recording."""
    n_samples = 0

    def counted() -> Iterator[NDArray[np.float32]]:
        nonlocal n_samples
        for block in blocks:
            n_samples += len(block)
            yield block

    rest = counted()
    graded = vad.graded(rest) if isinstance(vad, GradedVad) else [(span, 1.0) for span in vad.speech(rest)]
    for _ in rest:  # what a detector may have left: the length has to be known
        pass
    doubtful = [span for span, probability in graded if probability < SURE]
    return Speech(tuple(span for span, _ in graded), n_samples, tuple(doubtful))


def doubted(segments: Iterable[Segment], sure: Sequence[tuple[float, float]]) -> Iterator[Segment]:
    """The segments, flagged where no speech is near that is sure (start, end in seconds, rising and apart).

    A segment whose words have times is divided between what is near and what is not.
    """
    starts, ends = [start for start, _ in sure], [end for _, end in sure]

    def is_near(item: Segment | Word) -> bool:
        first = bisect.bisect_left(ends, item.start - SLACK_S)
        return first < len(starts) and starts[first] <= item.end + SLACK_S

    for segment in segments:
        near = [is_near(word) for word in segment.words or ()] or [is_near(segment)]
        cuts = [n for n in range(1, len(near)) if near[n] != near[n - 1]]
        for first, part in zip([0, *cuts], split(segment, cuts), strict=True):
            yield part if near[first] else with_flag(part, NO_SPEECH)


class SpeechOnly:
    """A recording reduced to its speech (`source`), and the way back for what is found in it."""

    def __init__(self, recording: AudioSource, speech: Speech) -> None:
        self.recording = recording
        self.source = PackedSource(recording, speech.spans)
        self._speech = speech

    @property
    def duration(self) -> float:
        """Length of the whole recording in seconds."""
        return self._speech.duration

    def result(self, result: TranscriptionResult) -> TranscriptionResult:
        """The result of `source` with the times and the length of the recording."""
        return self.source.restored(result, self.duration)

    def measured(self, result: TranscriptionResult) -> TranscriptionResult:
        """A result in the recording's times with its coverage."""
        return replace(result, coverage=coverage(self._speech.seconds, result.segments))

    def covered(self, result: TranscriptionResult) -> TranscriptionResult:
        """The same, with a warning where there are gaps, and with flags where nobody may have spoken."""
        segments = tuple(doubted(result.segments, self._speech.sure.seconds))
        return with_coverage(replace(result, segments=segments), self._speech.seconds)

    def progress(self, report: ProgressCallback) -> ProgressCallback:
        """`report` in the recording's times, for a family that transcribes `source`."""
        restored: list[Segment] = []
        n_taken = 0

        def tell(progress: Progress) -> None:
            nonlocal n_taken
            for segment in itertools.islice(progress.segments_so_far, n_taken, None):
                restored.extend(self.source.segment(segment, self.duration))
                n_taken += 1
            share = progress.fraction or 0.0
            report(
                replace(
                    progress, done_s=share * self.duration, total_s=self.duration, segments_so_far=restored
                )
            )

        return tell

    def text(self, on_text: TextCallback) -> TextCallback:
        """`on_text` in the recording's times, for a family that transcribes `source`."""
        return lambda text: on_text(PartialText(self._moment(text.start), text.text, text.final))

    def _moment(self, packed_s: float) -> float:
        return self.source.moment(packed_s, self.duration)


__all__ = ["Speech", "SpeechOnly", "doubted", "find_speech"]
