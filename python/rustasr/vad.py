"""Voice activity detection: where in a recording somebody speaks.

::

    blocks of samples ─► a value per frame ─► rules of durations ─► Span, Span, …
                         WebRTC: speech or not     flags_to_spans
                         Silero: a probability     speech_timestamps      csrc/models/silero_vad.cpp

What every method does alike is the protocol `Vad`; `arrange` is the one place where spans are joined and
cut. Times are samples at 16 kHz; a span is half-open.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rustasr import registry
from rustasr.audio import SAMPLE_RATE, rebatch
from rustasr.errors import AudioError, ModelNotFoundError, OptionError, UnsupportedModelError
from rustasr.options import between, integer, number

if TYPE_CHECKING:
    from rustasr import _core
    from rustasr.progress import FileProgress

Samples: TypeAlias = NDArray[np.float32]
SpeechProbabilities: TypeAlias = Callable[[Iterable[Samples]], Iterable[float]]
"""A network: blocks of samples in, one probability for every 512 samples out (the last frame filled with
zeros). Its state begins anew with every call."""

SILERO_WINDOW = {16000: 512, 8000: 256}  # samples of a frame, by sample rate (silero_vad utils_vad.py)
_SPEECH, _SILENCE = 0.5, 0.15  # probabilities: speech above the one, none below the other
_AWAKE_FRAMES = 31  # a second of speech
_SILERO_BLOCK = 64 * SILERO_WINDOW[SAMPLE_RATE]  # samples for the network at once: what it does in one go


class Span(NamedTuple):
    """Samples [start, end)."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Samples in it."""
        return self.end - self.start


class Vad(Protocol):
    """Finds speech in a recording."""

    def speech(self, blocks: Iterable[Samples]) -> list[Span]:
        """The spans in which somebody speaks, rising and apart.

        `blocks` are all samples of one recording, mono at 16 kHz, in pieces of any size: where they are
        cut makes no difference. Nothing is remembered from one call to the next.
        """
        ...


@runtime_checkable
class GradedVad(Vad, Protocol):
    """A detector that also says how sure it is."""

    def graded(self, blocks: Iterable[Samples]) -> list[tuple[Span, float]]:
        """The spans of `speech`, each with the highest probability in it."""
        ...


def arrange(spans: Iterable[Span], *, gap: int = 0, longest: int = 0) -> list[Span]:
    """Spans in order, joined where they overlap or where at most `gap` samples lie between two, and what is
    then longer than `longest` cut to pieces of that length (the last one shorter). 0: no cut.

    Raises ValueError for a negative `gap` or `longest`.
    """
    if gap < 0 or longest < 0:
        raise ValueError(f"expected a gap and a longest length of 0 or more, found {gap} and {longest}")
    joined = list[Span]()
    for span in sorted(spans):
        if joined and span.start - joined[-1].end <= gap:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    if not longest:
        return joined
    return [
        Span(start, min(start + longest, span.end))
        for span in joined
        for start in range(span.start, span.end, longest)
    ]


def touching(spans: Sequence[Span], start: int, end: int) -> Iterator[Span]:
    """Those of `spans` (rising, apart) that share samples with [start, end)."""
    for i in range(bisect.bisect_right(spans, start, key=lambda span: span.end), len(spans)):
        if spans[i].start >= end:
            return
        yield spans[i]


def load_vad(
    name_or_path: str | Path,
    options: WebRtcOptions | SileroOptions | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: FileProgress | None = None,
) -> Vad:
    """A detector of speech: "webrtc", "silero", or the path of Silero's model (a `.gguf` or its `.jit`).

    `options` are those of the detector. Silero's model is fetched at the first use, which
    `progress(done, total, what)` follows. `device` and `threads` are a network's; WebRTC has none. One
    processor core is more than enough for Silero.

    Raises OptionError for another detector's options and where a package is missing; ModelNotFoundError for
    an unknown name, and when the model cannot be fetched; ModelFileError, UnsupportedModelError,
    ChecksumError or DeviceError.
    """
    name = str(name_or_path)
    if name.lower() == "webrtc":
        return WebRtcVad(_options(WebRtcOptions, options, "webrtc"))
    wanted = "silero-vad" if name.lower() == "silero" else name
    if not Path(wanted).exists() and registry.find(wanted) is None:
        raise ModelNotFoundError(f"vad: expected webrtc, silero or the path of a model, found {name!r}")
    chosen = _options(SileroOptions, options, "silero")
    return SileroVad(SileroNetwork.load(wanted, device, threads, progress), chosen)


