"""A result as text, JSON, SRT, WebVTT, TSV or a verbose report, and files written atomically.

All formats see the times that `tidy` gives: segments and words in order, never overlapping, inside the
file. The JSON document is `rustasr.transcript` version 1, described by
`rustasr/schema/transcript-1.schema.json`; a change that would break a reader raises the version.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustasr import subtitles
from rustasr.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rustasr.types import Coverage, Segment, TranscriptionResult, Turn, Word

SCHEMA, SCHEMA_VERSION = "rustasr.transcript", 1


def tidy(result: TranscriptionResult) -> TranscriptionResult:
    """The same result with times in order: each starts where the one before has ended or later.

    What two speakers say may overlap: each of them has times in order.
    """
    clocks: dict[str | None, _Clock] = {}
    segments = []
    for segment in result.segments:
        clock = clocks.setdefault(segment.speaker, _Clock(result.duration))
        start, end = clock.span(segment.start, segment.end)
        inner = _Clock(end, start)
        words = None if segment.words is None else tuple(_tidy_word(word, inner) for word in segment.words)
        segments.append(replace(segment, start=start, end=end, words=words))
    return replace(result, segments=tuple(segments))


def _tidy_word(word: Word, clock: _Clock) -> Word:
    start, end = clock.span(word.start, word.end)
    return replace(word, start=start, end=end)


class _Clock:
    """Hands out spans that never overlap, from `now` up to `limit` seconds."""

    def __init__(self, limit: float, now: float = 0.0) -> None:
        self._now, self._limit = now, max(now, limit if math.isfinite(limit) else now)

    def span(self, start: float, end: float) -> tuple[float, float]:
        start = self._advance(start)
        self._now = start
        end = self._advance(end)
        self._now = end
        return start, end

    def _advance(self, time: float) -> float:
        return min(max(time, self._now), self._limit) if math.isfinite(time) else self._now


# --- formats


def to_dict(result: TranscriptionResult) -> dict[str, Any]:
    """The JSON document as plain containers."""
    result = tidy(result)
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "text": result.text,
        "language": result.language,
        "language_probability": _number(result.language_probability),
        "duration": _number(result.duration) or 0.0,
        "inference_seconds": _number(result.inference_seconds) or 0.0,
        "rtf": _number(result.rtf) or 0.0,
        "model": result.model_name,
        "device": result.device,
        "warnings": list(result.warnings),
        "coverage": _coverage_dict(result.coverage),
        "turns": None if result.turns is None else [_turn_dict(turn) for turn in result.turns],
        "segments": [_segment_dict(index, segment) for index, segment in enumerate(result.segments)],
    }


def _coverage_dict(coverage: Coverage | None) -> dict[str, Any] | None:
    if coverage is None:
        return None
    return {
        "speech_seconds": _number(coverage.speech_seconds),
        "text_seconds": _number(coverage.text_seconds),
        "gaps": [{"start": _number(start), "end": _number(end)} for start, end in coverage.gaps],
    }


def _turn_dict(turn: Turn) -> dict[str, Any]:
    return {"start": _number(turn.start), "end": _number(turn.end), "speaker": turn.speaker}


def _segment_dict(index: int, segment: Segment) -> dict[str, Any]:
    words = None if segment.words is None else [_word_dict(word) for word in segment.words]
    return {
        "id": index,
        "start": _number(segment.start),
        "end": _number(segment.end),
        "text": segment.text,
        "speaker": segment.speaker,
        "confidence": _number(segment.confidence),
        "words": words,
        "tokens": list(segment.tokens),
        "temperature": _number(segment.temperature),
        "avg_logprob": _number(segment.avg_logprob),
        "compression_ratio": _number(segment.compression_ratio),
        "no_speech_prob": _number(segment.no_speech_prob),
        "flags": list(segment.flags),
        "language": segment.language,
    }


def _word_dict(word: Word) -> dict[str, Any]:
    return {
        "start": _number(word.start),
        "end": _number(word.end),
        "text": word.text,
        "confidence": _number(word.confidence),
    }


def _number(value: float | None) -> float | None:
    """A float that JSON can say, to the microsecond; None for NaN and infinity."""
    return round(float(value), 6) if value is not None and math.isfinite(value) else None


def to_json(result: TranscriptionResult, *, indent: int | None = 2) -> str:
    """The JSON document, UTF-8 text as it is, with a final newline."""
    return json.dumps(to_dict(result), ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def to_text(result: TranscriptionResult) -> str:
    """The text, one segment a line, after the name of its speaker where that is known."""
    if not result.segments:
        return result.text + "\n" if result.text else ""
    return "".join(f"{_said(s)}\n" for s in result.segments if s.text.strip())


def _said(segment: Segment) -> str:
    text = _one_line(segment.text)
    return text if segment.speaker is None else f"{segment.speaker}: {text}"


def to_srt(result: TranscriptionResult) -> str:
    """SubRip. The format has no escapes: an arrow in the text gets a space, so as not to be a time line. A
    segment with a speaker begins with the name.
    """
    blocks = []
    cues = subtitles.cues(tidy(result).segments, result.duration, names=True)
    for number, cue in enumerate(cues, 1):
        times = f"{_clock_text(cue.start_ms, ',')} --> {_clock_text(cue.end_ms, ',')}"
        text = "\n".join(cue.lines).replace("-->", "-- >")
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(result: TranscriptionResult) -> str:
    """WebVTT, with the three characters escaped that its cue text gives a meaning; speakers are voices."""
    blocks = ["WEBVTT\n"]
    for cue in subtitles.cues(tidy(result).segments, result.duration):
        times = f"{_clock_text(cue.start_ms, '.')} --> {_clock_text(cue.end_ms, '.')}"
        text = _escaped("\n".join(cue.lines))
        if cue.speaker is not None:
            text = f"<v {_escaped(_one_line(cue.speaker))}>{text}</v>"
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_tsv(result: TranscriptionResult) -> str:
    """start, end (milliseconds) and text, tab-separated, one segment a line under a header; with speakers, a
    column for them before the text.
    """
    limit = int(result.duration * 1000)
    has_speakers = any(segment.speaker is not None for segment in result.segments)
    rows = ["start\tend\tspeaker\ttext" if has_speakers else "start\tend\ttext"]
    for segment in tidy(result).segments:
        start, end = (min(round(time * 1000), limit) for time in (segment.start, segment.end))
        speaker = f"{_one_line(segment.speaker or '')}\t" if has_speakers else ""
        rows.append(f"{start}\t{end}\t{speaker}{_one_line(segment.text)}")
    return "\n".join(rows) + "\n"


def to_rttm(result: TranscriptionResult, recording: str) -> str:
    """The turns as RTTM under the name of the recording; where there are none, the speakers' segments."""
    from rustasr.diarization.rttm import to_rttm as turns_to_rttm
    from rustasr.types import Turn

    turns = result.turns
    if turns is None:
        segments = (segment for segment in tidy(result).segments if segment.speaker is not None)
        turns = tuple(Turn(segment.start, segment.end, str(segment.speaker)) for segment in segments)
    return turns_to_rttm(turns, recording)


