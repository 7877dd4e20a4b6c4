"""Whisper: recordings to text in a hundred languages, and to English.

::

    audio           16 kHz blocks                                          rustasr.audio
      → log mel     raw [n_frames, n_mels], peak of the whole recording    whisper_features
      → language    probabilities on the first 30 s                        here
      → windows     30 s each; where to read next, batches, cuts           whisper_longform
          → encode      [<= 3000, n_mels] → [1500, d]                      _core
          → decode      prompt → tokens, fallback over temperatures        whisper_decode
          → words       tokens → times (cross attention, DTW)              whisper_words, rustasr.alignment
      → result      segments with absolute times, confidence and flags     whisper_result

Follows openai-whisper 20250625 (transcribe.py, decoding.py, timing.py). The network is
`csrc/models/whisper.cpp`; here is what to try, when to try again, and what to believe.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rustasr.audio import SAMPLE_RATE, AudioInput, open_audio
from rustasr.errors import Cancelled, OptionError
from rustasr.families.whisper_decode import Prompter, WindowDecoder
from rustasr.families.whisper_features import BLOCK_SECONDS, FRAMES_PER_SECOND, LogMel, read_log_mel
from rustasr.families.whisper_languages import LANGUAGE_NAMES, language_code
from rustasr.families.whisper_longform import WINDOW_FRAMES, Transcriber
from rustasr.families.whisper_options import WhisperOptions
from rustasr.families.whisper_result import Collector
from rustasr.progress import Progress, ProgressCallback
from rustasr.tokenizer import WhisperTokenizer
from rustasr.types import TranscriptionResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.audio import AudioSource
    from rustasr.registry import ModelInfo

UNSURE_LANGUAGE = 0.5  # below this probability the detected language is worth a warning


@dataclass(slots=True, eq=False)
class _Run:
    """One call of `transcribe`: what can be cancelled, and what it knows so far."""

    session: _core.Session
    options: WhisperOptions
    source: AudioSource
    collector: Collector
    cancelled: threading.Event = field(default_factory=threading.Event)
    language: str = ""
    probability: float | None = None
    duration: float = 0.0

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


class Whisper:
    """A Whisper model that is ready to transcribe (`rustasr.load_model` makes it).

    One object serves several threads: the weights are shared, each thread has its own session.
    """

    model_type = "whisper"
    sample_rate = SAMPLE_RATE

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        self.name = name
        self.model_info = model_info
        self.core = core
        self.metadata = core.metadata
        self.tokenizer = WhisperTokenizer(self.metadata)
        self.multilingual = self.tokenizer.multilingual
        self.supported_languages: tuple[str, ...] = self.tokenizer.languages if self.multilingual else ("en",)
        self._n_text_ctx = int(str(self.metadata["whisper.n_text_ctx"]))
        self._local = threading.local()
        self._runs: set[_Run] = set()

    def __repr__(self) -> str:
        return f"<Whisper {self.name} on {self.core.device}>"

    def transcribe(
        self,
        audio: AudioInput,
        options: WhisperOptions | None = None,
        *,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TranscriptionResult:
        """Transcribe a recording of any length.

        `audio` is what `rustasr.audio.open_audio` takes: a path, "-", a binary file object, float32
        samples [n] at 16 kHz, or an AudioSource. `option_overrides` are fields of WhisperOptions that
        replace those of `options`. `progress` is called after every round of windows.

        Raises AudioError, OptionError (also where this model cannot do what is asked: another language
        or a translation with an English-only model), TranscriptionError; Cancelled when `cancel` was
        called, carrying the segments so far, as does the KeyboardInterrupt of Ctrl-C (`.partial`).
        """
        options = (options or WhisperOptions()).override(**option_overrides)
        language = self._forced_language(options)
        began = time.perf_counter()
        collector = Collector(self.tokenizer, word_timestamps=options.word_timestamps)
        run = _Run(self._session(), options, open_audio(audio), collector)
        run.language = language or ""
        self._runs.add(run)
        try:
            self._transcribe(run, progress)
        except (Cancelled, KeyboardInterrupt) as stop:
            partial = self._result(run, began, interrupted=True)
            if isinstance(stop, Cancelled):
                raise Cancelled(partial=partial) from None
            stop.partial = partial  # type: ignore[attr-defined]
            raise
        finally:
            self._runs.discard(run)
        return self._result(run, began)

    def cancel(self) -> None:
        """Stop every `transcribe` of this model that is running, from any thread; each raises Cancelled."""
        for run in list(self._runs):
            run.cancelled.set()
            run.session.cancel()

    # The steps

    def _transcribe(self, run: _Run, progress: ProgressCallback | None) -> None:
        """Features, language, windows; fills the run's collector."""
        report = progress or _no_progress
        with self._log_mel(run) as mel:
            report(Progress(0.0, run.duration))
            if mel.n_frames == 0:
                return
            encoded = self._detect_language(run, mel) if not run.language else None
            transcriber = self._transcriber(run, mel)
            if encoded is not None:
                transcriber.reuse(encoded)
            for drafts, done in transcriber.run():
                run.collector.add(drafts)
                report(Progress(done / FRAMES_PER_SECOND, run.duration, run.collector.segments))
                run.check()

    def _log_mel(self, run: _Run) -> LogMel:
        from rustasr import _core

        mel, n_samples = read_log_mel(self._blocks(run), run.session, self.metadata, _core.normalize_log_mel)
        run.duration = n_samples / SAMPLE_RATE
        run.collector.duration = run.duration
        return mel

    def _blocks(self, run: _Run) -> Iterator[NDArray[np.float32]]:
        for block in run.source.blocks(BLOCK_SECONDS):
            run.check()
            yield block

    def _detect_language(self, run: _Run, mel: LogMel) -> _core.Encoded | None:
        """Sets the run's language from the first 30 s; gives the encoding back if it is a window's too."""
        encoded = run.session.encode([mel.window_with_silence(0, WINDOW_FRAMES)])
        probabilities = run.session.detect_language(encoded)[0]
        best = int(np.argmax(probabilities))
        run.language = self.tokenizer.languages[best]
        run.probability = float(probabilities[best])
        # Shorter recordings are followed by silence here, but by zeros when they are transcribed.
        return encoded if mel.n_frames >= WINDOW_FRAMES else None

    def _transcriber(self, run: _Run, mel: LogMel) -> Transcriber:
        from rustasr import _core

        options = run.options
        prompter = Prompter(self.tokenizer, options, run.language, options.task, self._n_text_ctx)
        decoder = WindowDecoder(run.session, _core.DecodeOptions, self.tokenizer, options, self._n_text_ctx)
        return Transcriber(run.session, mel, self.tokenizer, options, prompter, decoder, run.language)

    def _result(self, run: _Run, began: float, *, interrupted: bool = False) -> TranscriptionResult:
        warnings = list(run.source.warnings)
        if run.probability is not None and run.probability < UNSURE_LANGUAGE:
            name = LANGUAGE_NAMES.get(run.language, run.language)
            warnings.append(
                f"the language was detected as {name} with a probability of only {run.probability:.0%}; "
                "name it with the option `language` if that is wrong"
            )
        if interrupted:
            warnings.append("the transcription was interrupted: what follows the last segment is missing")
        return TranscriptionResult(
            text=run.collector.text,
            segments=run.collector.finished(),
            language=run.language,
            duration=run.duration,
            inference_seconds=time.perf_counter() - began,
            model_name=self.name,
            device=self.core.device,
            language_probability=run.probability,
            warnings=tuple(warnings),
        )

    # What this model can do

    def _forced_language(self, options: WhisperOptions) -> str | None:
        """The language's code, or None to detect it; OptionError for what the model cannot do."""
        if options.task == "translate" and not self.multilingual:
            raise OptionError(
                f"task: {self.name} knows English only and cannot translate; use a multilingual model, "
                "for instance whisper-base"
            )
        if options.language is None or options.language == "auto":
            return None if self.multilingual else "en"
        code = language_code(options.language)
        if code is None:
            raise OptionError(
                "language: expected a code or an English name (de, german, ...), "
                f"found {options.language!r}; this model knows: {', '.join(self.supported_languages)}"
            )
        if code not in self.supported_languages:
            known = "English only" if not self.multilingual else f"{len(self.supported_languages)} languages"
            raise OptionError(
                f"language: {self.name} knows {known}, not {LANGUAGE_NAMES[code]} ({code}); "
                "use a multilingual model, for instance whisper-base"
            )
        return code

    def _session(self) -> _core.Session:
        session: _core.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.core.session()
        return session


def _no_progress(_: Progress) -> None:
    return None


__all__ = ["Whisper", "WhisperOptions"]
