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
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rustasr.audio import SAMPLE_RATE, ArraySource, AudioInput, open_audio
from rustasr.errors import Cancelled, OptionError
from rustasr.journal import Journal, Rounds, identity, settings_of
from rustasr.longform import spans_of
from rustasr.options import Options
from rustasr.progress import PartialText, Progress, ProgressCallback, TextCallback, Timed, part
from rustasr.second_look import HEARD_AGAIN, second_look
from rustasr.sessions import session_of
from rustasr.speech_only import Speech, SpeechOnly, find_speech
from rustasr.streaming import TextStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.aligner import ForcedAligner, Piece
    from rustasr.audio import AudioSource
    from rustasr.diarization import DiarizationOptions
    from rustasr.registry import ModelInfo
    from rustasr.second_look import Stretch
    from rustasr.types import Segment, TranscriptionResult
    from rustasr.vad import Vad

OptionsT = TypeVar("OptionsT", bound=Options)
RunT = TypeVar("RunT", bound="Run")

VAD_SHARE = 0.05  # of the progress, when speech is looked for first
ALIGNER_SHARE = 0.25  # of the rest, when there is an aligner
READ_SECONDS = 10.0
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
    speech: SpeechOnly | None = None  # where only the speech is heard, `source` is that of this
    rounds: Rounds = field(default_factory=Rounds)

    def check(self) -> None:
        """Raises Cancelled once the run was cancelled."""
        if self.cancelled.is_set():
            raise Cancelled

    def blocks(self, block_s: float) -> Iterator[NDArray[np.float32]]:
        """The recording's samples, block by block, until the run is cancelled."""
        for block in self.source.blocks(block_s):
            self.check()
            yield block

    def restoring(self, report: ProgressCallback) -> ProgressCallback:
        """`report` in the times of the recording, for who works on `source`."""
        return report if self.speech is None else self.speech.progress(report)

    def restored(self, result: TranscriptionResult) -> TranscriptionResult:
        """A result of `source` in the times of the recording."""
        return result if self.speech is None else self.speech.result(result)

    def completed(self, result: TranscriptionResult) -> TranscriptionResult:
        """A result in the times of the recording with its coverage, time and warnings."""
        warnings = (*result.warnings, *self.rounds.warnings)
        result = replace(result, warnings=warnings, inference_seconds=self.seconds)
        return result if self.speech is None else self.speech.covered(result)

    @property
    def seconds(self) -> float:
        """Time spent so far, by an earlier run that is continued too."""
        return self.rounds.known_seconds + time.perf_counter() - self.began


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
    repairs_loops: ClassVar[bool] = False  # its decoder tries other settings by itself

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        self.name = name
        self.model_info = model_info
        self.core = core
        self.metadata = core.metadata
        self._local = threading.local()
        self._runs: set[RunT] = set()
        self._aligners: dict[str, ForcedAligner] = {}
        self._vads: dict[str, Vad] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.core.device}>"

    def transcribe(
        self,
        audio: AudioInput,
        options: OptionsT | None = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        vad: str | Vad | None = None,
        diarize: bool | DiarizationOptions = False,
        journal: str | Path | Rounds | None = None,
        on_text: TextCallback | None = None,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TranscriptionResult:
        """Transcribe a recording of any length.

        `audio` is what `rustasr.audio.open_audio` takes: a path, "-", a binary file object, float32
        samples [n] at 16 kHz, or an AudioSource. `option_overrides` are fields of the family's options
        that replace those of `options`. `progress` is called after every round of windows.

        `vad` names a voice activity detector (see `rustasr.vad.load_vad`) or is one: the model then hears
        nothing but speech, and the result says how much of it has text (`coverage`). `align` names a forced
        aligner (or is one), which gives the result words with times, whatever the family; it is loaded on
        first use, on this model's device. `diarize` says who speaks as well (`rustasr.diarize`, which takes
        more): segments have speakers, and the result `turns`; speech is then found by Silero unless `vad`
        says otherwise, and words are timed unless `timestamps` does. `on_text` is told the text as it comes
        in, token by token or window by window, as the family has it.

        `journal` is a file that keeps what is finished: when the work is interrupted, be it by a power
        failure, the same call with the same file continues where it stopped and gives the same result
        (`inference_seconds` counts both runs). It is written once the work has taken a few seconds; delete
        it when you have the result. A file of another recording, model or options is kept beside it, and
        `warnings` says so. Work of which this is a part hands its own rounds on instead of a file.

        Raises AudioError, OptionError (also where this model cannot do what is asked), TranscriptionError;
        Cancelled when `cancel` was called, carrying the segments so far, as does the KeyboardInterrupt of
        Ctrl-C (`.partial`).
        """
        chosen: Any = options if options is not None else self.options_class()
        if diarize:
            from rustasr.diarization import diarize as diarized

            return diarized(
                self,
                audio,
                None if diarize is True else diarize,
                vad=vad or "silero",
                align=align,
                journal=journal,
                on_text=on_text,
                progress=progress,
                **{**chosen.changes(), **option_overrides},
            )
        chosen = chosen.override(**option_overrides)
        aligner = self._aligner(align, chosen.timestamps)
        detector = self._vad(vad)
        # Places are cut out of the speech, not out of what a family hears.
        clips = chosen.clip_timestamps if detector is not None else ()
        run = self._begin(chosen.override(clip_timestamps=()) if clips else chosen, audio)
        run.on_text, run.aligner = on_text, aligner
        if journal is not None:
            handed = journal if isinstance(journal, Rounds) else None
            run.rounds = handed or self._journal(Path(str(journal)), run, chosen, detector)
        report = _timed(run.rounds, progress)
        self._runs.add(run)
        try:
            if detector is None:
                result = self._heard(run, report)
            else:
                self._leave_speech(run, detector, clips, part(report, 0.0, VAD_SHARE))
                result = self._heard(run, part(report, VAD_SHARE, 1.0))
            return run.completed(self._looked_again(run, chosen, result, on_text))
        except (Cancelled, KeyboardInterrupt) as stop:
            partial = run.completed(run.restored(self._result(run, interrupted=True)))
            if isinstance(stop, Cancelled):
                raise Cancelled(partial=partial) from None
            stop.partial = partial  # type: ignore[attr-defined]
            raise
        finally:
            self._runs.discard(run)
            run.rounds.close()

    def stream(
        self,
        audio: AudioInput,
        options: OptionsT | None = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        vad: str | Vad | None = None,
        journal: str | Path | None = None,
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
                audio,
                options,
                align=align,
                vad=vad,
                journal=journal,
                on_text=stream.put,
                progress=tell,
                **option_overrides,
            )

        return TextStream(work)

    def cancel(self) -> None:
        """Stop every `transcribe` of this model that is running, from any thread; each raises Cancelled."""
        for run in list(self._runs):
            run.cancelled.set()
            run.session.cancel()

    def _leave_speech(self, run: RunT, vad: Vad, clips: Sequence[float], report: ProgressCallback) -> None:
        """The run goes on with the speech of its recording alone, and of the clips where there are any."""

        def blocks() -> Iterator[NDArray[np.float32]]:
            for n_blocks, block in enumerate(run.blocks(READ_SECONDS)):
                report(Progress(n_blocks * READ_SECONDS, run.source.duration))
                yield block

        speech = run.rounds.remember(["speech"], Speech, lambda: find_speech(vad, blocks()))
        run.speech = SpeechOnly(run.source, speech.within(spans_of(clips)))
        run.source = run.speech.source
        run.on_text = None if run.on_text is None else run.speech.text(run.on_text)

    def _heard(self, run: RunT, report: ProgressCallback) -> TranscriptionResult:
        """Transcribe and align what the run is about; the result has the recording's times."""
        share = 1.0 if run.aligner is None else 1 - ALIGNER_SHARE
        self._transcribe(run, self._reporter(run, run.restoring(part(report, 0.0, share))))
        result = self._result(run, interrupted=False)
        if run.aligner is not None:
            result = self._aligned(run, run.aligner, result, run.restoring(part(report, share, 1.0)))
        return run.restored(result)

    def _looked_again(
        self, run: RunT, options: OptionsT, result: TranscriptionResult, on_text: TextCallback | None
    ) -> TranscriptionResult:
        """The result with what was found in gaps and loops that were heard again, each by itself."""
        recording, chosen = run.source, self._second_options(options, result)
        if run.speech is not None:
            recording, result = run.speech.recording, run.speech.measured(result)

        def again(_: Stretch, samples: NDArray[np.float32]) -> TranscriptionResult:
            alone = self._begin(chosen, ArraySource(samples, recording.name))
            alone.aligner, alone.rounds, alone.cancelled = run.aligner, run.rounds, run.cancelled
            run.check()
            return self._heard(alone, _no_progress)

        blocks = recording.blocks(READ_SECONDS)
        better = second_look(result, blocks, again, loops=not self.repairs_loops)
        for segment in better.segments:
            if on_text is not None and HEARD_AGAIN in segment.flags:
                on_text(PartialText(segment.start, segment.text, final=True))
        return better

    def _second_options(self, options: OptionsT, result: TranscriptionResult) -> OptionsT:  # noqa: ARG002
        """How to hear a stretch of the recording again by itself, after `result`."""
        return options.override(clip_timestamps=())

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

    def _vad(self, vad: str | Vad | None) -> Vad | None:
        """The detector that was named, loaded once."""
        if not isinstance(vad, str):
            return vad
        from rustasr.vad import load_vad

        if vad not in self._vads:
            self._vads[vad] = load_vad(vad)
        return self._vads[vad]

    def _journal(self, path: Path, run: RunT, options: OptionsT, vad: Vad | None) -> Journal:
        """The run's journal; it belongs to this recording, model and way to transcribe."""
        source = run.source

        def belongs_to() -> dict[str, str]:
            helpers = settings_of(vad), settings_of(run.aligner)
            return identity(source, self, options, *helpers, run.on_text is not None)

        return Journal(path, belongs_to, lambda: run.seconds)

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

    def _aligned(
        self, run: RunT, aligner: ForcedAligner, result: TranscriptionResult, report: ProgressCallback
    ) -> TranscriptionResult:
        """The run's result with words."""

        def after_piece(done_s: float, segments: Sequence[Segment]) -> None:
            report(Progress(done_s, run.duration, segments))
            run.check()

        pieces = self._pieces(run)
        result = aligner.align_result(run.source, result, pieces, report=after_piece, rounds=run.rounds)
        return replace(result, inference_seconds=run.seconds)

    def _open(self, audio: AudioInput) -> tuple[_core.Session, AudioSource]:
        """This thread's session, and the recording."""
        session = session_of(self.core, self._local)
        session.forget_cancel()  # of the last run, which had noticed by itself
        return session, open_audio(audio)


def _timed(rounds: Rounds, report: ProgressCallback | None) -> ProgressCallback:
    """`report` with the time that is left; rounds that were known before do not count as work."""
    if report is None:
        return _no_progress
    timed = Timed(report)

    def tell(progress: Progress) -> None:
        timed(progress)
        if rounds.replaying:
            timed.restart(progress.done_s)

    return tell


def _no_progress(_: Progress) -> None:
    return None


__all__ = ["INTERRUPTED", "Family", "Run"]