def to_verbose(result: TranscriptionResult) -> str:
    """Timed text for reading, then speed, memory, device and what is worth knowing about the result."""
    from rustasr.system import peak_rss_bytes

    lines = []
    for segment in tidy(result).segments:
        start, end = (_clock_text(round(time * 1000), ".") for time in (segment.start, segment.end))
        flags = f"  ({', '.join(segment.flags)})" if segment.flags else ""
        lines.append(f"[{start} --> {end}] {_said(segment)}{flags}")
    language = result.language or "unknown"
    if result.language_probability is not None:
        language += f" ({result.language_probability:.0%})"
    peak = peak_rss_bytes()
    lines += [
        "",
        f"model     {result.model_name}",
        f"device    {result.device}",
        f"language  {language}",
        f"duration  {result.duration:.2f} s",
        f"time      {result.inference_seconds:.2f} s (RTF {result.rtf:.4f})",
        f"memory    {'unknown' if peak is None else f'{peak / 2**20:.0f} MiB peak'}",
    ]
    if (coverage := result.coverage) is not None:
        heard = f"{coverage.speech_seconds:.2f} s, {coverage.share:.1%} with text"
        lines.append(f"speech    {heard}")
    lines += [f"warning   {warning}" for warning in result.warnings]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _clock_text(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"


FORMATS: dict[str, tuple[str, Callable[[TranscriptionResult], str]]] = {
    "text": (".txt", to_text),
    "json": (".json", to_json),
    "srt": (".srt", to_srt),
    "vtt": (".vtt", to_vtt),
    "tsv": (".tsv", to_tsv),
    "verbose": (".log", to_verbose),
}
"""Format name: (file suffix, writer)."""


def render(result: TranscriptionResult, name: str) -> str:
    """The result in the format `name`; OptionError when there is no such format."""
    if name not in FORMATS:
        raise OptionError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name][1](result)


# --- files


def write_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file so that a reader sees the old content or the new one, never half of it.

    The text goes to a temporary file in the same directory, reaches the disk, and takes the name. A
    symbolic link keeps pointing at its target; a pipe or device is simply written to.
    """
    target = Path(os.path.realpath(path))
    content = text.encode("utf-8", "replace")
    if target.exists() and not target.is_file() and not target.is_dir():
        target.write_bytes(content)
        return
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_mode_for(target))
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _mode_for(target: Path) -> int:
    """The permissions of the file that is replaced, else what the umask allows a new one."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


__all__ = [
    "FORMATS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "render",
    "tidy",
    "to_dict",
    "to_json",
    "to_rttm",
    "to_srt",
    "to_text",
    "to_tsv",
    "to_verbose",
    "to_vtt",
    "write_atomic",
]
