"""Qwen3-ASR: recordings to text in thirty languages, by a language model that listens.

::

    audio      16 kHz blocks                                              rustasr.audio
      → windows  about 60 s, cut where it is quiet                        qwen3_windows
      → mel      [T, 128], scaled by the window's own maximum             qwen3_decode, _core
      → encode   a batch of windows → 13 vectors a second                 _core
      → prompt   context, the vectors, a language if one is forced        qwen3_text
      → decode   greedy, several windows at a time; loops are caught      qwen3_decode, _core
      → answer   "language English<asr_text>…" → language, text           qwen3_text
      → result   sentences with estimated times                           qwen3_result
      → words    on request: Qwen3-ForcedAligner                          rustasr.aligner

Follows qwen-asr 0.0.6 (inference/qwen3_asr.py, inference/utils.py). The network is
`csrc/models/qwen3_asr.cpp`; here is what to ask it, and what to believe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr import longform
from rustasr.audio import SAMPLE_RATE, AudioInput
from rustasr.errors import ModelFileError, OptionError, UnsupportedModelError
from rustasr.families.family import INTERRUPTED, Family, Run
from rustasr.families.qwen3_decode import Listener
from rustasr.families.qwen3_kept import Kept
from rustasr.families.qwen3_options import QwenOptions
from rustasr.families.qwen3_result import Collector
from rustasr.families.qwen3_text import QwenTokenizer, code_of, language_name
from rustasr.families.qwen3_windows import batches, windows
from rustasr.progress import PartialText, Progress, ProgressCallback
from rustasr.repetition import flagged
from rustasr.types import TranscriptionResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.aligner import Piece
    from rustasr.longform import Window
    from rustasr.registry import ModelInfo

BLOCK_SECONDS = 10.0
SHORTEST_WINDOW_S = 0.1  # nothing is said in less


@dataclass(slots=True, eq=False, kw_only=True)
class _Run(Run):
    options: QwenOptions
    forced: str | None
    collector: Collector


class Qwen3Asr(Family[QwenOptions, _Run]):
    """A Qwen3-ASR model that is ready to transcribe (`rustasr.load_model` makes it)."""

    model_type = "qwen3"
    options_class = QwenOptions
    streams_text = True
    words_need_aligner = True
    repairs_loops = True

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        super().__init__(core, name=name, model_info=model_info)
        if self.metadata.get("qwen3_asr.task") != "transcribe":
            raise UnsupportedModelError(
                f"{name} is a forced aligner and does not transcribe: name it as the aligner of another "
                "model (--align, or transcribe(..., align=...)), or use rustasr.load_aligner"
            )
        names = self.metadata.get("qwen3_asr.languages")
        if not isinstance(names, (list, tuple)) or not names:
            raise ModelFileError(f"metadata key qwen3_asr.languages: expected names, found {names!r:.60}")
        self.tokenizer = QwenTokenizer(self.metadata)
        self.supported_languages = tuple(code_of(str(language)) for language in names)
        self._min_samples = int(str(self.metadata["qwen3_asr.min_samples"]))

    # The steps

    def _begin(self, options: QwenOptions, audio: AudioInput) -> _Run:
        forced = self._forced_language(options.language)
        collector = Collector(self.tokenizer, options, forced)
        session, source = self._open(audio)
        return _Run(session, source, options=options, forced=forced, collector=collector)

    def _transcribe(self, run: _Run, report: ProgressCallback) -> None:
        report(Progress(0.0, run.source.duration))
        options = run.options
        listener = Listener(run.session, self.tokenizer, options, run.forced, self._min_samples)
        spans = longform.spans_of(options.clip_timestamps)
        length_s = min(options.window_seconds, run.aligner.window_s if run.aligner else math.inf)
        found = windows(self._counted(run), length_s, spans)
        sounding = (w for w in found if w.duration >= SHORTEST_WINDOW_S and not w.is_digital_silence)
        for batch in batches(sounding, options.batch_size):
            self._window_batch(run, listener, batch)
            done = batch[-1].offset + batch[-1].duration
            report(Progress(done, run.source.duration, run.collector.segments))
            run.check()

    def _counted(self, run: _Run) -> Iterator[NDArray[np.float32]]:
        n_samples = 0
        for block in run.blocks(BLOCK_SECONDS):
            n_samples += len(block)
            run.duration = n_samples / SAMPLE_RATE
            yield block

    def _window_batch(self, run: _Run, listener: Listener, batch: Sequence[Window]) -> None:
        on_text = run.on_text

        def live(window: Window, text: str) -> None:
            assert on_text is not None
            on_text(PartialText(window.offset, text, final=False))

        def hear() -> list[Kept]:
            return [Kept.of(heard) for heard in listener.hear(batch, live if on_text is not None else None)]

        key = ["windows", *([window.start, len(window.samples)] for window in batch)]
        for kept in run.rounds.remember(key, list[Kept], hear):
            heard = kept.heard(batch)
            text = run.collector.add(heard)
            if on_text is not None:
                on_text(PartialText(heard.window.offset, text, final=True))

    def _pieces(self, run: _Run) -> Sequence[Piece]:
        return run.collector.pieces

    def _result(self, run: _Run, *, interrupted: bool) -> TranscriptionResult:
        languages = run.collector.languages
        warnings = list(run.source.warnings)
        if len(languages) > 1:
            warnings.append(
                f"several languages were heard ({', '.join(languages)}); each segment names its own"
            )
        if interrupted:
            warnings.append(INTERRUPTED)
        forced = code_of(run.forced) if run.forced else ""
        return TranscriptionResult(
            text=run.collector.text,
            segments=flagged(run.collector.segments),
            language=forced or (languages[0] if languages else ""),
            duration=run.duration,
            inference_seconds=run.seconds,
            model_name=self.name,
            device=self.core.device,
            warnings=tuple(warnings),
        )

    # What this model can do

    def _forced_language(self, language: str | None) -> str | None:
        """The model's name of the language asked for, or None; OptionError for one that it does not know."""
        if language is None or language == "auto":
            return None
        name = language_name(language)
        if name is None or code_of(name) not in self.supported_languages:
            raise OptionError(
                f"language: {self.name} knows {', '.join(self.supported_languages)} "
                f"(or their English names), found {language!r}"
            )
        return name


__all__ = ["Qwen3Asr", "QwenOptions"]
