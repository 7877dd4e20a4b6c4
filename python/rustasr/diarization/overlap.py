"""Where two speak at once: the protocol of detectors, the network that keeps it, and a recording through it.

::

    windows of 10 s ─► per frame of 17 ms: how likely it is that two speak ─► mean where windows overlap
                    ─► frames above a threshold ─► Span, Span, …
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import AudioError, ModelFileError, ModelNotFoundError, UnsupportedModelError
from rustasr.options import Options, between
from rustasr.sessions import session_of
from rustasr.vad import Span

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rustasr import _core
    from rustasr.progress import FileProgress

Samples = NDArray[np.float32]

DEFAULT_DETECTOR = "pyannote-segmentation-3.0"
BATCH = 8  # windows that go through the network at once


class OverlapDetector(Protocol):
    """Finds where two or more speak at once."""

    def overlaps(self, blocks: Iterable[Samples]) -> list[Span]:
        """The spans in which they do, rising and apart.

        `blocks` are all samples of one recording, mono at 16 kHz, in pieces of any size: where they are
        cut makes no difference.
        """
        ...


@dataclass(frozen=True, slots=True)
class OverlapOptions(Options):
    """How probabilities become spans.

    threshold: two speak where the probability of that is greater.
    step_s: seconds from window to window, of which each is 10 s long: half of it lets the network hear every
        moment twice; less takes longer and changes little.

    Raises OptionError for a value outside its range.
    """

    threshold: float = 0.5
    step_s: float = 5.0

    def __post_init__(self) -> None:
        between("threshold", self.threshold, 0, 1)
        between("step_s", self.step_s, 0.1, 10)


class NetworkOverlapDetector:
    """The segmentation network in the compiled core (`load_overlap_detector` makes it). Several threads may
    use it. Samples are held for a batch of windows.
    """

    def __init__(self, core: _core.Model, *, name: str, options: OverlapOptions | None = None) -> None:
        if core.architecture != "pyannet":
            raise UnsupportedModelError(
                f"{name}: expected a detector of overlapped speech, for instance {DEFAULT_DETECTOR}, found a "
                f"model of architecture {core.architecture}"
            )
        self.name = name
        self.core = core
        self.options = options or OverlapOptions()
        self.frames = _Frames.of(core)
        speakers = core.metadata.get("pyannet.speakers_of_class")
        if not isinstance(speakers, list):
            raise ModelFileError(f"{core.path}: key pyannet.speakers_of_class: expected numbers")
        self._several = np.array(speakers) >= 2
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<NetworkOverlapDetector {self.name} on {self.core.device}>"

    def overlaps(self, blocks: Iterable[Samples]) -> list[Span]:
        """As OverlapDetector has it; AudioError where samples are not finite."""
        frames, spans, n_samples = self.frames, list[Span](), 0

        def counted() -> Iterator[Samples]:
            nonlocal n_samples
            for block in blocks:
                n_samples += len(block)
                yield block

        start: int | None = None
        for i, probability in enumerate(chain(self.probabilities(counted()), [0.0])):
            is_overlap = probability > self.options.threshold
            if is_overlap and start is None:
                start = frames.border(i)
            elif not is_overlap and start is not None:
                spans.append(Span(start, min(frames.border(i), n_samples)))
                start = None
        return [span for span in spans if span.length > 0]

    def probabilities(self, blocks: Iterable[Samples]) -> Iterator[float]:
        """Frame by frame, how likely it is that two or more speak: the mean over the windows that hear it.

        A window begins with a frame of the one before, so that the frames of both are the same; the last one
        is filled with zeros.
        """
        step = min(max(1, round(self.options.step_s * 16_000 / self.frames.step)), self.frames.n)
        sums, counts = np.zeros(self.frames.n), np.zeros(self.frames.n)
        for window in self._heard(blocks, step * self.frames.step):
            sums += window
            counts += 1
            yield from (sums[:step] / counts[:step]).tolist()
            sums = np.concatenate([sums[step:], np.zeros(step)])
            counts = np.concatenate([counts[step:], np.zeros(step)])
        yield from (sums[counts > 0] / counts[counts > 0]).tolist()

    def _heard(self, blocks: Iterable[Samples], hop: int) -> Iterator[NDArray[np.float64]]:
        """Probabilities [frames] of each window, `hop` samples from one to the next."""
        waiting = list[Samples]()
        for window in windows_of(blocks, self.frames.window, hop):
            waiting.append(window)
            if len(waiting) == BATCH:
                yield from self._several_speak(waiting)
                waiting = []
        if waiting:
            yield from self._several_speak(waiting)

    def _several_speak(self, windows: list[Samples]) -> NDArray[np.float64]:
        """[windows, frames]"""
        classes = np.exp(self._session.speaker_classes(windows).astype(np.float64))
        several: NDArray[np.float64] = classes[:, self._several].sum(axis=1)
        return several.reshape(len(windows), -1)

    @property
    def _session(self) -> _core.Session:
        """This thread's workspace."""
        return session_of(self.core, self._local)