T = TypeVar("T")


def _options(wanted: type[T], options: object, name: str) -> T | None:
    if options is None or isinstance(options, wanted):
        return options
    raise OptionError(f"vad {name}: expected {wanted.__name__}, found {type(options).__name__}")


# --- WebRTC


@dataclass(frozen=True, slots=True)
class WebRtcOptions:
    """How the WebRTC detector's flags become spans.

    mode: 0 keeps most, 3 takes the least for speech.
    frame_ms: 10, 20 or 30.
    min_speech_ms: so much speech in a row opens a span.
    min_silence_ms: so much silence in a row closes it.
    pad_ms: added on both sides; what touches then is joined.
    max_segment_s: what is longer is cut; 0 is no limit.

    Raises OptionError for a value outside its range.
    """

    mode: int = 2
    frame_ms: int = 30
    min_speech_ms: float = 300.0
    min_silence_ms: float = 200.0
    pad_ms: float = 150.0
    max_segment_s: float = 30.0

    def __post_init__(self) -> None:
        integer("mode", self.mode, 0, 3)
        if self.frame_ms not in (10, 20, 30):
            raise OptionError(f"frame_ms: expected 10, 20 or 30, found {self.frame_ms!r}")
        for name in ("min_speech_ms", "min_silence_ms", "pad_ms"):
            between(name, getattr(self, name), 0, 60_000)
        between("max_segment_s", self.max_segment_s, 0, 86_400)


class WebRtcVad:
    """The detector of WebRTC (Gaussian mixtures on six bands): small, quick, and easily fooled by noise.

    Raises OptionError when its package is not installed.
    """

    def __init__(self, options: WebRtcOptions | None = None) -> None:
        self.options = options or WebRtcOptions()
        _webrtc_detector(self.options.mode)

    def speech(self, blocks: Iterable[Samples]) -> list[Span]:
        return flags_to_spans(self.flags(blocks), self.options)

    def flags(self, blocks: Iterable[Samples]) -> Iterator[bool]:
        """Whether each whole frame is speech. The detector adapts as it goes: order matters."""
        detector = _webrtc_detector(self.options.mode)
        size = SAMPLE_RATE * self.options.frame_ms // 1000
        rest = np.zeros(0, np.int16)
        for block in blocks:
            # Toward zero, as the conversion of floats to integers does.
            pcm = (np.clip(block, -1.0, 1.0) * np.float32(32767.0)).astype(np.int16)
            pcm = np.concatenate([rest, pcm])
            whole = len(pcm) // size * size
            rest = pcm[whole:]
            for frame in pcm[:whole].reshape(-1, size):
                yield detector.is_speech(frame.tobytes(), SAMPLE_RATE)


def _webrtc_detector(mode: int) -> Any:
    try:
        import webrtcvad
    except ImportError as error:
        raise OptionError(
            f"vad: webrtc needs the package webrtcvad-wheels, which cannot be imported ({error}); "
            'pip install "rustasr[vad]"'
        ) from error
    return webrtcvad.Vad(mode)


def flags_to_spans(flags: Iterable[bool], options: WebRtcOptions) -> list[Span]:
    """Spans from one flag per frame, as RustASR's crates/asr-cli/src/vad.rs forms them.

    A span opens where enough flagged frames follow each other and closes where enough others do; durations
    are rounded up to frames. Speech that lasts to the end keeps a silence too short to close it.
    """
    frame = SAMPLE_RATE * options.frame_ms // 1000
    opens = max(1, math.ceil(options.min_speech_ms / options.frame_ms))
    closes = max(1, math.ceil(options.min_silence_ms / options.frame_ms))
    pad = math.ceil(options.pad_ms / options.frame_ms)
    found = list[tuple[int, int]]()
    start: int | None = None
    n = n_speech = n_silence = 0  # frames: in all, and in a row
    for n, is_speech in enumerate(flags, 1):
        n_speech, n_silence = (n_speech + 1, 0) if is_speech else (0, n_silence + 1)
        if start is None and n_speech >= opens:
            start = n - n_speech
        elif start is not None and n_silence >= closes:
            found.append((start, n - n_silence))
            start = None
    if start is not None:
        found.append((start, n))
    wide = [Span(max(0, low - pad) * frame, min(n, high + pad) * frame) for low, high in found]
    return arrange(wide, longest=int(options.max_segment_s * SAMPLE_RATE))


