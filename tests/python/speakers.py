"""Stand-ins for tests of diarization: voices that are levels, an encoder that hears them, a score."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rustasr.errors import Cancelled
from rustasr.progress import Progress
from rustasr.speech_only import SpeechOnly, find_speech
from rustasr.types import Segment, TranscriptionResult, Turn, Word
from rustasr.vad import Span

RATE = 16000
Array = np.ndarray[Any, Any]


def level(voice: int) -> float:
    """The value of all samples in which `voice` speaks; 0 is silence."""
    return (voice + 1) / 16


def recording(*parts: tuple[int | None, float]) -> Array:
    """Samples of (voice, seconds) one after the other; None is silence."""
    return np.concatenate(
        [np.full(round(s * RATE), 0 if voice is None else level(voice), np.float32) for voice, s in parts]
    )


class LevelVad:
    """Speech is what is not zero."""

    def speech(self, blocks: Iterable[Array]) -> list[Span]:
        mask = np.concatenate([[False], np.concatenate(list(blocks)) != 0, [False]])
        edges = np.flatnonzero(mask[1:] != mask[:-1]).reshape(-1, 2)
        return [Span(int(start), int(end)) for start, end in edges]


class Known:
    """A detector of overlapped speech that was told where it is."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = list(spans)

    def overlaps(self, blocks: Iterable[Array]) -> list[Span]:
        assert sum(len(block) for block in blocks)
        return self.spans


class LevelEncoder:
    """A vector says how much of a piece each voice has."""

    name = "levels"
    cut_distance = 0.5
    merge_cosine = 0.8

    def __init__(self, n_voices: int = 8) -> None:
        self.n_voices = n_voices
        self.pieces: list[Array] = []

    def embed(self, pieces: Sequence[Array]) -> Array:
        self.pieces += [piece.copy() for piece in pieces]
        levels = np.array([level(voice) for voice in range(self.n_voices)])
        return np.stack([(np.abs(p[:, None] - levels) < 1e-4).mean(axis=0) for p in pieces]).astype(
            np.float32
        )


class LevelModel:
    """Writes a word for every quarter of a second of speech: "v0" where voice 0 speaks, "echo" for what is
    too quiet for a voice. Hears what `vad` leaves, as every family does; counts its calls.
    """

    name = "levels"
    model_type = "levels"
    HOP = RATE // 4

    def __init__(self, words_need_aligner: bool = False, cancelled_in_call: int | None = None) -> None:
        self.words_need_aligner = words_need_aligner
        self.cancelled_in_call = cancelled_in_call
        self.calls: list[dict[str, Any]] = []

    def cancel(self) -> None:
        """Nothing: a call is over before anybody could want that."""

    def transcribe(
        self,
        audio: Any,
        *,
        vad: Any,
        align: Any = None,
        journal: Any = None,
        on_text: Any = None,
        progress: Any = None,
        **options: Any,
    ) -> TranscriptionResult:
        self.calls.append(options)
        speech = find_speech(vad, audio.blocks(1.0))
        only = SpeechOnly(audio, speech)
        samples = np.concatenate(list(only.source.blocks(10.0)))
        words = []
        for place in range(0, len(samples), self.HOP):
            heard = np.abs(samples[place : place + self.HOP])
            loudest = float(np.median(heard[heard > 0])) if (heard > 0).any() else 0.0
            if loudest > 0:
                text = f"v{round(loudest * 16) - 1}" if loudest * 16 > 0.9 else "echo"
                words.append(Word(place / RATE, (place + len(heard)) / RATE, text, 1.0))
        segments = []
        for word in words:
            if segments and word.start - segments[-1][-1].end < 0.1:
                segments[-1].append(word)
            else:
                segments.append([word])
        with_words = options["timestamps"] == "word"
        made = tuple(
            Segment(
                run[0].start, run[-1].end, " ".join(w.text for w in run), tuple(run) if with_words else None
            )
            for run in segments
        )
        text = " ".join(segment.text for segment in made)
        language = options.get("language", "en")
        result = TranscriptionResult(text, made, language, len(samples) / RATE, 0.01, self.name)
        result = only.covered(only.result(result))
        if progress is not None:
            progress(Progress(result.duration, result.duration, result.segments))
        if self.cancelled_in_call == len(self.calls):
            raise Cancelled(partial=result)
        return result


class Replay:
    """Stored spans and vectors, as VAD and as encoder."""

    name = "replay"
    cut_distance = 0.68  # CAM++'s
    merge_cosine = 0.60

    def __init__(self, golden: Any) -> None:
        self.golden = golden
        self.place = 0

    def speech(self, blocks: Iterable[Array]) -> list[Span]:
        return [Span(int(start), int(end)) for start, end in self.golden["segments"]]

    def embed(self, pieces: Sequence[Array]) -> Array:
        rows: Array = self.golden["vectors"][self.place : self.place + len(pieces)]
        self.place += len(pieces)
        return rows.astype(np.float32)


def error_rate(reference: Sequence[Turn], found: Sequence[Turn], end: float, collar: float = 0.25) -> float:
    """Diarization error rate on a grid of 10 ms: missed, false and confused speech over reference speech.

    `collar` seconds on each side of every reference boundary are not scored; overlap is.
    """
    n = round(end * 100)
    scored = np.ones(n, bool)
    for turn in reference:
        for border in (turn.start, turn.end):
            scored[max(0, round((border - collar) * 100)) : max(0, round((border + collar) * 100))] = False

    def grid(turns: Sequence[Turn]) -> Array:
        names = sorted({turn.speaker for turn in turns})
        mask = np.zeros((len(names), n), bool)
        for turn in turns:
            mask[names.index(turn.speaker), round(turn.start * 100) : round(turn.end * 100)] = True
        return mask[:, scored]

    wanted, given = grid(reference), grid(found)
    common = (wanted[:, None] & given[None]).sum(axis=2)
    if len(given) < len(wanted):
        common = np.pad(common, ((0, 0), (0, len(wanted) - len(given))))
    orders = itertools.permutations(range(common.shape[1]), len(wanted))
    matched = max(sum(int(common[i, j]) for i, j in enumerate(order)) for order in orders)
    both = np.minimum(wanted.sum(axis=0), given.sum(axis=0)).sum()
    wrong = np.abs(wanted.sum(axis=0).astype(int) - given.sum(axis=0).astype(int)).sum() + both - matched
    return float(wrong / wanted.sum())
