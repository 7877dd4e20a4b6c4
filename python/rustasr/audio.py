"""Recordings in, mono float32 at 16 kHz out: the one place that decodes, mixes and resamples.

`open_audio` gives an `AudioSource`, whose `blocks` decode as a stream, so that a ten-hour file needs
no ten-hour array. `load_audio` gives the whole signal as one array.

What odd input does, in one place:

- missing file, directory, empty file, no audio inside, no samples, a rate outside 4 to 384 kHz: AudioError;
- silence, or a single sample: an ordinary source;
- a truncated or damaged file: what can be decoded, with a line in `warnings`;
- NaN and infinite samples become 0, samples beyond ±32768 are limited, with a line in `warnings`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import AudioError, OptionError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from rustasr.audio_readers import Reader

SAMPLE_RATE = 16000
MIN_RATE, MAX_RATE = 4000, 384000
SAMPLE_LIMIT = 32768.0  # int16 full scale, for float files that were written without scaling

Samples: TypeAlias = NDArray[np.float32]
Channel: TypeAlias = int | str | None


@runtime_checkable
class AudioSource(Protocol):
    """A recording as a stream of mono float32 samples at 16 kHz.

    `duration` is in seconds: what the header says (None when it does not), and after `blocks` has run
    to the end what was really decoded. `warnings` is filled by `blocks`.
    """

    name: str
    sample_rate: int
    duration: float | None
    warnings: list[str]

    def blocks(self, block_s: float) -> Iterator[Samples]:
        """Decode from the beginning: blocks of float32 [block_s * 16000], the last one shorter."""
        ...


AudioInput: TypeAlias = "str | os.PathLike[str] | IO[bytes] | Samples | AudioSource"


def open_audio(audio: AudioInput, channel: Channel = None) -> AudioSource:
    """Open a recording, checking at once that it can be decoded.

    `audio` is a path, "-" for standard input, a binary file object, a float32 array [n] at 16 kHz, or
    an AudioSource, which is returned as it is. `channel` picks one channel (an index from 0, "left" or
    "right"); None or "mix" averages all of them.

    Raises AudioError when it is not readable audio, OptionError for a bad `channel`, TypeError when
    `audio` is of another type or an array of another dtype.
    """
    index = _channel_index(channel)
    if isinstance(audio, np.ndarray):
        return ArraySource(audio)
    if isinstance(audio, AudioSource):
        return audio
    if isinstance(audio, str) and audio == "-":
        return FileSource(_spool(sys.stdin.buffer, "standard input"), "standard input", index)
    if isinstance(audio, (str, os.PathLike)):
        return _open_path(Path(audio), index)
    if hasattr(audio, "read"):
        name = getattr(audio, "name", None)
        name = name if isinstance(name, str) else "file object"
        return FileSource(_seekable(audio, name), name, index)
    raise TypeError(
        "expected a path, '-', a binary file object, a float32 array or an AudioSource; "
        f"got {type(audio).__name__}"
    )


def load_audio(audio: AudioInput, channel: Channel = None) -> Samples:
    """The whole recording as float32 [n_samples], mono, 16 kHz. Arguments and errors as `open_audio`."""
    blocks = list(open_audio(audio, channel).blocks(30.0))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class ArraySource:
    """Samples that are in memory already: float32 [n], mono, 16 kHz. Blocks are views of them."""

    sample_rate = SAMPLE_RATE

    def __init__(self, samples: Samples, name: str = "array") -> None:
        if samples.dtype != np.float32:
            raise TypeError(
                f"expected float32 samples between -1 and 1, got an array of {samples.dtype}; "
                "convert it first, int16 for instance with x.astype(np.float32) / 32768"
            )
        if samples.ndim != 1:
            raise AudioError(
                f"expected mono samples of shape [n] at 16 kHz, got shape {list(samples.shape)}; "
                "average the channels or take one of them"
            )
        if not samples.flags.c_contiguous:
            raise AudioError(
                "expected C-contiguous samples, got a strided view; pass np.ascontiguousarray(x)"
            )
        if samples.size == 0:
            raise AudioError("expected samples, got an empty array")
        self.name = name
        self.warnings: list[str] = []
        self.duration: float | None = samples.size / SAMPLE_RATE
        self._samples = samples

    def blocks(self, block_s: float) -> Iterator[Samples]:
        size = _block_size(block_s)
        self.warnings.clear()
        cleaner = _Cleaner()
        for start in range(0, self._samples.size, size):
            yield cleaner(self._samples[start : start + size])
        self.warnings += cleaner.warnings()


class StereoArray(ArraySource):
    """Two channels that are in memory already: float32 [n, 2] at 16 kHz. `blocks` are their mean."""

    is_stereo = True

    def __init__(self, samples: Samples, name: str = "array") -> None:
        if samples.ndim != 2 or samples.shape[1] != 2:
            raise AudioError(f"expected samples of shape [n, 2] at 16 kHz, got {list(samples.shape)}")
        super().__init__(samples.mean(axis=1, dtype=samples.dtype), name)
        self._sides = tuple(ArraySource(np.ascontiguousarray(samples[:, i]), name) for i in (0, 1))

    def side(self, channel: int) -> ArraySource:
        """One channel by itself, 0 or 1."""
        return self._sides[channel]

    def pairs(self, block_s: float) -> Iterator[tuple[Samples, Samples]]:
        """Blocks of both channels."""
        return zip(self._sides[0].blocks(block_s), self._sides[1].blocks(block_s), strict=True)


class FileSource:
    """A file, decoded anew by every call of `blocks`. `file` is a path, or a binary file that can seek."""

    sample_rate = SAMPLE_RATE

    def __init__(self, file: Path | IO[bytes], name: str, channel: int | None = None) -> None:
        self.name = name
        self.warnings: list[str] = []
        self._file = file
        self._channel = channel
        with self._open() as reader:
            self.rate, self.channels, self.format = reader.rate, reader.channels, reader.format
            n_frames = reader.frames
        self._check()
        self.duration = None if n_frames is None else n_frames / self.rate
        if n_frames == 0:
            raise AudioError(f"{name}: {self.format} of zero samples: nothing to transcribe")

    @property
    def channel(self) -> int | None:
        """The channel that is heard; None: all of them mixed."""
        return self._channel

    def raw(self) -> AbstractContextManager[IO[bytes]]:
        """The file's own bytes, from the beginning."""
        if isinstance(self._file, Path):
            return self._file.open("rb")
        self._file.seek(0)
        return nullcontext(self._file)

    def _open(self) -> Reader:
        from rustasr.audio_readers import open_reader

        if not isinstance(self._file, Path):
            self._file.seek(0)
        return open_reader(self._file, self.name)

    def _check(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise AudioError(
                f"{self.name}: expected a sample rate of {MIN_RATE} to {MAX_RATE} Hz, "
                f"found {self.rate} Hz in the header; the header is damaged or this is not speech"
            )
        if self._channel is not None and self._channel >= self.channels:
            raise AudioError(
                f"{self.name}: channel {self._channel} was asked for (counted from 0), "
                f"but the file has {self.channels}; leave the channel out to mix all of them"
            )

    def blocks(self, block_s: float) -> Iterator[Samples]:
        size = _block_size(block_s)
        self.warnings.clear()
        cleaner, total = _Cleaner(), 0
        with self._open() as reader:
            decoded = rebatch(_resampled(self._mono(reader, cleaner), reader.rate), size)
            with closing(_ahead(decoded)) as blocks:
                for block in blocks:
                    total += block.size
                    yield block
            self.warnings += reader.warnings + cleaner.warnings()
        if total == 0:
            raise AudioError(
                f"{self.name}: {self.format} of which not one sample could be decoded; the file is damaged"
            )
        self.duration = total / SAMPLE_RATE

    @property
    def is_stereo(self) -> bool:
        """Whether two channels or more are mixed by `blocks`."""
        return self.channels > 1 and self._channel is None

    def side(self, channel: int) -> FileSource:
        """The same file, of which one channel is heard. Not to be read while another source of it is."""
        return FileSource(self._file, self.name, channel)

    def pairs(self, block_s: float) -> Iterator[tuple[Samples, Samples]]:
        """Blocks of the first two channels apart, decoded at once; AudioError for a mono file."""
        if self.channels < 2:
            raise AudioError(f"{self.name}: expected at least two channels, found one")
        cleaner = _Cleaner()
        with self._open() as reader:
            chunks = (cleaner(chunk)[:, :2] for chunk in reader.chunks())
            decoded = rebatch(_resampled(chunks, reader.rate, 2), _block_size(block_s))
            with closing(_ahead(decoded)) as blocks:
                for block in blocks:
                    yield np.ascontiguousarray(block[:, 0]), np.ascontiguousarray(block[:, 1])

    def _mono(self, reader: Reader, cleaner: _Cleaner) -> Iterator[Samples]:
        for chunk in reader.chunks():  # [frames, channels]
            chunk = cleaner(chunk)
            if chunk.shape[1] == 1:
                yield chunk[:, 0]
            elif self._channel is not None:
                yield np.ascontiguousarray(chunk[:, self._channel])
            else:
                yield chunk.mean(axis=1, dtype=np.float32)


class _Cleaner:
    """Makes samples finite and sane, and counts what it had to change."""

    def __init__(self) -> None:
        self.not_finite = 0
        self.limited = 0

    def __call__(self, samples: Samples) -> Samples:
        """The same array when there is nothing to change, a cleaned copy otherwise."""
        # The peak decides for the common case: NaN and infinity both make this comparison false.
        if samples.size == 0 or max(float(samples.max()), -float(samples.min())) <= SAMPLE_LIMIT:
            return samples
        finite = np.isfinite(samples)
        self.not_finite += int(samples.size - np.count_nonzero(finite))
        samples = np.where(finite, samples, np.float32(0))
        self.limited += int(np.count_nonzero(np.abs(samples) > SAMPLE_LIMIT))
        return np.clip(samples, -SAMPLE_LIMIT, SAMPLE_LIMIT)

    def warnings(self) -> list[str]:
        found = []
        if self.not_finite:
            found.append(f"{self.not_finite} samples were NaN or infinite and were replaced by silence")
        if self.limited:
            found.append(f"{self.limited} samples were beyond ±{SAMPLE_LIMIT:.0f} and were limited")
        return found


def _resampled(chunks: Iterable[Samples], rate: int, n_channels: int = 1) -> Iterator[Samples]:
    """soxr's high-quality stream resampler: any rate in, 16 kHz out. Chunks are [n] or [n, n_channels]."""
    if rate == SAMPLE_RATE:
        yield from chunks
        return
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, n_channels, dtype="float32", quality="HQ")
    for chunk in chunks:
        yield stream.resample_chunk(np.ascontiguousarray(chunk))
    nothing = np.zeros(0 if n_channels == 1 else (0, n_channels), np.float32)
    yield stream.resample_chunk(nothing, last=True)