# --- Silero


@dataclass(frozen=True, slots=True)
class SileroOptions:
    """How Silero's probabilities become spans; names and defaults are those of `get_speech_timestamps`
    (https://github.com/snakers4/silero-vad, 6.2.3).

    threshold: speech begins at this probability ...
    neg_threshold: ... and is silent below this one; None is 0.15 less, at least 0.01.
    min_speech_duration_ms: what is not longer is dropped, unless max_speech_duration_s cut it.
    max_speech_duration_s: what is longer is cut in a pause.
    min_silence_duration_ms: so much silence ends a span.
    speech_pad_ms: added on both sides, at most half of the silence between two spans.
    min_silence_at_max_speech_ms: a pause must be longer than this to be cut in.
    use_longest_pause: cut in the longest pause; False: in the last one.

    One is not theirs:

    restart_after_ms: after so much silence the network also listens without what it heard before, so that a
        loud voice does not hide the quieter one that speaks next; 0: never, as theirs. SileroNetwork can;
        any other network hears as it does.

    Raises OptionError for a value outside its range.
    """

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: float = 250.0
    max_speech_duration_s: float = math.inf
    min_silence_duration_ms: float = 100.0
    speech_pad_ms: float = 30.0
    min_silence_at_max_speech_ms: float = 98.0
    use_longest_pause: bool = True
    restart_after_ms: float = 500.0

    def __post_init__(self) -> None:
        between("threshold", self.threshold, 0, 1)
        if self.neg_threshold is not None:
            between("neg_threshold", self.neg_threshold, 0, self.threshold)
        if number("max_speech_duration_s", self.max_speech_duration_s) <= 0:
            raise OptionError(
                f"max_speech_duration_s: expected more than 0, found {self.max_speech_duration_s!r}"
            )
        durations = (
            "min_speech_duration_ms min_silence_duration_ms speech_pad_ms min_silence_at_max_speech_ms "
            "restart_after_ms"
        )
        for name in durations.split():
            between(name, getattr(self, name), 0, 60_000)


class SileroNetwork:
    """Silero VAD 6.2 for 16 kHz in the compiled core: SpeechProbabilities.

    May be called from several threads at once: every call has a state of its own. Where there was speech and
    then silence for `restart_after_ms` (0: never), a second state begins anew beside it, and the higher
    probability counts.
    """

    def __init__(self, core: _core.Model, restart_after_ms: float = 0.0) -> None:
        if core.architecture != "silero-vad":
            raise UnsupportedModelError(
                f"{core.path}: expected a detector of speech (silero-vad), found {core.architecture}"
            )
        self.core = core
        self.restart_after_ms = restart_after_ms

    def restarting(self, after_ms: float) -> SileroNetwork:
        """The same network with another `restart_after_ms`."""
        return SileroNetwork(self.core, after_ms)

    @classmethod
    def load(
        cls, name_or_path: str | Path, device: str, threads: int, progress: FileProgress | None = None
    ) -> SileroNetwork:
        """A registry name or a path, as `rustasr.load_vad` takes it."""
        from rustasr.model import open_model

        core, _, _ = open_model(name_or_path, device, threads, "auto", None, progress=progress)
        return cls(core)

    def __call__(self, blocks: Iterable[Samples]) -> Iterator[float]:
        """One probability per frame of 512 samples; AudioError where samples are not finite."""
        session = self.core.session()
        n_pause = math.ceil(self.restart_after_ms * SAMPLE_RATE / 1000 / SILERO_WINDOW[SAMPLE_RATE])
        fresh = _FreshEar(self.core.session(), n_pause) if n_pause else None
        for i, samples in enumerate(rebatch(blocks, _SILERO_BLOCK)):
            if not np.isfinite(samples).all():
                raise AudioError(
                    f"samples {i * _SILERO_BLOCK} to {i * _SILERO_BLOCK + len(samples)}: expected finite "
                    "values, found NaN or infinite ones"
                )
            probabilities = session.speech_probabilities(samples).tolist()
            yield from probabilities if fresh is None else fresh.raised(samples, probabilities)


