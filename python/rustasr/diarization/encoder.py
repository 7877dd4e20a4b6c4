"""What tells voices apart: the protocol of speaker encoders, the networks that keep it, and a recording's
windows through one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import AudioError, ModelFileError, UnsupportedModelError
from rustasr.sessions import session_of
from rustasr.vad import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from rustasr import _core
    from rustasr.progress import FileProgress

Samples = NDArray[np.float32]
Vectors = NDArray[np.float32]

WINDOW = 24_000  # samples: 1.5 s ...
HOP = 12_000  # ... every 0.75 s (WeSpeaker and 3D-Speaker)
BATCH = 32
DEFAULT_ENCODER = "campplus-zh-en"


class SpeakerEncoder(Protocol):
    """A network whose vectors are alike for one voice and unlike for two.

    What "alike" means differs from network to network, so the encoder says it. `cut_distance`: groups of
    windows whose mean distance (1 - cosine) is greater are different speakers. `merge_cosine`: speakers
    whose mean vectors are at least so alike are one.

    A network to which loudness matters also has an attribute `level_db`: the level (RMS, in dB of full scale)
    to which the speech of a recording is to be brought, as a whole, before its pieces come. What one piece
    holds does not tell it: a quiet voice beside a loud one is quiet in the whole recording.
    """

    name: str
    cut_distance: float
    merge_cosine: float

    def embed(self, pieces: Sequence[Samples]) -> Vectors:
        """Vectors [n, d] of any length for n pieces of samples at 16 kHz; a short piece is the encoder's to
        fill. A vector does not depend on the other pieces.
        """
        ...


class NetworkEncoder:
    """A speaker encoder of the core (`load_speaker_encoder` makes it). Several threads may use it.

    A piece shorter than the network was made for is filled up, mostly by repeating it. What "alike" means is
    written in the model file, and `level_db` (None: loudness does not matter). `embed` takes pieces as they
    are; diarization brings the recording to that level first.
    """

    def __init__(self, core: _core.Model, *, name: str) -> None:
        if "speaker.n_dims" not in core.metadata:
            raise UnsupportedModelError(
                f"{name}: expected a speaker encoder, for instance {DEFAULT_ENCODER}, "
                f"found a model of architecture {core.architecture}"
            )
        self.name = name
        self.core = core
        self.n_dims = int(_number(core, "speaker.n_dims"))
        self.cut_distance = _number(core, "speaker.cut_distance")
        self.merge_cosine = _number(core, "speaker.merge_cosine")
        has_level = "speaker.level_db" in core.metadata
        self.level_db = _number(core, "speaker.level_db") if has_level else None
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"<NetworkEncoder {self.name} on {self.core.device}>"

    def embed(self, pieces: Sequence[Samples]) -> Vectors:
        """Vectors [n, n_dims] of length 1 for n pieces of samples at 16 kHz, each of one sample or more."""
        ready = [np.ascontiguousarray(piece, np.float32) for piece in pieces]
        for i, piece in enumerate(ready):
            if piece.ndim != 1 or not len(piece) or not np.isfinite(piece).all():
                raise AudioError(
                    f"piece {i}: expected one channel of finite samples, found shape {list(piece.shape)}"
                    + (" with values that are not finite" if piece.size else "")
                )
        return self._session.speaker_embeddings(ready)

    @property
    def _session(self) -> _core.Session:
        """This thread's workspace."""
        return session_of(self.core, self._local)


def _number(core: _core.Model, key: str) -> float:
    value = core.metadata.get(key)
    if not isinstance(value, (int, float)):
        raise ModelFileError(f"{core.path}: key {key}: expected a number, found {value!r:.60}")
    return value


