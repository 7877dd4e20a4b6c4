"""The log-mel spectrogram of a whole recording, read as a stream and kept where there is room for it.

Whisper scales by the loudest value of the WHOLE recording (openai-whisper audio.py
`log_mel_spectrogram` on all of it), so every frame has to be seen before the first window is decoded.
`read_log_mel` computes the raw frames block by block, `LogMel` keeps them: in memory up to twenty
minutes, beyond that in an unnamed temporary file, so that memory stays flat over any length.
"""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_right
from typing import IO, TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Features: TypeAlias = NDArray[np.float32]  # [n_frames, n_mels]

SAMPLE_RATE = 16000
FRAMES_PER_SECOND = 100
MEMORY_FRAMES = 20 * 60 * FRAMES_PER_SECOND  # 38 MB with 80 mels
BLOCK_SECONDS = 30.0
DIGITAL_SILENCE = 0.5  # log10 above the floor; the noise of a dithered 16-bit recording is 1 above it


class FeatureExtractor(Protocol):
    """The part of `_core.Session` that is needed here."""

    def features(self, pcm: NDArray[np.float32], pad_left: bool = ..., pad_right: bool = ...) -> Features:
        """Raw log mel [n_frames, n_mels] of 16 kHz samples [n], padded or not on either side."""
        ...


