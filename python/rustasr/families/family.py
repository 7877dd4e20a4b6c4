"""What every family does alike: one session a thread, one run a call, cancelling, the partial result.

A family derives from `Family` and tells the steps: `_begin` checks the options against the model and
gives the run its state, `_transcribe` fills it, `_result` makes of it what the caller gets. Words by a
forced aligner and text as it comes in work with every family; one whose text grows token by token
(`streams_text`) calls `run.on_text` itself.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rustasr.audio import SAMPLE_RATE, AudioInput, open_audio
from rustasr.errors import Cancelled, OptionError
from rustasr.options import Options
from rustasr.progress import PartialText, Progress, ProgressCallback, TextCallback
from rustasr.streaming import TextStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.aligner import ForcedAligner, Piece
    from rustasr.audio import AudioSource
    from rustasr.registry import ModelInfo
    from rustasr.types import Segment, TranscriptionResult

OptionsT = TypeVar("OptionsT", bound=Options)
RunT = TypeVar("RunT", bound="Run")

ALIGNER_SHARE = 0.25  # of the progress, when there is an aligner
INTERRUPTED = "the transcription was interrupted: what follows the last segment is missing"


@dataclass(slots=True, eq=False)
class Run:
    """One call of `transcribe`: what can be cancelled, and what it knows so far. Seconds."""

    session: _core.Session
    source: AudioSource
    began: float = field(default_factory=time.perf_counter)
    cancelled: threading.Event = field(default_factory=threading.Event)
    duration: float = 0.0
    on_text: TextCallback | None = None
    aligner: ForcedAligner | None = None

    def check(self) -> None:
        """Raises Cancelled once the run was cancelled."""
        if self.cancelled.is_set():
            raise Cancelled

    def blocks(self, block_s: float) -> Iterator[NDArray[np.float32]]:
        """The recording's samples, block by block, until the run is cancelled."""
        for block in self.source.blocks(block_s):
            self.check()
            yield block

    @property
    def seconds(self) -> float:
        """Time spent so far."""
        return time.perf_counter() - self.began