@dataclass(slots=True)
class _FreshEar:
    """A second state beside the one that goes on: it begins anew in a pause, and its probabilities count
    where they are higher, until the other hears speech as well.
    """

    session: _core.Session
    n_pause: int  # frames of silence after speech in which it begins anew
    listening: bool = False
    heard: bool = False
    n_silent: int = 0
    n_awake: int = 0  # frames in a row in which the other hears speech

    def raised(self, samples: Samples, probabilities: list[float]) -> list[float]:
        """The probabilities of the next frames, raised where this one hears more."""
        found, first = probabilities, 0
        while first < len(probabilities):
            if self.listening:
                own = self.session.speech_probabilities(
                    samples[first * SILERO_WINDOW[SAMPLE_RATE] :]
                ).tolist()
                found = found[:first] + [max(pair) for pair in zip(probabilities[first:], own, strict=True)]
            change = self._change(probabilities, found, first)
            found = found[:change] + probabilities[change:]
            first = change
        return found

    def _change(self, probabilities: list[float], found: list[float], first: int) -> int:
        """The frame before which it begins anew, or is no longer needed; else the end."""
        for n in range(first, len(found)):
            self.heard |= found[n] >= _SPEECH
            self.n_silent = 0 if found[n] >= _SILENCE else self.n_silent + 1
            self.n_awake = 0 if probabilities[n] < _SPEECH else self.n_awake + 1
            if self.heard and self.n_silent >= self.n_pause:
                self.listening, self.heard, self.n_silent = True, False, 0
                self.session.reset()
                return n + 1
            if self.listening and self.n_awake >= _AWAKE_FRAMES:
                self.listening = False
                return n + 1
        return len(found)


