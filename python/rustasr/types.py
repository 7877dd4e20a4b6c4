"""What a transcription returns. All times are float seconds, absolute in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One written word with its time span and the model's probability of it (0 to 1)."""

    start: float
    end: float
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the model's vocabulary with its time span and the model's probability of it (0 to 1)."""

    id: int
    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with its text.

    What a family does not know stays None: `words` without word timestamps, `timed_tokens` where
    tokens have no times of their own, `speaker` without diarization, the decoding statistics
    (`temperature`, `avg_logprob`, `compression_ratio`, `no_speech_prob`) where the decoder has none,
    `language` (a code) where a family does not hear it segment by segment. `flags` name what looked
    doubtful, for instance "no_speech", "repetition" or "low_confidence".
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] | None = None
    speaker: str | None = None
    confidence: float | None = None
    tokens: tuple[int, ...] = ()
    timed_tokens: tuple[Token, ...] | None = None
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None
    flags: tuple[str, ...] = ()
    language: str | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One speaker talks from `start` to `end`. Turns of different speakers may overlap."""

    start: float
    end: float
    speaker: str

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the speech that a voice activity detector heard has text.

    `speech_seconds` is all of it, `text_seconds` the part with text; `gaps` are (start, end) of longer
    stretches of speech without any.
    """

    speech_seconds: float
    text_seconds: float
    gaps: tuple[tuple[float, float], ...] = ()

    @property
    def share(self) -> float:
        """The part of the speech that has text, 0 to 1; 1 where nobody speaks."""
        return self.text_seconds / self.speech_seconds if self.speech_seconds > 0 else 1.0


@dataclass(frozen=True, slots=True)
class TranscriptionResult:
    """The text of one recording, with its segments and how it was made.

    `duration` is the recording's length and `inference_seconds` the time spent on it, both in
    seconds; `language` is an ISO 639-1 code ("" when unknown). `warnings` are sentences for the
    user: a truncated file, samples that were no numbers, and the like. `coverage` is None where no
    voice activity detector listened, `turns` where nobody looked for speakers.
    """

    text: str
    segments: tuple[Segment, ...]
    language: str
    duration: float
    inference_seconds: float
    model_name: str
    device: str = "cpu"
    language_probability: float | None = None
    warnings: tuple[str, ...] = ()
    coverage: Coverage | None = None
    turns: tuple[Turn, ...] | None = None

    @property
    def rtf(self) -> float:
        """Real-time factor: seconds of work per second of audio (below 1 is faster than real time)."""
        return self.inference_seconds / self.duration if self.duration > 0 else 0.0

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments in order; empty without word timestamps."""
        return tuple(word for segment in self.segments for word in segment.words or ())

    def to_dict(self) -> dict[str, Any]:
        """The JSON document (`rustasr.transcript`, version 1) as plain containers."""
        from rustasr import writers

        return writers.to_dict(self)

    def to_json(self, *, indent: int | None = 2) -> str:
        """The JSON document; its schema is `rustasr/schema/transcript-1.schema.json`."""
        from rustasr import writers

        return writers.to_json(self, indent=indent)

    def to_text(self) -> str:
        """The plain text, one segment a line."""
        from rustasr import writers

        return writers.to_text(self)

    def to_srt(self) -> str:
        """SubRip subtitles within reading limits."""
        from rustasr import writers

        return writers.to_srt(self)

    def to_vtt(self) -> str:
        """WebVTT subtitles within reading limits."""
        from rustasr import writers

        return writers.to_vtt(self)

    def to_tsv(self) -> str:
        """Tab-separated start, end (milliseconds) and text, one segment a line, with a header."""
        from rustasr import writers

        return writers.to_tsv(self)


__all__ = ["Coverage", "Segment", "Token", "TranscriptionResult", "Turn", "Word"]