class LogMel:
    """Raw log-mel frames of one recording; windows of them come out normalised.

    `floor` is the value of digital silence and `normalize` the function (frames, peak) -> frames that
    `_core.normalize_log_mel` is. Frames beyond `n_frames` that `append` was given (the fade of the last
    samples) count for the peak, as they do in openai-whisper. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        n_mels: int,
        normalize: Callable[[Features, float], Features],
        *,
        floor: float = -10.0,
        memory_frames: int = MEMORY_FRAMES,
    ) -> None:
        self.n_mels = n_mels
        self.n_frames = 0  # of content: whole hops of samples; set by `finish`
        self.peak = floor
        self._floor = floor
        self._normalize = normalize
        self._memory_frames = memory_frames
        self._total = 0  # frames held, including the fade
        self._blocks: list[Features] = []
        self._starts: list[int] = []
        self._spool: IO[bytes] | None = None

    def append(self, frames: Features) -> None:
        """Add the next raw frames [n, n_mels]."""
        if frames.ndim != 2 or frames.shape[1] != self.n_mels:
            raise ValueError(f"expected frames [n, {self.n_mels}], found {list(frames.shape)}")
        if not len(frames):
            return
        self.peak = max(self.peak, float(frames.max()))
        if self._spool is None and self._total + len(frames) > self._memory_frames:
            self._move_to_file()
        if self._spool is None:
            self._starts.append(self._total)
            self._blocks.append(frames)
        else:
            self._spool.write(np.ascontiguousarray(frames, np.float32).data)
        self._total += len(frames)

    def finish(self, n_frames: int) -> None:
        """All has been appended; the first `n_frames` are content."""
        if not 0 <= n_frames <= self._total:
            raise ValueError(f"expected at most {self._total} content frames, found {n_frames}")
        self.n_frames = n_frames

    def raw(self, start: int, size: int) -> Features:
        """Frames [size, n_mels] as appended, fewer where the recording ends."""
        stop = min(start + size, self._total)
        if start >= stop:
            return np.empty((0, self.n_mels), np.float32)
        if self._spool is not None:
            return self._read(start, stop)
        parts = []
        for i in range(bisect_right(self._starts, start) - 1, len(self._blocks)):
            first = self._starts[i]
            if first >= stop:
                break
            parts.append(self._blocks[i][max(0, start - first) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def window(self, start: int, size: int) -> Features:
        """Content frames [<= size, n_mels], normalised, C-contiguous."""
        return self._normalized(self.raw(start, min(size, max(0, self.n_frames - start))))

    def window_with_silence(self, start: int, size: int) -> Features:
        """Frames [size, n_mels], normalised, where digital silence follows the recording."""
        frames = self.raw(start, size)
        if len(frames) < size:
            silence = np.full((size - len(frames), self.n_mels), self._floor, np.float32)
            frames = np.concatenate([frames, silence])
        return self._normalized(frames)

    def loudness(self, start: int, size: int) -> NDArray[np.float32]:
        """Mean raw log mel of each frame [size]: what is quiet and what is not."""
        mean: NDArray[np.float32] = self.raw(start, size).mean(axis=1, dtype=np.float32)
        return mean

    def is_digital_silence(self, start: int, size: int) -> bool:
        """Whether nothing at all sounds in these frames: not even the noise of the last bit."""
        return float(self.raw(start, size).max(initial=self._floor)) <= self._floor + DIGITAL_SILENCE

    def close(self) -> None:
        """Let go of the frames and of the temporary file."""
        self._blocks, self._starts = [], []
        if self._spool is not None:
            self._spool.close()

    def __enter__(self) -> LogMel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _normalized(self, frames: Features) -> Features:
        return self._normalize(np.ascontiguousarray(frames, np.float32), self.peak)

    def _move_to_file(self) -> None:
        self._spool = tempfile.TemporaryFile(prefix="rustasr-")  # noqa: SIM115 - closed by `close`
        for block in self._blocks:
            self._spool.write(np.ascontiguousarray(block, np.float32).data)
        self._blocks, self._starts = [], []

    def _read(self, start: int, stop: int) -> Features:
        assert self._spool is not None
        frames = np.empty((stop - start, self.n_mels), np.float32)
        self._spool.seek(start * self.n_mels * frames.itemsize)
        view = frames.data.cast("B")
        while view:
            n_read = self._spool.readinto(view)  # type: ignore[attr-defined]
            if not n_read:
                raise OSError("the temporary file with the spectrogram ended early")
            view = view[n_read:]
        self._spool.seek(0, 2)
        return frames


def read_log_mel(
    blocks: Iterable[NDArray[np.float32]],
    session: FeatureExtractor,
    metadata: Mapping[str, object],
    normalize: Callable[[Features, float], Features],
    *,
    memory_frames: int = MEMORY_FRAMES,
) -> tuple[LogMel, int]:
    """The spectrogram of a stream of 16 kHz blocks, and the number of samples in it.

    Each block is computed together with the samples that its first frame still needs, so the frames
    do not depend on where the blocks end. Zeros follow the last sample, as in openai-whisper.
    """
    n_fft, hop = _positive(metadata, "frontend.n_fft"), _positive(metadata, "frontend.hop_length")
    floor = math.log10(_real(metadata, "frontend.floor"))
    mel = LogMel(_positive(metadata, "frontend.n_mels"), normalize, floor=floor, memory_frames=memory_frames)
    stream = _FrameStream(session, mel, n_fft, hop)
    n_samples = 0
    try:
        for block in blocks:
            n_samples += len(block)
            stream.feed(block)
        # The last frame that hears a sample is centred up to n_fft/2 after it: two windows are plenty.
        stream.feed(np.zeros(2 * n_fft, np.float32))
        mel.finish(n_samples // hop)
    except BaseException:
        mel.close()
        raise
    return mel, n_samples


class _FrameStream:
    """Keeps the samples that the next frame needs. Frame t is centred on sample t * hop."""

    def __init__(self, session: FeatureExtractor, mel: LogMel, n_fft: int, hop: int) -> None:
        self._session, self._mel = session, mel
        self._n_fft, self._hop = n_fft, hop
        self._pending = np.empty(0, np.float32)
        self._at_start = True

    def feed(self, block: NDArray[np.float32]) -> None:
        samples = np.concatenate([self._pending, block]) if len(self._pending) else block
        if len(samples) < self._n_fft:
            self._pending = samples
            return
        samples = np.ascontiguousarray(samples, np.float32)
        frames = self._session.features(samples, self._at_start, False)
        self._mel.append(frames)
        # Without padding a block's first frame begins at its first sample; the first block alone is
        # padded on the left, where frame 0 is centred on sample 0.
        used = len(frames) * self._hop - (self._n_fft // 2 if self._at_start else 0)
        self._pending = samples[max(0, used) :].copy()
        self._at_start = False


def _positive(metadata: Mapping[str, object], key: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ModelFileError(f"metadata key {key}: expected a positive whole number, found {value!r}")
    return value


def _real(metadata: Mapping[str, object], key: str) -> float:
    value = metadata.get(key)
    if not isinstance(value, float) or not value > 0:
        raise ModelFileError(f"metadata key {key}: expected a number above 0, found {value!r}")
    return value


__all__ = ["FRAMES_PER_SECOND", "FeatureExtractor", "Features", "LogMel", "read_log_mel"]
