"""What `rustasr diarize` writes about a recording: a report to read, and the same for programs.

report.md           who said what, with a picture, speaking times and what is doubtful
timeline.svg        the picture
segments.json       the whole result (`rustasr.transcript`)
combined.txt        the talk, a line each time the speaker changes; combined.srt, combined.vtt
NAME.txt            what one speaker says
speakers.rttm       who speaks when
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rustasr import writers
from rustasr.diarization.timeline import to_svg
from rustasr.diarization.turns import speakers_of
from rustasr.tokenizer import UNSPACED_LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rustasr.types import Segment, TranscriptionResult

REPORT = "report.md"
NOBODY = "unknown"
FLAGS = {
    "estimated_times": "times are estimates",
    "low_confidence": "the model is unsure",
    "no_speech": "maybe nobody speaks",
    "repetition": "repeats itself",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What one speaker says before another does; seconds."""

    start: float
    end: float
    speaker: str
    text: str


def said(result: TranscriptionResult) -> list[Said]:
    """The talk: segments with text in order, those of one speaker in a row joined."""
    written = (segment for segment in writers.tidy(result).segments if segment.text.strip())
    joiner = "" if result.language in UNSPACED_LANGUAGES else " "
    talk = list[Said]()
    for speaker, run in itertools.groupby(written, key=lambda segment: segment.speaker or NOBODY):
        segments = list(run)
        text = joiner.join(" ".join(segment.text.split()) for segment in segments)
        talk.append(Said(segments[0].start, max(s.end for s in segments), speaker, text))
    return talk


def files(result: TranscriptionResult, recording: str) -> dict[str, str]:
    """Name of each file and its content. `recording` is what the report and the RTTM call it."""
    talk = said(result)
    named = {
        "segments.json": writers.to_json(result),
        "combined.txt": "".join(f"[{_clock(s.start)}] {s.speaker}: {s.text}\n" for s in talk),
        "combined.srt": writers.to_srt(result),
        "combined.vtt": writers.to_vtt(result),
        "speakers.rttm": writers.to_rttm(result, recording),
        "timeline.svg": to_svg(result),
    }
    own = _file_names(_speakers(result, talk), taken={*named, REPORT})
    for speaker, name in own.items():
        named[name] = "".join(f"[{_clock(s.start)}] {s.text}\n" for s in talk if s.speaker == speaker)
    named[REPORT] = to_markdown(result, recording, own)
    return named


def _speakers(result: TranscriptionResult, talk: Iterable[Said]) -> list[str]:
    """All who have a turn or text, in the order in which they are first heard."""
    return list(dict.fromkeys([*speakers_of(result.turns or ()), *(s.speaker for s in talk)]))


def _file_names(speakers: Iterable[str], taken: set[str]) -> dict[str, str]:
    """A file for each speaker, whatever a file system makes of case and of odd characters."""
    lowered, names = {name.lower() for name in taken}, dict[str, str]()
    for speaker in speakers:
        kept = "".join(c if c.isalnum() or c in " -_." else "_" for c in speaker).strip(" .")[:100] or "_"
        candidates = (f"{kept}.txt", *(f"{kept}-{n}.txt" for n in range(2, 1000)))
        names[speaker] = next(name for name in candidates if name.lower() not in lowered)
        lowered.add(names[speaker].lower())
    return names


# --- the report


def to_markdown(result: TranscriptionResult, recording: str, texts: dict[str, str]) -> str:
    """The report; `texts` are the files of the speakers' texts."""
    talk = said(result)
    lines = [f"# {_plain(recording)}", "", *_facts(result, len(texts)), ""]
    lines += ["![Who speaks when](timeline.svg)", "", "## Speakers", "", *_speaker_table(result, talk, texts)]
    if doubts := list(_doubts(result)):
        lines += ["", "## To check", "", *doubts]
    lines += ["", "## Transcript", ""]
    for s in talk:
        lines += [f"**{_plain(s.speaker)}** ({_clock(s.start)}): {_plain(s.text)}", ""]
    if not talk:
        lines += ["Nothing was said.", ""]
    return "\n".join(lines)


def _facts(result: TranscriptionResult, n_speakers: int) -> Iterator[str]:
    yield f"- length: {_clock(result.duration)}"
    yield f"- speakers: {n_speakers}"
    yield f"- language: {result.language or 'unknown'}"
    if result.coverage is not None:
        heard = f"{_clock(result.coverage.speech_seconds)}, {result.coverage.share:.1%} of it with text"
        yield f"- speech: {heard}"
    yield f"- model: {_plain(result.model_name)} on {result.device}"
    yield f"- time: {result.inference_seconds:.1f} s (real-time factor {result.rtf:.3f})"


def _speaker_table(result: TranscriptionResult, talk: list[Said], texts: dict[str, str]) -> Iterator[str]:
    """Speaking time, its share of all speaking times, turns and words of each speaker."""
    seconds, turns, words = defaultdict[str, float](float), defaultdict[str, int](int), dict[str, int]()
    for turn in result.turns or ():
        seconds[turn.speaker] += turn.duration
        turns[turn.speaker] += 1
    for s in talk:
        words[s.speaker] = words.get(s.speaker, 0) + len(s.text.split())
    total = sum(seconds.values()) or 1.0
    yield "| speaker | speaks | share | turns | words | text |"
    yield "| --- | --: | --: | --: | --: | --- |"
    for speaker, name in texts.items():
        yield (
            f"| {_plain(speaker)} | {_clock(seconds[speaker])} | {seconds[speaker] / total:.0%} "
            f"| {turns[speaker]} | {words.get(speaker, 0)} | [{_plain(name)}](<{name}>) |"
        )


def _doubts(result: TranscriptionResult) -> Iterator[str]:
    """Warnings, speech without text, and segments that are flagged."""
    yield from (f"- {_plain(warning)}" for warning in result.warnings)
    for start, end in result.coverage.gaps if result.coverage is not None else ():
        yield f"- {_clock(start)} to {_clock(end)}: speech without text"
    for segment in writers.tidy(result).segments:
        if segment.flags and segment.flags != ("estimated_times",):  # those the warnings name
            yield f"- {_clock(segment.start)}: {_reasons(segment)}: “{_plain(segment.text.strip())}”"


def _reasons(segment: Segment) -> str:
    return ", ".join(FLAGS.get(flag, flag.replace("_", " ")) for flag in segment.flags)


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in " ".join(text.split()))


def _clock(seconds: float) -> str:
    whole, tenths = divmod(round(seconds * 10), 10)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}.{tenths}"


__all__ = ["REPORT", "Said", "files", "said", "to_markdown"]