class SileroVad:
    """Spans by Silero's rules from the probabilities of a network."""

    def __init__(self, network: SpeechProbabilities, options: SileroOptions | None = None) -> None:
        self.options = options or SileroOptions()
        if isinstance(network, SileroNetwork):
            network = network.restarting(self.options.restart_after_ms)
        self.network = network

    def speech(self, blocks: Iterable[Samples]) -> list[Span]:
        return [span for span, _ in self.graded(blocks)]

    def graded(self, blocks: Iterable[Samples]) -> list[tuple[Span, float]]:
        """The spans of `speech`, each with the highest probability in it."""
        n_samples, size = 0, SILERO_WINDOW[SAMPLE_RATE]

        def counted() -> Iterator[Samples]:
            nonlocal n_samples
            for block in blocks:
                n_samples += len(block)
                yield block

        rules, track = _SileroRules(self.options, SAMPLE_RATE), array("f")
        for probability in self.network(counted()):
            rules.frame(len(track) * size, float(probability))
            track.append(probability)
        values = np.array(track, np.float32)
        return [
            (span, float(values[span.start // size : math.ceil(span.end / size)].max(initial=0.0)))
            for span in rules.spans(n_samples)
        ]


def speech_timestamps(
    probabilities: Iterable[float],
    n_samples: int,
    options: SileroOptions | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> list[Span]:
    """Spans from one probability per frame (512 samples at 16 kHz, 256 at 8 kHz) of `n_samples` samples.

    Equal to silero_vad's `get_speech_timestamps`. Raises OptionError for another sample rate.
    """
    if sample_rate not in SILERO_WINDOW:
        raise OptionError(f"sample_rate: expected 8000 or 16000, found {sample_rate!r}")
    rules = _SileroRules(options or SileroOptions(), sample_rate)
    for i, probability in enumerate(probabilities):
        rules.frame(i * SILERO_WINDOW[sample_rate], float(probability))
    return rules.spans(n_samples)


@dataclass(slots=True)
class _SileroRules:
    """The state machine over frames. Positions and lengths in samples; 0 stands for "none" where nothing
    can lie at the first sample."""

    options: SileroOptions
    sample_rate: int
    low: float = field(init=False)  # below this probability it is silent
    longest: float = field(init=False)
    start: int | None = None  # of the span that is open
    pause: int = 0  # where the running pause began
    pauses: list[tuple[int, int]] = field(default_factory=list)  # (position, length) in which it may be cut
    last_pause: int = 0  # by the rule of the last pause: where it may be cut ...
    resumed: int = 0  # ... and where speech went on after that
    found: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        neg, window = self.options.neg_threshold, SILERO_WINDOW[self.sample_rate]
        self.low = max(self.options.threshold - 0.15, 0.01) if neg is None else neg
        longest = self.sample_rate * self.options.max_speech_duration_s
        self.longest = longest - window - 2 * self._samples("speech_pad_ms")

    def frame(self, position: int, probability: float) -> None:
        """Takes the frame that begins at `position`."""
        if probability >= self.options.threshold:
            if self.pause:
                self._resume(position)
            if self.start is None:
                self.start = position
                return
        if self.start is not None and position - self.start > self.longest:
            self._cut(self.start, position)
        if self.start is not None and probability < self.low:
            self._silence(self.start, position)

    def spans(self, n_samples: int) -> list[Span]:
        """The spans found; one that is open ends with the recording, even inside a pause."""
        if self.start is not None:
            self._close(self.start, n_samples, self._samples("min_speech_duration_ms"))
        return padded(self.found, self._samples("speech_pad_ms"), n_samples)

    def _samples(self, option: str) -> float:
        duration_ms: float = getattr(self.options, option)
        return self.sample_rate * duration_ms / 1000

    def _resume(self, position: int) -> None:
        length = position - self.pause
        if length > self._samples("min_silence_at_max_speech_ms"):
            self.pauses.append((self.pause, length))
        self.pause = 0
        if self.resumed < self.last_pause:
            self.resumed = position

    def _cut(self, start: int, position: int) -> None:
        """The open span has become too long: ends it in a pause, where there was one, and goes on after."""
        if self.options.use_longest_pause and self.pauses:
            pause, length = max(self.pauses, key=lambda candidate: candidate[1])  # the first of equals
            resumed = pause + length
        else:
            pause, resumed = self.last_pause, self.resumed
        if not pause:
            self._close(start, position)
            return
        self._close(start, pause)
        self.start = resumed if resumed >= pause else None

    def _silence(self, start: int, position: int) -> None:
        self.pause = self.pause or position
        length = position - self.pause
        if not self.options.use_longest_pause and length > self._samples("min_silence_at_max_speech_ms"):
            self.last_pause = self.pause
        if length >= self._samples("min_silence_duration_ms"):
            self._close(start, self.pause, self._samples("min_speech_duration_ms"))

    def _close(self, start: int, end: int, shortest: float = 0.0) -> None:
        """Ends the open span, which is kept when it is longer than `shortest`."""
        if end - start > shortest:
            self.found.append((start, end))
        self.start, self.pause, self.last_pause, self.resumed = None, 0, 0, 0
        self.pauses = []


def padded(found: Sequence[tuple[int, int]], pad: float, n_samples: int) -> list[Span]:
    """Spans, rising and apart, with `pad` samples more on both sides; two share a short silence between them,
    as silero_vad's do."""
    starts, ends = [start for start, _ in found], [end for _, end in found]
    for i, end in enumerate(ends):
        if i == 0:
            starts[0] = int(max(0, starts[0] - pad))
        silence = starts[i + 1] - end if i + 1 < len(found) else math.inf
        if silence < 2 * pad:
            ends[i] += int(silence // 2)
            starts[i + 1] -= int(silence // 2)
        else:
            ends[i] = int(min(n_samples, end + pad))
            if i + 1 < len(found):
                starts[i + 1] = int(max(0, starts[i + 1] - pad))
    return [Span(start, end) for start, end in zip(starts, ends, strict=True)]


__all__ = [
    "SileroNetwork",
    "SileroOptions",
    "SileroVad",
    "Span",
    "SpeechProbabilities",
    "Vad",
    "WebRtcOptions",
    "WebRtcVad",
    "arrange",
    "flags_to_spans",
    "load_vad",
    "padded",
    "speech_timestamps",
    "touching",
]