def rebatch(chunks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Chunks [n, ...] of any length in; arrays of exactly `size` samples out, the last one shorter."""
    block, filled = np.empty(0, np.float32), 0
    for chunk in chunks:
        while len(chunk):
            if not filled:
                block = np.empty((size, *chunk.shape[1:]), np.float32)
            taken = min(size - filled, len(chunk))
            block[filled : filled + taken] = chunk[:taken]
            filled, chunk = filled + taken, chunk[taken:]
            if filled == size:
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _ahead(blocks: Iterator[Samples]) -> Generator[Samples]:
    """The same blocks; each is decoded in another thread while who reads them is busy with the one before.

    To be closed before the file is: it may be decoding.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block


def _block_size(block_s: float) -> int:
    size = round(block_s * SAMPLE_RATE)
    if not 1 <= size <= 3600 * SAMPLE_RATE:
        raise OptionError(f"block_s: expected more than 0 and at most 3600 seconds, got {block_s}")
    return size


def _channel_index(channel: Channel) -> int | None:
    """None for the mixture, otherwise the index from 0."""
    named = {None: None, "mix": None, "left": 0, "right": 1}
    if channel in named:
        return named[channel]
    if isinstance(channel, str) and channel.isdecimal():
        channel = int(channel)
    if isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0:
        return channel
    raise OptionError(f'channel: expected "mix", "left", "right" or an index from 0, got {channel!r}')


def _open_path(path: Path, channel: int | None) -> AudioSource:
    name = str(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise AudioError(f"{name}: expected an audio file, but it cannot be opened: {error}") from error
    if S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: expected an audio file, found a directory; name the files in it")
    if S_ISFIFO(status.st_mode):
        with path.open("rb") as pipe:
            return FileSource(_spool(pipe, name), name, channel)
    if not S_ISREG(status.st_mode):
        raise AudioError(f"{name}: expected an audio file, found a device or socket")
    if status.st_size == 0:
        raise AudioError(f"{name}: expected an audio file, found an empty file (0 bytes)")
    return FileSource(path, name, channel)


def _seekable(file: Any, name: str) -> IO[bytes]:
    """`file` itself when it can seek and stands at its beginning, else a copy of what it still gives."""
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable() and file.tell() == 0:
        if isinstance(file.read(0), str):
            raise TypeError("expected a binary file object, got a text one; open it with mode 'rb'")
        return cast("IO[bytes]", file)
    return _spool(file, name)


def _spool(file: Any, name: str) -> IO[bytes]:
    """Copy a stream that cannot seek to a temporary file on disk, which vanishes when it is closed."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its FileSource
    try:
        shutil.copyfileobj(file, spool, 1 << 20)
    except TypeError as error:
        raise TypeError("expected a binary file object, got a text one; open it with mode 'rb'") from error
    except OSError as error:
        raise AudioError(f"{name}: could not be read to its end: {error}") from error
    if spool.tell() == 0:
        raise AudioError(f"{name}: expected audio, found nothing (0 bytes)")
    spool.seek(0)
    return spool


__all__ = [
    "SAMPLE_RATE",
    "ArraySource",
    "AudioInput",
    "AudioSource",
    "FileSource",
    "StereoArray",
    "load_audio",
    "open_audio",
]
