"""Qwen3-ForcedAligner: a known text and its recording to the times of its words.

::

    samples → log mel → encode                                  rustasr.families.qwen3_decode, _core
    text → units                                                units
    <|audio_start|> sound <|audio_end|> unit <timestamp><timestamp> unit <timestamp><timestamp> ...
      → classes at the slots, one forward pass                  _core
      → class × 80 ms, put in order                             repair
      → words of the text with start and end                    units

Follows qwen-asr 0.0.6, inference/qwen3_forced_aligner.py. The network is `csrc/models/qwen3_asr.cpp`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rustasr.aligner.pieces import PIECE_S, Piece, pack, samples_of
from rustasr.aligner.repair import repair
from rustasr.aligner.units import Unit, units, written_words
from rustasr.audio import SAMPLE_RATE, load_audio
from rustasr.errors import ModelFileError, OptionError, UnsupportedModelError
from rustasr.families.qwen3_decode import clip_features
from rustasr.families.qwen3_text import QwenTokenizer, code_of, language_name
from rustasr.journal import Rounds
from rustasr.sessions import session_of
from rustasr.types import Segment, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.audio import AudioInput
    from rustasr.progress import FileProgress
    from rustasr.registry import ModelInfo
    from rustasr.types import TranscriptionResult

LONGEST_S = 300.0  # README of QwenLM/Qwen3-ASR: up to five minutes
WINDOW_S = 180.0  # qwen-asr 0.0.6, inference/utils.py MAX_FORCE_ALIGN_INPUT_SECONDS
UNALIGNED = "unaligned"  # flag of segments that kept the times they had


@dataclass(frozen=True, slots=True)
class TimedUnit:
    """A unit with its span in milliseconds from the beginning of the sound."""

    unit: Unit
    start_ms: int
    end_ms: int


class ForcedAligner:
    """An aligner that is ready (`rustasr.load_aligner` makes it). Several threads may use it."""

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        if core.architecture != "qwen3_asr" or core.metadata.get("qwen3_asr.task") != "align":
            raise UnsupportedModelError(
                f"{name}: expected a forced aligner, for instance qwen3-forced-aligner-0.6b, "
                f"found a model that transcribes ({core.architecture})"
            )
        self.name = name
        self.model_info = model_info
        self.core = core
        self.tokenizer = QwenTokenizer(core.metadata)
        names = core.metadata.get("qwen3_asr.languages")
        if not isinstance(names, (list, tuple)):
            raise ModelFileError(f"metadata key qwen3_asr.languages: expected names, found {names!r:.60}")
        self.supported_languages = tuple(code_of(str(language)) for language in names)
        self._min_samples = int(str(core.metadata["qwen3_asr.min_samples"]))
        self._segment_ms = int(str(core.metadata["qwen3_asr.segment_ms"]))
        n_classes = int(str(core.metadata["qwen3_asr.n_classes"]))
        self.longest_s = min(LONGEST_S, n_classes * self._segment_ms / 1000)
        # Where windows are cut for it, a little longer ones must fit as well.
        self.window_s = min(WINDOW_S, 0.75 * self.longest_s)
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<ForcedAligner {self.name} on {self.core.device}>"

    def align(self, audio: AudioInput, text: str, language: str | None = None) -> tuple[Word, ...]:
        """The words of `text` with the times at which they are said in `audio` (at most `longest_s` seconds).

        `language`: code or English name; None for any language that puts spaces between words, or Chinese.
        A word's confidence is 1: the aligner believes the text. Raises OptionError, AudioError.
        """
        samples = load_audio(audio)
        duration = len(samples) / SAMPLE_RATE
        if duration > self.longest_s:
            raise OptionError(
                f"audio: {self.name} aligns up to {self.longest_s:g} s at once, found {duration:.1f} s; "
                "align the segments of a result instead: transcribe(..., align=...)"
            )
        timed = self._timed(samples, units(text, self._language(language)))
        return _words(text, timed, 0.0, duration, 1.0)

    def align_result(
        self,
        audio: AudioInput,
        result: TranscriptionResult,
        pieces: Sequence[Piece] | None = None,
        *,
        report: Callable[[float, Sequence[Segment]], None] | None = None,
        rounds: Rounds | None = None,
    ) -> TranscriptionResult:
        """The same result with words, and segments that begin and end with their words.

        `pieces` says where the segments' text is said, if that is known better than by their times.
        `report(seconds done, segments so far)` is called after every piece. What cannot be aligned keeps
        its times, with the flag "unaligned" and a warning. `rounds` remember the pieces.
        """
        from rustasr.audio import open_audio

        segments = list(result.segments)
        if pieces is None:
            pieces = pack(segments, result.duration, result.language, min(PIECE_S, self.longest_s))
        good = [piece for piece in pieces if self._refusal(piece) is None]
        blocks = open_audio(audio).blocks(10.0)
        last_end = 0.0
        for piece, samples in zip(good, samples_of(blocks, good), strict=True):
            own = segments[piece.first : piece.last]

            def align(
                samples: NDArray[np.float32] = samples,
                piece: Piece = piece,
                own: Sequence[Segment] = own,
                after: float = last_end,
            ) -> list[Segment]:
                return list(self._align_segments(samples, piece, own, after))

            key = ["align", piece.first, piece.last]
            segments[piece.first : piece.last] = (rounds or Rounds()).remember(key, list[Segment], align)
            last_end = segments[piece.last - 1].end
            if report is not None:
                report(piece.end, segments[: piece.last])
        refused = {reason for piece in pieces if (reason := self._refusal(piece)) is not None}
        aligned = {n for piece in good for n in range(piece.first, piece.last)}
        final = tuple(
            s if n in aligned or not s.text else _with_flag(s, UNALIGNED) for n, s in enumerate(segments)
        )
        return replace(result, segments=final, warnings=(*result.warnings, *sorted(refused)))

    # The steps

    def _align_segments(
        self, samples: NDArray[np.float32], piece: Piece, segments: Sequence[Segment], last_end: float
    ) -> Iterable[Segment]:
        cut = [units(segment.text, piece.language) for segment in segments]
        timed = self._timed(samples, [unit for part in cut for unit in part])
        done, at = list["Segment"](), 0
        for segment, part in zip(segments, cut, strict=True):
            own, at = timed[at : at + len(part)], at + len(part)
            words = _words(segment.text, own, piece.start, piece.end, segment.confidence, last_end)
            if words:
                last_end = words[-1].end
            done.append(_retimed(segment, words))
        return done

    def _timed(self, samples: NDArray[np.float32], found: Sequence[Unit]) -> list[TimedUnit]:
        """Units with their times in the samples."""
        if not found:
            return []
        session = self._session()
        encoded = session.encode([clip_features(session, samples, self._min_samples)])
        prompt, slots = self.prompt(encoded.lengths[0], found)
        logits = session.classify(encoded, [0], [prompt], [slots])[0]
        times = repair([int(c) * self._segment_ms for c in np.argmax(logits, axis=1)])
        pairs = zip(found, times[::2], times[1::2], strict=True)
        return [TimedUnit(unit, start, end) for unit, start, end in pairs]

    def prompt(self, n_audio: int, found: Sequence[Unit]) -> tuple[list[int], list[int]]:
        """(ids, places of the slots): the sound, then every unit with two slots behind it."""
        ids, slots = self.tokenizer.audio(n_audio), list[int]()
        for unit in found:
            ids += self.tokenizer.encode(unit.text)
            slots += [len(ids), len(ids) + 1]
            ids += [self.tokenizer.timestamp] * 2
        return ids, slots

    def _session(self) -> _core.Session:
        return session_of(self.core, self._local)

    def _language(self, language: str | None) -> str:
        if language is None or language == "auto":
            return ""
        name = language_name(language)
        code = "" if name is None else code_of(name)
        if code not in self.supported_languages:
            raise OptionError(
                f"language: {self.name} aligns {', '.join(self.supported_languages)}, found {language!r}"
            )
        return code

    def _refusal(self, piece: Piece) -> str | None:
        """Why a piece is not aligned, as a warning; None when it is."""
        if piece.language and piece.language not in self.supported_languages:
            return (
                f"no word times in the language {piece.language!r}: {self.name} aligns "
                f"{', '.join(self.supported_languages)}"
            )
        if piece.end - piece.start > self.longest_s:
            return (
                f"no word times for a segment of more than {self.longest_s:g} s, which is what {self.name} "
                "aligns at once"
            )
        return None


def _words(
    text: str,
    timed: Sequence[TimedUnit],
    offset: float,
    limit: float,
    confidence: float | None,
    earliest: float = 0.0,
) -> tuple[Word, ...]:
    """The written words of a text; seconds from `offset`, between `earliest` and `limit`, never falling."""
    words, now = list[Word](), earliest
    for first, last, start, end in written_words(text, [one.unit for one in timed]):
        begins, now = _clamped(offset + timed[first].start_ms / 1000, now, limit)
        ends, now = _clamped(offset + timed[last].end_ms / 1000, now, limit)
        words.append(Word(begins, ends, text[start:end].strip(), 1.0 if confidence is None else confidence))
    return tuple(words)


def _clamped(time: float, low: float, high: float) -> tuple[float, float]:
    time = max(low, min(round(time, 3), math.floor(high * 1000) / 1000))
    return time, time


def _retimed(segment: Segment, words: tuple[Word, ...]) -> Segment:
    if not words:
        return replace(segment, words=())
    flags = tuple(flag for flag in segment.flags if flag != "estimated_times")
    return replace(segment, start=words[0].start, end=words[-1].end, words=words, flags=flags)


def _with_flag(segment: Segment, flag: str) -> Segment:
    return segment if flag in segment.flags else replace(segment, flags=(*segment.flags, flag))


def load_aligner(
    name_or_path: str | Path = "qwen3-forced-aligner-0.6b",
    device: str = "auto",
    threads: int = 0,
    weights: str = "auto",
    quant: str | None = None,
    *,
    progress: FileProgress | None = None,
) -> ForcedAligner:
    """Loads a forced aligner; the arguments are those of `load_model`."""
    from rustasr.model import open_model

    core, name, row = open_model(name_or_path, device, threads, weights, quant, progress=progress)
    return ForcedAligner(core, name=name, model_info=row)


__all__ = ["UNALIGNED", "ForcedAligner", "TimedUnit", "load_aligner"]
