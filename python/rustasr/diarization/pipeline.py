"""Who speaks when in a recording.

::

    two channels with different sounds ─► a side per channel               channels
    anything else                      ─► voices grouped by likeness       encoder, clustering, labelling
                                       ─► where two speak at once          overlap
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

from rustasr.audio import SAMPLE_RATE, AudioInput, open_audio
from rustasr.diarization.channels import ChannelOptions, Stereo, are_duplicates, channel_speech
from rustasr.diarization.clustering import SpeakerCount, centroids
from rustasr.diarization.encoder import embed, gain_to
from rustasr.diarization.labelling import label
from rustasr.diarization.turns import joined, renamed, speakers_of
from rustasr.errors import AudioError, OptionError
from rustasr.options import Options, between, integer, one_of
from rustasr.progress import Progress, ProgressCallback
from rustasr.types import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rustasr.audio import AudioSource
    from rustasr.diarization.channels import Samples
    from rustasr.diarization.encoder import SpeakerEncoder
    from rustasr.diarization.overlap import OverlapDetector
    from rustasr.vad import Span, Vad

EncoderSource: TypeAlias = Union["SpeakerEncoder", Callable[[], "SpeakerEncoder"]]
"""An encoder, or what loads it once voices have to be told apart."""

OverlapSource: TypeAlias = Union["OverlapDetector", Callable[[], "OverlapDetector | None"]]
"""A detector of overlapped speech, or what loads it once there are two voices (None: do without)."""

READ_SECONDS = 10.0
ONE_SCENE = 0.5  # channels that sound alike at a like level for so much of the time are no sides of a call


@dataclass(frozen=True, slots=True)
class DiarizationOptions(Options):
    """How speakers are told apart.

    speaker_mode: "channel" (left and right are two sides), "cluster" (by voice, channels mixed), or "auto":
        channel where a recording has two channels that differ, else cluster.
    num_speakers: how many there are; or
    min_speakers, max_speakers: limits for the number that is estimated.
    speaker_names: names in the order of first speech; without one: speaker_0, speaker_1, ...
    left_name, right_name: the sides of channel mode.
    right_num_speakers: voices on the right side, which are told apart when there are several ...
    right_speaker_names: ... and named "<right name>-<name>", else "<right name>-spk1", ...
    max_pause_s: two turns of one speaker are one when no more lies between them, and nobody else speaks.
    channels: what counts as the same sound in both channels.

    Raises OptionError for a value outside its range.
    """

    speaker_mode: str = "auto"
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    speaker_names: tuple[str, ...] = ()
    left_name: str = "mic"
    right_name: str = "system"
    right_num_speakers: int | None = None
    right_speaker_names: tuple[str, ...] = ()
    max_pause_s: float = 0.5
    channels: ChannelOptions = field(default_factory=ChannelOptions)

    def __post_init__(self) -> None:
        for name in ("speaker_names", "right_speaker_names"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise OptionError(f"{name}: expected names, for instance ('Ann', 'Bob'), found {value!r}")
            object.__setattr__(self, name, _checked_names(name, tuple(value)))
        one_of("speaker_mode", self.speaker_mode, ("auto", "channel", "cluster"))
        _ = self.count
        if self.right_num_speakers is not None:
            integer("right_num_speakers", self.right_num_speakers, 1, 100)
        between("max_pause_s", self.max_pause_s, 0, 60)
        _checked_names("left_name and right_name", (self.left_name, self.right_name))

    @property
    def count(self) -> SpeakerCount:
        """How many speakers are asked for."""
        return SpeakerCount(self.num_speakers, self.min_speakers, self.max_speakers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are given, in either mode."""
        right = (f"{self.right_name}-{name}" for name in self.right_speaker_names)
        return (*self.speaker_names, self.left_name, self.right_name, *right)

    @property
    def right_count(self) -> SpeakerCount | None:
        """How many voices are asked for on the right side; None: it is one speaker."""
        wanted = self.right_num_speakers or len(self.right_speaker_names)
        return SpeakerCount(wanted) if wanted > 1 else None


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who speaks when, in order, and how that was found ("channel", "cluster", or "given"). In channel mode
    `channels` says on which channel (0, 1) each speaker is heard. Where two voices speak at once `turns` has
    both, and `leading` only the likelier one, whose words they are; it is empty where nothing was looked for.
    """

    turns: tuple[Turn, ...]
    mode: str
    channels: dict[str, int] = field(default_factory=dict)
    leading: tuple[Turn, ...] = ()

    @property
    def speakers(self) -> list[str]:
        """The speakers in the order in which they are first heard."""
        return speakers_of(self.turns)


def find_turns(
    audio: AudioInput,
    vad: Vad,
    encoder: EncoderSource | None = None,
    options: DiarizationOptions | None = None,
    *,
    overlap: OverlapSource | None = None,
    progress: ProgressCallback | None = None,
) -> Diarization:
    """Who speaks when.

    `audio` is what `rustasr.audio.open_audio` takes. `vad` finds the speech, `encoder` tells voices apart
    (cluster mode needs it). `overlap` finds where two of these voices speak at once (None: nowhere): there
    the second likeliest speaker has a turn too.

    Raises AudioError (not readable; channel mode of a recording without two sides), OptionError, and what
    `progress` raises.
    """
    options = options or DiarizationOptions()
    source = open_audio(audio)
    readings: _Readings | None = None
    if progress is not None:
        readings = _Readings(source, options, overlap is not None, progress)
        source = _Watched(source, readings)
    if options.speaker_mode != "cluster":
        found, reason = _by_channel(source, vad, encoder, options, overlap)
        if found is not None:
            return found
        if options.speaker_mode == "channel":
            raise AudioError(
                f"{source.name}: speaker mode channel expects two channels with one side of the conversation "
                f"each, found {reason}; use speaker mode cluster"
            )
    segments = vad.speech(source.blocks(READ_SECONDS))
    voices = _by_voice(source, segments, encoder, options.count, options.max_pause_s, overlap)
    voices = _named(voices, options.speaker_names, "speaker_{}", 0)
    if readings is not None:
        readings.finished()  # with one voice there was one reading less
    return Diarization(tuple(voices.turns), "cluster", leading=tuple(voices.leading))


def _by_channel(
    source: AudioSource,
    vad: Vad,
    encoder: EncoderSource | None,
    options: DiarizationOptions,
    overlap: OverlapSource | None,
) -> tuple[Diarization | None, str]:
    """The turns of both sides; None and why, where the channels are no sides."""
    if not isinstance(source, Stereo) or not source.is_stereo:
        return None, "one channel"
    if are_duplicates(source, options.channels):
        return None, "the same sound in both"
    speech = channel_speech(source, vad, options.channels)
    if options.speaker_mode == "auto":
        if not speech.left or not speech.right:
            return None, "speech in one of them only"
        if speech.likeness > ONE_SCENE:
            return None, "everybody in both"
    left = _side(speech.left, options.left_name)
    right = _Voices(_side(speech.right, options.right_name), [])
    if options.right_count is not None and speech.right:
        count, max_pause_s = options.right_count, options.max_pause_s
        right = _by_voice(source.side(1), speech.right, encoder, count, max_pause_s, overlap)
        names = [f"{options.right_name}-{name}" for name in options.right_speaker_names]
        right = _named(right, names, f"{options.right_name}-spk{{}}", 1)
    channels = {**{turn.speaker: 0 for turn in left}, **{turn.speaker: 1 for turn in right.turns}}

    # One side's pauses are bridged whatever the other says in them: it may talk at any time.
    def with_left(turns: Sequence[Turn]) -> tuple[Turn, ...]:
        return tuple(sorted([*joined(left, options.max_pause_s), *joined(turns, options.max_pause_s)]))

    leading = with_left(right.leading) if right.leading else ()
    return Diarization(with_left(right.turns), "channel", channels, leading), ""


class _Voices(NamedTuple):
    """All turns, and as `Diarization.leading` has them."""

    turns: list[Turn]
    leading: list[Turn]


def _by_voice(
    source: AudioSource,
    segments: Sequence[Span],
    encoder: EncoderSource | None,
    count: SpeakerCount,
    max_pause_s: float,
    overlap: OverlapSource | None,
) -> _Voices:
    """Turns of the speakers "0", "1", ..."""
    if encoder is None:
        raise OptionError(
            "telling speakers apart by voice needs a speaker encoder, found none; "
            "only a recording with one side per channel can do without"
        )
    if callable(encoder):
        encoder = encoder()
    level_db = getattr(encoder, "level_db", None)
    quiet = source.source if isinstance(source, _Watched) else source  # without the networks a moment's work
    gain = 1.0 if level_db is None else gain_to(level_db, quiet.blocks(READ_SECONDS), segments)
    embedded = embed(source.blocks(READ_SECONDS), segments, encoder, gain)
    means = centroids(embedded, encoder, count)
    overlaps = _overlaps(source, overlap) if len(means) > 1 else []
    found = label(embedded, means, segments, overlaps)

    def turns(spans: Iterable[tuple[Span, int]]) -> list[Turn]:
        return joined((_turn(span, str(speaker)) for span, speaker in spans), max_pause_s)

    leading = turns(found.leading)
    if not found.second:
        return _Voices(leading, [])
    return _Voices(turns([*found.leading, *found.second]), leading)


def _overlaps(source: AudioSource, overlap: OverlapSource | None) -> Sequence[Span]:
    """Where two speak at once."""
    detector = overlap() if callable(overlap) else overlap
    return [] if detector is None else detector.overlaps(source.blocks(READ_SECONDS))


def _side(spans: Sequence[Span], name: str) -> list[Turn]:
    return [_turn(span, name) for span in spans]


def _turn(span: Span, speaker: str) -> Turn:
    return Turn(span.start / SAMPLE_RATE, span.end / SAMPLE_RATE, speaker)


def _named(voices: _Voices, names: Sequence[str], pattern: str, first: int) -> _Voices:
    """Speakers by name in the order in which they are first heard; the rest by number."""
    rest = (pattern.format(number) for number in itertools.count(first + len(names)))
    called = dict(zip(speakers_of(voices.turns), itertools.chain(names, rest), strict=False))
    return _Voices(renamed(voices.turns, called), renamed(voices.leading, called))


def _checked_names(option: str, names: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(" ".join(str(name).split()) for name in names)
    if not all(names) or len(set(names)) < len(names):
        raise OptionError(f"{option}: expected different names, none of them empty, found {names!r}")
    return names


# --- progress


class _Readings:
    """Tells how far the work is, from how often the recording has to be read in all."""

    def __init__(
        self, source: AudioSource, options: DiarizationOptions, has_overlap: bool, report: ProgressCallback
    ) -> None:
        is_stereo = isinstance(source, Stereo) and source.is_stereo
        # Speech, voices and overlaps; duplicates, speech on two sides, cross-talk.
        self._readings = 4 if is_stereo and options.speaker_mode != "cluster" else 2 + has_overlap
        self._report, self._done_s, self._total_s = report, 0.0, source.duration

    def read(self, block: Samples) -> None:
        """A block was read."""
        self._done_s += len(block) / SAMPLE_RATE / self._readings
        total = self._total_s
        self._report(Progress(self._done_s if total is None else min(self._done_s, total), total))

    def finished(self) -> None:
        """All that was to be read was."""
        if self._total_s is not None and self._done_s < self._total_s:
            self._done_s = self._total_s
            self._report(Progress(self._total_s, self._total_s))


class _Watched:
    """A source that reports what is read of it."""

    def __init__(self, source: AudioSource, readings: _Readings) -> None:
        self.name, self.sample_rate, self.warnings = source.name, source.sample_rate, source.warnings
        self.duration = source.duration
        self.source, self._readings = source, readings

    def blocks(self, block_s: float) -> Iterator[Samples]:
        for block in self.source.blocks(block_s):
            self._readings.read(block)
            yield block
        self.duration = self.source.duration

    @property
    def is_stereo(self) -> bool:
        return isinstance(self.source, Stereo) and self.source.is_stereo

    def side(self, channel: int) -> AudioSource:
        assert isinstance(self.source, Stereo)
        return _Watched(self.source.side(channel), self._readings)

    def pairs(self, block_s: float) -> Iterator[tuple[Samples, Samples]]:
        assert isinstance(self.source, Stereo)
        for left, right in self.source.pairs(block_s):
            self._readings.read(left)
            yield left, right


__all__ = ["Diarization", "DiarizationOptions", "EncoderSource", "OverlapSource", "find_turns"]