class Family(ABC, Generic[OptionsT, RunT]):
    """A model that is ready to transcribe (`rustasr.load_model` makes it).

    One object serves several threads: the weights are shared, each thread has its own session.
    """

    model_type: ClassVar[str]
    options_class: ClassVar[type[Options]]
    sample_rate = SAMPLE_RATE
    supported_languages: tuple[str, ...] = ()
    streams_text: ClassVar[bool] = False
    words_need_aligner: ClassVar[bool] = False

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        self.name = name
        self.model_info = model_info
        self.core = core
        self.metadata = core.metadata
        self._local = threading.local()
        self._runs: set[RunT] = set()
        self._aligners: dict[str, ForcedAligner] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.core.device}>"

    def transcribe(
        self,
        audio: AudioInput,
        options: OptionsT | None = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        on_text: TextCallback | None = None,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TranscriptionResult:
        """Transcribe a recording of any length.

        `audio` is what `rustasr.audio.open_audio` takes: a path, "-", a binary file object, float32
        samples [n] at 16 kHz, or an AudioSource. `option_overrides` are fields of the family's options
        that replace those of `options`. `progress` is called after every round of windows.

        `align` names a forced aligner (or is one), which gives the result words with times, whatever the
        family; it is loaded on first use, on this model's device. `on_text` is told the text as it comes
        in, token by token or window by window, as the family has it.

        Raises AudioError, OptionError (also where this model cannot do what is asked), TranscriptionError;
        Cancelled when `cancel` was called, carrying the segments so far, as does the KeyboardInterrupt of
        Ctrl-C (`.partial`).
        """
        chosen: Any = options if options is not None else self.options_class()
        chosen = chosen.override(**option_overrides)
        aligner = self._aligner(align, chosen.timestamps)
        run = self._begin(chosen, audio)
        run.on_text, run.aligner = on_text, aligner
        report = progress or _no_progress
        self._runs.add(run)
        try:
            self._transcribe(run, self._reporter(run, report if aligner is None else _first_part(report)))
            if aligner is not None:
                return self._aligned(run, aligner, report)
        except (Cancelled, KeyboardInterrupt) as stop:
            partial = self._result(run, interrupted=True)
            if isinstance(stop, Cancelled):
                raise Cancelled(partial=partial) from None
            stop.partial = partial  # type: ignore[attr-defined]
            raise
        finally:
            self._runs.discard(run)
        return self._result(run, interrupted=False)

    def stream(
        self,
        audio: AudioInput,
        options: OptionsT | None = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TextStream:
        """Transcribe in a thread of its own, giving the text as it comes in.

        The stream is an iterator of `PartialText`; `stream.result()` is what `transcribe` would have
        returned. Closing it early stops the work. Arguments and errors are those of `transcribe`.
        """
        report = progress or _no_progress

        def work(stream: TextStream) -> TranscriptionResult:
            def tell(progress: Progress) -> None:
                stream.check()
                report(progress)

            return self.transcribe(
                audio, options, align=align, on_text=stream.put, progress=tell, **option_overrides
            )

        return TextStream(work)

    def cancel(self) -> None:
        """Stop every `transcribe` of this model that is running, from any thread; each raises Cancelled."""
        for run in list(self._runs):
            run.cancelled.set()
            run.session.cancel()

    @abstractmethod
    def _begin(self, options: OptionsT, audio: AudioInput) -> RunT:
        """Check the options against the model and open the recording (`_open`)."""

    @abstractmethod
    def _transcribe(self, run: RunT, report: ProgressCallback) -> None:
        """Fill the run, calling `report` and `run.check` after every round of windows."""

    @abstractmethod
    def _result(self, run: RunT, *, interrupted: bool) -> TranscriptionResult:
        """What the run has found."""

    def _pieces(self, run: RunT) -> Sequence[Piece] | None:  # noqa: ARG002 - a family may know
        """Which sound goes with which segments, for an aligner; None: the segments' times say it."""
        return None

    def _reporter(self, run: RunT, report: ProgressCallback) -> ProgressCallback:
        """`report`, which also tells `run.on_text` of new segments where the family does not do it."""
        on_text = run.on_text
        if on_text is None or self.streams_text:
            return report
        told = 0

        def tell(progress: Progress) -> None:
            nonlocal told
            for segment in progress.segments_so_far[told:]:
                on_text(PartialText(segment.start, segment.text, final=True))
            told = len(progress.segments_so_far)
            report(progress)

        return tell

    def _aligner(self, align: str | Path | ForcedAligner | None, timestamps: str) -> ForcedAligner | None:
        """The aligner that was named, loaded once; OptionError where times and aligner do not agree."""
        if align is None:
            if timestamps == "word" and self.words_need_aligner:
                raise OptionError(
                    f"timestamps: {self.name} gives no word times by itself; name an aligner as well: "
                    "align='qwen3-forced-aligner-0.6b' (--align qwen3-forced-aligner-0.6b)"
                )
            return None
        if timestamps == "none":
            raise OptionError("align: gives times, but timestamps is 'none'; leave one of them out")
        from rustasr.aligner import ForcedAligner, load_aligner

        if isinstance(align, ForcedAligner):
            return align
        key = str(align)
        if key not in self._aligners:
            self._aligners[key] = load_aligner(align, self.core.device, self.core.threads)
        return self._aligners[key]

    def _aligned(self, run: RunT, aligner: ForcedAligner, report: ProgressCallback) -> TranscriptionResult:
        """The run's result with words."""

        def after_piece(done_s: float, segments: Sequence[Segment]) -> None:
            share = 1 - ALIGNER_SHARE * (1 - done_s / run.duration)
            report(Progress(share * run.duration, run.duration, segments))
            run.check()

        result = aligner.align_result(
            run.source, self._result(run, interrupted=False), self._pieces(run), report=after_piece
        )
        return replace(result, inference_seconds=run.seconds)

    def _open(self, audio: AudioInput) -> tuple[_core.Session, AudioSource]:
        """This thread's session, and the recording."""
        session: _core.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.core.session()
        session.forget_cancel()  # of the last run, which had noticed by itself
        return session, open_audio(audio)


def _no_progress(_: Progress) -> None:
    return None


def _first_part(report: ProgressCallback) -> ProgressCallback:
    """Progress of what comes before an aligner."""
    return lambda progress: report(replace(progress, done_s=(1 - ALIGNER_SHARE) * progress.done_s))


__all__ = ["INTERRUPTED", "Family", "Run"]
