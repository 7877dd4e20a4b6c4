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

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rustasr.audio import SAMPLE_RATE, AudioInput
from rustasr.errors import OptionError
from rustasr.families.family import INTERRUPTED, Family, Run
from rustasr.families.whisper_decode import Prompter, WindowDecoder
from rustasr.families.whisper_features import BLOCK_SECONDS, FRAMES_PER_SECOND, LogMel, read_log_mel
from rustasr.families.whisper_longform import WINDOW_FRAMES, Transcriber
from rustasr.families.whisper_options import WhisperOptions
from rustasr.families.whisper_result import Collector
from rustasr.languages import LANGUAGE_NAMES, language_code
from rustasr.progress import Progress, ProgressCallback
from rustasr.tokenizer import WhisperTokenizer
from rustasr.types import TranscriptionResult

if TYPE_CHECKING:
    from rustasr import _core
    from rustasr.registry import ModelInfo

UNSURE_LANGUAGE = 0.5  # below this probability the detected language is worth a warning


@dataclass(slots=True, eq=False, kw_only=True)
class _Run(Run):
    """`language` is "" until it is known, `probability` None unless it was detected."""

    options: WhisperOptions
    collector: Collector
    language: str = ""
    probability: float | None = None


class Whisper(Family[WhisperOptions, _Run]):
    """A Whisper model that is ready to transcribe (`rustasr.load_model` makes it)."""

    model_type = "whisper"
    options_class = WhisperOptions

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        super().__init__(core, name=name, model_info=model_info)
        self.tokenizer = WhisperTokenizer(self.metadata)
        self.multilingual = self.tokenizer.multilingual
        self.supported_languages = self.tokenizer.languages if self.multilingual else ("en",)
        self._n_text_ctx = int(str(self.metadata["whisper.n_text_ctx"]))

    # The steps

    def _begin(self, options: WhisperOptions, audio: AudioInput) -> _Run:
        language = self._forced_language(options)
        collector = Collector(self.tokenizer, word_timestamps=options.word_timestamps)
        session, source = self._open(audio)
        return _Run(session, source, options=options, collector=collector, language=language or "")

    def _transcribe(self, run: _Run, report: ProgressCallback) -> None:
        """Features, language, windows; fills the run's collector."""
        with self._log_mel(run) as mel:
            report(Progress(0.0, run.duration))
            if mel.n_frames == 0:
                return
            encoded: list[_core.Encoded] = []
            if not run.language:
                run.language, run.probability = run.rounds.remember(
                    ["language"], tuple[str, float], lambda: self._detect_language(run, mel, encoded)
                )
            transcriber = self._transcriber(run, mel)
            if encoded:
                transcriber.reuse(encoded[0])
            for drafts, done in transcriber.run():
                run.collector.add(drafts)
                report(Progress(done / FRAMES_PER_SECOND, run.duration, run.collector.segments))
                run.check()

    def _log_mel(self, run: _Run) -> LogMel:
        from rustasr import _core

        mel, n_samples = read_log_mel(
            run.blocks(BLOCK_SECONDS), run.session, self.metadata, _core.normalize_log_mel
        )
        run.duration = n_samples / SAMPLE_RATE
        run.collector.duration = run.duration
        return mel

    def _detect_language(self, run: _Run, mel: LogMel, reusable: list[_core.Encoded]) -> tuple[str, float]:
        """The language of the first 30 s and its probability; their encoding, if it is a window's too."""
        encoded = run.session.encode([mel.window_with_silence(0, WINDOW_FRAMES)])
        probabilities = run.session.detect_language(encoded)[0]
        best = int(np.argmax(probabilities))
        # Shorter recordings are followed by silence here, but by zeros when they are transcribed.
        if mel.n_frames >= WINDOW_FRAMES:
            reusable.append(encoded)
        return self.tokenizer.languages[best], float(probabilities[best])

    def _transcriber(self, run: _Run, mel: LogMel) -> Transcriber:
        from rustasr import _core

        options = run.options
        prompter = Prompter(self.tokenizer, options, run.language, options.task, self._n_text_ctx)
        decoder = WindowDecoder(run.session, _core.DecodeOptions, self.tokenizer, options, self._n_text_ctx)
        return Transcriber(
            run.session, mel, self.tokenizer, options, prompter, decoder, run.language, run.rounds
        )

    def _result(self, run: _Run, *, interrupted: bool) -> TranscriptionResult:
        warnings = list(run.source.warnings)
        if run.probability is not None and run.probability < UNSURE_LANGUAGE:
            name = LANGUAGE_NAMES.get(run.language, run.language)
            warnings.append(
                f"the language was detected as {name} with a probability of only {run.probability:.0%}; "
                "name it with the option `language` if that is wrong"
            )
        if interrupted:
            warnings.append(INTERRUPTED)
        return TranscriptionResult(
            text=run.collector.text,
            segments=run.collector.finished(),
            language=run.language,
            duration=run.duration,
            inference_seconds=run.seconds,
            model_name=self.name,
            device=self.core.device,
            language_probability=run.probability,
            warnings=tuple(warnings),
        )

    def _second_options(self, options: WhisperOptions, result: TranscriptionResult) -> WhisperOptions:
        """Nothing that was written before is shown: it is what loops come from."""
        return options.override(
            language=result.language or None,
            condition_on_previous_text=False,
            initial_prompt=None,
            carry_initial_prompt=False,
            prefix=None,
            clip_timestamps=(),
            batch_size=0,
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


__all__ = ["Whisper", "WhisperOptions"]
