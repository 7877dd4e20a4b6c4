"""What every family does alike: one session a thread, one run a call, cancelling, the partial result.

A family derives from `Family` and tells the steps: `_begin` checks the options against the model and
gives the run its state, `_transcribe` fills it, `_result` makes of it what the caller gets.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rustasr.audio import SAMPLE_RATE, AudioInput, open_audio
from rustasr.errors import Cancelled
from rustasr.options import Options
from rustasr.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.audio import AudioSource
    from rustasr.registry import ModelInfo
    from rustasr.types import TranscriptionResult

OptionsT = TypeVar("OptionsT", bound=Options)
RunT = TypeVar("RunT", bound="Run")

INTERRUPTED = "the transcription was interrupted: what follows the last segment is missing"


@dataclass(slots=True, eq=False)
class Run:
    """One call of `transcribe`: what can be cancelled, and what it knows so far. Seconds."""

    session: _core.Session
    source: AudioSource
    began: float = field(default_factory=time.perf_counter)
    cancelled: threading.Event = field(default_factory=threading.Event)
    duration: float = 0.0

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

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        self.name = name
        self.model_info = model_info
        self.core = core
        self.metadata = core.metadata
        self._local = threading.local()
        self._runs: set[RunT] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.core.device}>"

    def transcribe(
        self,
        audio: AudioInput,
        options: OptionsT | None = None,
        *,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TranscriptionResult:
        """Transcribe a recording of any length.

        `audio` is what `rustasr.audio.open_audio` takes: a path, "-", a binary file object, float32
        samples [n] at 16 kHz, or an AudioSource. `option_overrides` are fields of the family's options
        that replace those of `options`. `progress` is called after every round of windows.

        Raises AudioError, OptionError (also where this model cannot do what is asked), TranscriptionError;
        Cancelled when `cancel` was called, carrying the segments so far, as does the KeyboardInterrupt of
        Ctrl-C (`.partial`).
        """
        chosen: Any = options if options is not None else self.options_class()
        run = self._begin(chosen.override(**option_overrides), audio)
        self._runs.add(run)
        try:
            self._transcribe(run, progress or _no_progress)
        except (Cancelled, KeyboardInterrupt) as stop:
            partial = self._result(run, interrupted=True)
            if isinstance(stop, Cancelled):
                raise Cancelled(partial=partial) from None
            stop.partial = partial  # type: ignore[attr-defined]
            raise
        finally:
            self._runs.discard(run)
        return self._result(run, interrupted=False)

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

    def _open(self, audio: AudioInput) -> tuple[_core.Session, AudioSource]:
        """This thread's session, and the recording."""
        session: _core.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.core.session()
        session.forget_cancel()  # of the last run, which had noticed by itself
        return session, open_audio(audio)


def _no_progress(_: Progress) -> None:
    return None


__all__ = ["INTERRUPTED", "Family", "Run"]