def load_speaker_encoder(
    name_or_path: str | Path | None = None,
    *,
    device: str = "cpu",
    threads: int = 2,
    progress: FileProgress | None = None,
) -> NetworkEncoder:
    """Loads a speaker encoder, fetching and converting it first where needed.

    `name_or_path`: a registry name ("campplus-zh-en", which None means, "wespeaker-resnet34-lm",
    "ge2e-resemblyzer"), a `.gguf`, or a checkpoint.
    `device`, `threads` and `progress` are `rustasr.load_model`'s.

    Raises ModelNotFoundError, ModelFileError, UnsupportedModelError, ChecksumError, DeviceError.
    """
    from rustasr.model import open_model

    wanted = name_or_path if name_or_path is not None else DEFAULT_ENCODER
    core, name, _ = open_model(wanted, device, threads, "auto", None, progress=progress)
    return NetworkEncoder(core, name=name)


class Embedded(NamedTuple):
    """Windows in order, the segment of each, and their vectors [n, d] of length 1."""

    windows: list[Span]
    segments: list[int]
    vectors: NDArray[np.float64]


def windows_of(segment: Span) -> list[Span]:
    """Windows that cover a segment: 1.5 s every 0.75 s, the last one flush with its end; one for a short
    segment.
    """
    if segment.length <= WINDOW:
        return [segment]
    starts = range(segment.start, segment.end - WINDOW, HOP)
    return [*(Span(start, start + WINDOW) for start in starts), Span(segment.end - WINDOW, segment.end)]


def gain_to(level_db: float, blocks: Iterable[Samples], segments: Sequence[Span]) -> float:
    """What samples are to be multiplied with so that the speech of a recording has the level `level_db` (RMS,
    in dB of full scale); 1 where there is no speech or it is silent.
    """
    length = 10 * WINDOW
    spans = [
        Span(start, min(start + length, segment.end))
        for segment in segments
        for start in range(segment.start, segment.end, length)
    ]
    energy = sum(float(np.square(piece, dtype=np.float64).sum()) for piece in _cut(blocks, spans))
    n_samples = sum(segment.length for segment in segments)
    return float(10 ** (level_db / 20) / np.sqrt(energy / n_samples)) if energy > 0 else 1.0


def embed(
    blocks: Iterable[Samples], segments: Sequence[Span], encoder: SpeakerEncoder, gain: float = 1.0
) -> Embedded:
    """The windows of `segments` (rising, apart), times `gain`, through the encoder. Samples are held for a
    batch at a time.

    `blocks` are all samples of the recording, in pieces of any size.
    """
    owners = [(window, i) for i, segment in enumerate(segments) for window in windows_of(segment)]
    owners.sort()
    pieces, vectors = list[Samples](), list[NDArray[np.float64]]()
    for piece in _cut(blocks, [window for window, _ in owners]):
        pieces.append(piece if gain == 1.0 else piece * np.float32(gain))
        if len(pieces) == BATCH:
            vectors.append(_unit(encoder.embed(pieces)))
            pieces = []
    if pieces:
        vectors.append(_unit(encoder.embed(pieces)))
    rows = np.concatenate(vectors) if vectors else np.zeros((0, 1))
    if len(rows) != len(owners):
        raise ValueError(f"expected {len(owners)} vectors from {encoder.name}, found {len(rows)}")
    return Embedded([window for window, _ in owners], [i for _, i in owners], rows)


def _cut(blocks: Iterable[Samples], windows: Sequence[Span]) -> Iterator[Samples]:
    """The samples of each window; windows rise by start and end."""
    held, first = np.zeros(0, np.float32), 0  # samples from `first` on
    remaining = iter(windows)
    window = next(remaining, None)
    for block in blocks:
        held = np.concatenate([held, block]) if window is not None else held[:0]
        while window is not None and window.end <= first + len(held):
            yield held[window.start - first : window.end - first]
            window = next(remaining, None)
        kept = min(len(held), window.start - first) if window is not None else 0
        if kept > 0:
            held, first = held[kept:], first + kept
    if window is not None:
        raise ValueError(f"expected {window.end} samples or more, found {first + len(held)}")


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """Rows of length 1, in double precision so that sums do not depend on their order's rounding."""
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = rows / np.maximum(norms, 1e-12)
    return unit


__all__ = [
    "DEFAULT_ENCODER",
    "HOP",
    "WINDOW",
    "Embedded",
    "NetworkEncoder",
    "SpeakerEncoder",
    "embed",
    "gain_to",
    "load_speaker_encoder",
    "windows_of",
]
