"""Who said what: the words of any model, given to the speakers of a recording.

::

    recording ─► turns                                 pipeline.find_turns, or given
              ─► parts that are transcribed at once    one side of a call, the other's voice cleared;
                                                       the speakers of one language; one speaker, where
                                                       the model's words have no times; else everybody
              ─► a model, part by part                 which hears the turns and nothing else
              ─► words to speakers, parts in the order of time
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rustasr.audio import SAMPLE_RATE, AudioInput, open_audio
from rustasr.diarization.channels import Stereo
from rustasr.diarization.encoder import DEFAULT_ENCODER, load_speaker_encoder
from rustasr.diarization.overlap import OverlapLoader
from rustasr.diarization.pipeline import Diarization, DiarizationOptions, find_turns
from rustasr.diarization.turns import speakers_of
from rustasr.diarization.words import interleaved, with_speakers
from rustasr.errors import Cancelled, OptionError
from rustasr.journal import Journal, Rounds, RoundsWithin, identity, settings_of
from rustasr.progress import part as part_of
from rustasr.segments import joined
from rustasr.types import Coverage, TranscriptionResult
from rustasr.vad import SileroOptions, Span, arrange, load_vad, touching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rustasr.aligner import ForcedAligner
    from rustasr.audio import AudioSource
    from rustasr.diarization.encoder import SpeakerEncoder
    from rustasr.diarization.pipeline import EncoderSource, OverlapSource
    from rustasr.model import AsrModel
    from rustasr.progress import Progress, ProgressCallback, TextCallback
    from rustasr.types import Turn
    from rustasr.vad import Vad

FINDING_SHARE = 0.25  # of the progress: finding the turns
PAD_MS = 100.0  # on both sides of what Silero takes for speech: its own 30 ms cut beginnings and endings off
OWN_MARGIN = SAMPLE_RATE // 10  # samples around a side's turns that are never cleared
NO_WORD_TIMES = (
    "{} gives no word times: every speaker was transcribed alone, and times within a turn are estimates; "
    "align='qwen3-forced-aligner-0.6b' (--align qwen3-forced-aligner-0.6b) times every word"
)


def diarize(
    model: AsrModel,
    audio: AudioInput,
    options: DiarizationOptions | None = None,
    *,
    vad: str | Vad = "silero",
    encoder: str | Path | EncoderSource | None = None,
    overlap: str | Path | OverlapSource | None = "auto",
    turns: Iterable[Turn] | None = None,
    speaker_languages: Mapping[str, str] | None = None,
    align: str | Path | ForcedAligner | None = None,
    journal: str | Path | Rounds | None = None,
    on_text: TextCallback | None = None,
    progress: ProgressCallback | None = None,
    **transcription: Any,
) -> TranscriptionResult:
    """Transcribe a recording and say who speaks: the result's segments have speakers, and it has `turns`.

    `audio` is what `rustasr.open_audio` takes. `vad` and `encoder` are names or objects; the encoder (None:
    the usual one) is loaded when voices have to be told apart, not for a call with a side per channel.
    `overlap` finds where two voices speak at once: a name, an object, or None or "none"; the result then has
    turns of both there, and the likelier one has the words. "auto" is the usual detector, or none, with a
    warning, where that cannot be fetched.

    `turns` are who speaks when, where that is known already (`read_rttm`): nothing is looked for then.
    `speaker_languages` are the languages of speakers by name, where they differ. `transcription` are options
    of the model's family; words with times are asked for unless `timestamps` says otherwise.

    `journal` is a file that keeps what is finished, the turns and every window: the same call with the same
    file continues after an interruption, as the model's `transcribe` does. `on_text` is told the text of one
    part after the other as it comes in.

    Two sides of a call are transcribed one by one, and so are the speakers of different languages, and all
    speakers where the model's words have no times (a warning says so). Segments are in the order of their
    beginnings; those of different speakers may overlap.

    Raises AudioError, OptionError, TranscriptionError, and whatever `progress` raises; Cancelled with what
    was finished, as the model's `transcribe` does.
    """
    options = options or DiarizationOptions()
    report = progress or _no_progress
    source = open_audio(audio)
    has_word_times = align is not None or not getattr(model, "words_need_aligner", False)
    transcription.setdefault("timestamps", "word" if has_word_times else "segment")
    if transcription["timestamps"] == "none":
        raise OptionError('timestamps: speakers need times, found "none"; leave it out')
    known = None if turns is None else _given(turns)
    detector = _detector(vad) if isinstance(vad, str) else vad
    voices = EncoderLoader(encoder) if encoder is None or isinstance(encoder, (str, Path)) else encoder
    both: OverlapSource | None = None
    if overlap is not None and overlap != "none":
        both = OverlapLoader(overlap) if isinstance(overlap, (str, Path)) else overlap
    wanted = speaker_languages or {}

    def belongs_to() -> dict[str, str]:
        networks = settings_of(detector), settings_of(voices), settings_of(both), settings_of(align)
        helpers = *networks, on_text is not None
        return identity(source, model, options, known, dict(wanted), sorted(transcription.items()), *helpers)

    with _Work(model, source, journal, belongs_to) as work:
        work.found = known or work.rounds.remember(
            ["turns"],
            Diarization,
            lambda: find_turns(
                source,
                detector,
                voices,
                options,
                overlap=both,
                progress=part_of(report, 0.0, FINDING_SHARE),
            ),
        )
        if work.found.mode == "cluster" and len(work.found.speakers) > 1:
            work.warnings += both.warnings if isinstance(both, OverlapLoader) else ()
        languages = _languages(wanted, work.found, options)
        parts = _parts(source, work.found, languages, alone=not has_word_times)
        first = FINDING_SHARE if known is None else 0.0
        for number, (part, tell) in enumerate(zip(parts, _shared(report, parts, first), strict=True)):
            chosen = transcription if part.language is None else {**transcription, "language": part.language}
            rounds = RoundsWithin(work.rounds, f"part {number}")
            with work.interruptible(part):
                result = model.transcribe(
                    part.source,
                    vad=part,
                    align=align,
                    journal=rounds,
                    on_text=on_text,
                    progress=tell,
                    **chosen,
                )
            work.take(part, result)
        if not has_word_times and len(work.found.speakers) > 1:
            work.warnings.append(NO_WORD_TIMES.format(model.name))
        return work.result()


def _given(turns: Iterable[Turn]) -> Diarization:
    """Turns that somebody else has found."""
    ordered = tuple(sorted(turns))
    if not ordered:
        raise OptionError("turns: expected who speaks when, found no turn; leave them out to find them")
    return Diarization(ordered, "given")


def _detector(name: str) -> Vad:
    return load_vad(name, SileroOptions(speech_pad_ms=PAD_MS) if name == "silero" else None)


class EncoderLoader:
    """Loads an encoder by its name when it is needed, once: channel mode does without."""

    def __init__(self, name: str | Path | None = None, **values: Any) -> None:
        self.name = str(name or DEFAULT_ENCODER)
        self._load = cache(lambda: load_speaker_encoder(name, **values))

    def __call__(self) -> SpeakerEncoder:
        return self._load()


def _languages(wanted: Mapping[str, str], found: Diarization, options: DiarizationOptions) -> dict[str, str]:
    """The languages of the speakers who were found; OptionError for a name that nobody has."""
    known = {*found.speakers, *options.names}
    if unknown := [name for name in wanted if name not in known]:
        there = ", ".join(sorted(known))
        raise OptionError(f"speaker_languages: expected names of speakers ({there}), found {unknown[0]!r}")
    return {name: wanted[name] for name in found.speakers if name in wanted}


# --- parts


@dataclass(frozen=True, slots=True)
class _Part:
    """What is transcribed at once. It is its own `Vad`: speech is where its turns are."""

    source: AudioSource
    turns: tuple[Turn, ...]
    language: str | None

    def speech(self, blocks: Iterable[NDArray[np.float32]]) -> list[Span]:
        n_samples = sum(len(block) for block in blocks)
        inside = (Span(span.start, min(span.end, n_samples)) for span in _spans(self.turns))
        return [span for span in inside if span.length > 0]

    @property
    def speakers(self) -> list[str]:
        """Who is in it."""
        return speakers_of(self.turns)

    @property
    def seconds(self) -> float:
        """How long somebody speaks."""
        return sum(span.length for span in _spans(self.turns)) / SAMPLE_RATE


def _spans(turns: Iterable[Turn]) -> list[Span]:
    return arrange(Span(round(turn.start * SAMPLE_RATE), round(turn.end * SAMPLE_RATE)) for turn in turns)


def _parts(
    source: AudioSource, found: Diarization, languages: Mapping[str, str], *, alone: bool
) -> list[_Part]:
    """What is to be transcribed together, in the order of first speech. `alone`: every speaker."""
    groups = defaultdict[tuple[int | None, str | None, str | None], list[Any]](list)
    for turn in found.leading or found.turns:
        channel, language = found.channels.get(turn.speaker), languages.get(turn.speaker)
        groups[channel, language, turn.speaker if alone else None].append(turn)
    parts = list[_Part]()
    for (channel, language, _), turns in groups.items():
        heard = source
        if channel is not None:
            assert isinstance(source, Stereo)  # or there were no channels
            others = (turn for turn in found.turns if found.channels[turn.speaker] != channel)
            own = (turn for turn in found.turns if found.channels[turn.speaker] == channel)
            heard = _Side(source.side(channel), _spans(own), _spans(others))
        parts.append(_Part(heard, tuple(turns), language))
    return parts


class _Side:
    """A channel that is silent while only the other side speaks: what is heard then is its echo."""

    def __init__(self, source: AudioSource, own: Sequence[Span], others: Sequence[Span]) -> None:
        self.name, self.sample_rate, self.warnings = source.name, source.sample_rate, source.warnings
        self.duration = source.duration
        self._source, self._own, self._others = source, own, others

    def blocks(self, block_s: float) -> Iterator[NDArray[np.float32]]:
        """The channel's blocks, cleared."""
        position = 0
        for block in self._source.blocks(block_s):
            cleared = np.zeros(len(block), np.bool_)
            end = position + len(block)
            for span in touching(self._others, position, end):
                cleared[max(0, span.start - position) : span.end - position] = True
            for span in touching(self._own, position - OWN_MARGIN, end + OWN_MARGIN):
                low, high = span.start - OWN_MARGIN - position, span.end + OWN_MARGIN - position
                cleared[max(0, low) : high] = False
            position = end
            yield np.where(cleared, np.float32(0), block) if cleared.any() else block
        self.duration = self._source.duration


