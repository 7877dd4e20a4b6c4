"""A model for tests of the command line: real audio decoding, made-up text, and time to press Ctrl-C.

What a command does around a model (inputs, outputs, exit codes, interruption) is tested with it; what a
real model writes is tested with real weights.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustasr.errors import Cancelled, OptionError, TranscriptionError
from rustasr.progress import PartialText, Progress
from rustasr.types import Segment, TranscriptionResult, Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from rustasr.audio import AudioSource


class EchoModel:
    """Writes how many samples it heard, one segment a second; `slow` waits that long in each."""

    name = "echo"
    model_type = "whisper"
    sample_rate = 16000
    supported_languages = ("en",)
    model_info = None

    def __init__(self, slow: float = 0.0) -> None:
        self.loaded: list[tuple[str | None, dict[str, Any]]] = []  # arguments of load_model, by the test
        self.calls: list[dict[str, Any]] = []
        self.threads: set[int] = set()
        self._slow = slow
        self._stop = threading.Event()

    def transcribe(
        self,
        audio: AudioSource,
        options: object = None,
        *,
        on_text: Callable[[PartialText], None] | None = None,
        progress: Callable[[Progress], None] | None = None,
        **overrides: Any,
    ) -> TranscriptionResult:
        self.calls.append(overrides)
        self.threads.add(threading.get_ident())
        if overrides.get("language") == "xx":
            raise OptionError("language: expected en, found 'xx'")
        if "poison" in audio.name:
            raise TranscriptionError(f"{audio.name}: the numbers went wrong")
        segments: list[Segment] = []
        for second, block in enumerate(audio.blocks(1.0)):
            end = second + len(block) / 16000
            words = (Word(second, end, "heard", 0.9),) if overrides.get("timestamps") == "word" else None
            text = f"heard {len(block)} samples"
            flags = ("estimated_times",) if Path(audio.name).name == "estimate.wav" else ()
            segments.append(Segment(float(second), end, text, words, flags=flags))
            if on_text is not None:
                for grown in (text[:5], text):
                    on_text(PartialText(float(second), grown, final=grown == text))
            if progress is not None:
                progress(Progress(end, audio.duration, segments))
            if self._stop.wait(self._slow):
                raise Cancelled(partial=self._result(segments, audio))
        return self._result(segments, audio)

    def cancel(self) -> None:
        self._stop.set()

    def _result(self, segments: list[Segment], audio: AudioSource) -> TranscriptionResult:
        text = " ".join(segment.text for segment in segments)
        duration = audio.duration or 0.0
        warnings = tuple(audio.warnings)
        return TranscriptionResult(text, tuple(segments), "en", duration, 0.01, self.name, warnings=warnings)
