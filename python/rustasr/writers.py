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

    from rustasr.types import Segment, TranscriptionResult, Word

SCHEMA, SCHEMA_VERSION = "rustasr.transcript", 1


def tidy(result: TranscriptionResult) -> TranscriptionResult:
    """The same result with times in order: each starts where the one before has ended or later."""
    clock = _Clock(result.duration)
    segments = []
    for segment in result.segments:
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
        "segments": [_segment_dict(index, segment) for index, segment in enumerate(result.segments)],
    }


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
    """The text, one segment a line."""
    if not result.segments:
        return result.text + "\n" if result.text else ""
    return "".join(f"{line}\n" for line in (_one_line(s.text) for s in result.segments) if line)


def to_srt(result: TranscriptionResult) -> str:
    """SubRip. The format has no escapes: an arrow in the text gets a space, so as not to be a time line."""
    blocks = []
    for number, cue in enumerate(subtitles.cues(tidy(result).segments, result.duration), 1):
        times = f"{_clock_text(cue.start_ms, ',')} --> {_clock_text(cue.end_ms, ',')}"
        text = "\n".join(cue.lines).replace("-->", "-- >")
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(result: TranscriptionResult) -> str:
    """WebVTT, with the three characters escaped that its cue text gives a meaning."""
    blocks = ["WEBVTT\n"]
    for cue in subtitles.cues(tidy(result).segments, result.duration):
        times = f"{_clock_text(cue.start_ms, '.')} --> {_clock_text(cue.end_ms, '.')}"
        text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def to_tsv(result: TranscriptionResult) -> str:
    """start, end (milliseconds) and text, tab-separated, one segment a line under a header."""
    limit = int(result.duration * 1000)
    rows = ["start\tend\ttext"]
    for segment in tidy(result).segments:
        start, end = (min(round(time * 1000), limit) for time in (segment.start, segment.end))
        rows.append(f"{start}\t{end}\t{_one_line(segment.text)}")
    return "\n".join(rows) + "\n"


def to_verbose(result: TranscriptionResult) -> str:
    """Timed text for reading, then speed, memory, device and what is worth knowing about the result."""
    from rustasr.system import peak_rss_bytes

    lines = []
    for segment in tidy(result).segments:
        start, end = (_clock_text(round(time * 1000), ".") for time in (segment.start, segment.end))
        flags = f"  ({', '.join(segment.flags)})" if segment.flags else ""
        lines.append(f"[{start} --> {end}] {_one_line(segment.text)}{flags}")
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
    "to_srt",
    "to_text",
    "to_tsv",
    "to_verbose",
    "to_vtt",
    "write_atomic",
]