@dataclass(frozen=True, slots=True)
class _Frames:
    """Where the network's frames lie in a window, in samples."""

    window: int
    n: int
    step: int  # from frame to frame
    middle: float  # of what the first one hears

    @classmethod
    def of(cls, core: _core.Model) -> _Frames:
        def number(key: str) -> int:
            value = core.metadata.get(f"pyannet.{key}")
            if not isinstance(value, int) or value < 1:
                raise ModelFileError(
                    f"{core.path}: key pyannet.{key}: expected a whole number, found {value!r:.60}"
                )
            return value

        window, step, length = number("window"), number("stride"), number("filter_length")
        n = (window - length) // step + 1
        # Three pools of three, two convolutions of five between them (SincNet.__init__).
        for taps in (1, 5, 5):
            n = (n - taps + 1) // 3
            length += (taps - 1 + 2) * step
            step *= 3
        return cls(window, n, step, (length - 1) / 2)

    def border(self, frame: int) -> int:
        """The sample between this frame and the one before."""
        return max(0, round(self.middle + (frame - 0.5) * self.step)) if frame else 0


def windows_of(blocks: Iterable[Samples], size: int, hop: int) -> Iterator[Samples]:
    """Windows of `size` samples every `hop`, until one reaches the end, which zeros fill; none where there
    are no samples.
    """
    held, n_windows, position = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(
                f"samples {position} to {position + len(block)}: expected finite values, found NaN or "
                "infinite ones"
            )
        position += len(block)
        held = np.concatenate([held, block])
        while len(held) >= size:
            yield held[:size].copy()
            n_windows += 1
            held = held[hop:]
    # What the last window left over; with windows that overlap, all of it may have been heard.
    if position > (n_windows - 1) * hop + size or (n_windows == 0 and position):
        yield np.concatenate([held, np.zeros(size - len(held), np.float32)])


def load_overlap_detector(
    name_or_path: str | Path | None = None,
    options: OverlapOptions | None = None,
    *,
    device: str = "cpu",
    threads: int = 2,
    progress: FileProgress | None = None,
) -> NetworkOverlapDetector:
    """Loads a detector of overlapped speech, fetching and converting it first where needed.

    `name_or_path`: a registry name ("pyannote-segmentation-3.0", which None means), a `.gguf`, or a
    checkpoint. `device`, `threads` and `progress` are `rustasr.load_model`'s.

    Raises ModelNotFoundError, ModelFileError, UnsupportedModelError, ChecksumError, DeviceError.
    """
    from rustasr.model import open_model

    wanted = name_or_path if name_or_path is not None else DEFAULT_DETECTOR
    core, name, _ = open_model(wanted, device, threads, "auto", None, progress=progress)
    return NetworkOverlapDetector(core, name=name, options=options)


class OverlapLoader:
    """Loads a detector by its name when there are two voices, once. "auto" is the usual one, or none where
    that is not here and cannot be fetched: `warnings` then says so.
    """

    def __init__(self, name: str | Path = "auto", **values: Any) -> None:
        self.name = str(name)
        self.warnings: tuple[str, ...] = ()
        self._load = cache(lambda: self._loaded(**values))

    def __call__(self) -> OverlapDetector | None:
        return self._load()

    def _loaded(self, **values: Any) -> OverlapDetector | None:
        if self.name != "auto":
            return load_overlap_detector(self.name, **values)
        try:
            return load_overlap_detector(**values)
        except ModelNotFoundError as error:
            self.warnings = (f"where two speak at once only the likelier is named: {error}",)
            return None


__all__ = [
    "DEFAULT_DETECTOR",
    "NetworkOverlapDetector",
    "OverlapDetector",
    "OverlapLoader",
    "OverlapOptions",
    "load_overlap_detector",
    "windows_of",
]