# --- progress


def _shared(report: ProgressCallback, parts: Sequence[_Part], first: float) -> Iterator[ProgressCallback]:
    """What each part reports to: its share of what is left after `first` is that of its speech."""
    total = sum(part.seconds for part in parts) or 1.0
    for part in parts:
        share = (1.0 - FINDING_SHARE if first else 1.0) * part.seconds / total
        yield part_of(report, first, min(1.0, first + share))
        first += share


def _no_progress(_: Progress) -> None:
    return None


# --- the result


class _Work:
    """One call: what the parts have given so far, as one result, and where it is remembered."""

    def __init__(
        self,
        model: AsrModel,
        source: AudioSource,
        journal: str | Path | Rounds | None,
        belongs_to: Callable[[], Mapping[str, str]],
    ) -> None:
        self.warnings: list[str] = []
        self.found = Diarization((), "")
        self.rounds = journal if isinstance(journal, Rounds) else Rounds()
        self._model, self._source, self._began = model, source, time.perf_counter()
        self._results = list[tuple[_Part, TranscriptionResult]]()
        if isinstance(journal, (str, Path)):
            self.rounds = Journal(Path(journal), belongs_to, lambda: self.seconds)

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.rounds.close()

    @property
    def seconds(self) -> float:
        """Time spent so far, by an earlier run that is continued too."""
        return self.rounds.known_seconds + time.perf_counter() - self._began

    @contextlib.contextmanager
    def interruptible(self, part: _Part) -> Iterator[None]:
        """Who stops the work in here gets all that is finished."""
        try:
            yield
        except (Cancelled, KeyboardInterrupt) as stop:
            partial = getattr(stop, "partial", None)
            if partial is not None:
                self.take(part, partial)
            if isinstance(stop, Cancelled):
                raise Cancelled(partial=self.result()) from None
            stop.partial = self.result()  # type: ignore[attr-defined]
            raise

    def take(self, part: _Part, result: TranscriptionResult) -> None:
        """The result of one part."""
        if len(part.speakers) > 1:
            result = with_speakers(result, part.turns)
        else:
            speaker = part.speakers[0]
            result = replace(result, segments=tuple(replace(s, speaker=speaker) for s in result.segments))
        self._results.append((part, result))

    def result(self) -> TranscriptionResult:
        """All parts together, segments in the order of their beginnings."""
        results = [result for _, result in self._results]
        if len(results) == 1:
            whole = results[0]
        else:
            segments = tuple(interleaved(segment for result in results for segment in result.segments))
            whole = TranscriptionResult(
                text=joined(segments, self._language),
                segments=segments,
                language=self._language,
                duration=max((result.duration for result in results), default=self._source.duration or 0.0),
                inference_seconds=0.0,
                model_name=self._model.name,
                device=next((result.device for result in results), "cpu"),
                warnings=tuple(self._part_warnings() if results else self._source.warnings),
                coverage=_summed([result.coverage for result in results]),
            )
        return replace(
            whole,
            inference_seconds=self.seconds,
            turns=self.found.turns,
            warnings=(*whole.warnings, *self.warnings, *self.rounds.warnings),
        )

    @property
    def _language(self) -> str:
        """The language in which most is said."""
        seconds = defaultdict[str, float](float)
        for part, result in self._results:
            seconds[result.language] += part.seconds
        return max(seconds, key=lambda code: seconds[code], default="")

    def _part_warnings(self) -> Iterator[str]:
        """What all parts warn of, once; the rest after the names of the speakers."""
        common = set[str].intersection(*(set(result.warnings) for _, result in self._results))
        yield from sorted(common)
        for part, result in self._results:
            for warning in result.warnings:
                if warning not in common:
                    yield f"{', '.join(part.speakers)}: {warning}"


def _summed(coverages: Sequence[Coverage | None]) -> Coverage | None:
    """Coverage of all sides; none of a side that has none."""
    known = [coverage for coverage in coverages if coverage is not None]
    if len(known) < len(coverages):
        return None
    return Coverage(
        sum(coverage.speech_seconds for coverage in known),
        sum(coverage.text_seconds for coverage in known),
        tuple(sorted(gap for coverage in known for gap in coverage.gaps)),
    )


__all__ = ["PAD_MS", "EncoderLoader", "diarize"]
