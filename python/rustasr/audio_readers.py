"""The two decoders behind `rustasr.audio`: libsndfile, and FFmpeg through PyAV for the rest.

A reader gives float32 chunks [frames, channels] at the file's own rate. Damage in the middle ends the
stream with a warning, it does not raise: what was decoded before it is worth keeping.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

Samples: TypeAlias = NDArray[np.float32]
File: TypeAlias = Path | IO[bytes]

CHUNK_VALUES = 1 << 17  # samples over all channels in one chunk: half a megabyte
MAX_CHANNELS = 64
UNKNOWN_FRAMES = 1 << 46  # libsndfile reports 2**63-1 when a header does not say; so does a damaged one

TRUNCATED = "the file is truncated: it is shorter than its header says, and what is there was used"

# FFmpeg is let at containers only: a playlist could make it open other files.
MEDIA_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,dts,asf,avi,flv,mpegts,mpeg,amr,ape,wv,tta,tak,caf,"
    "wav,w64,aiff,au,flac,mp3,ogg,dsf,mpc,mpc8,rm,truehd,loas,latm,gsm"
)


class Reader(Protocol):
    """One opened file. `frames` is None when the container does not say how long it is."""

    rate: int
    channels: int
    frames: int | None
    format: str
    warnings: list[str]

    def chunks(self) -> Iterator[Samples]: ...

    def __enter__(self) -> Reader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_reader(file: File, name: str) -> Reader:
    """The first decoder that takes the file; AudioError when none does."""
    import soundfile

    try:
        return SoundFileReader(file, name)
    except (soundfile.SoundFileError, TypeError, RuntimeError) as error:
        refusal = _reason(error)
    header = _first_bytes(file)
    try:
        return PyAvReader(file, name)
    except ModuleNotFoundError as error:
        raise AudioError(_not_installed(name, header, refusal)) from error
    except AudioError as error:
        raise AudioError(f"{error} libsndfile: {refusal}; the file begins with {header!r}.") from error


class SoundFileReader:
    """WAV, FLAC, Ogg, Opus, MP3, AIFF, CAF, AU and whatever else libsndfile reads."""

    def __init__(self, file: File, name: str) -> None:
        import soundfile

        self._source = file
        self._file = soundfile.SoundFile(str(file) if isinstance(file, Path) else file)
        self.name = name
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.format = f"{self._file.format} ({self._file.subtype})"
        frames: int = self._file.frames
        self.frames = frames if 0 <= frames < UNKNOWN_FRAMES else None
        self.warnings = [] if not _cut_short(self._file.extra_info) else [TRUNCATED]
        if not 1 <= self.channels <= MAX_CHANNELS:
            self._file.close()
            raise AudioError(
                f"{name}: expected 1 to {MAX_CHANNELS} channels, found {self.channels} in the header"
            )

    def chunks(self) -> Iterator[Samples]:
        import soundfile

        n_frames, done = CHUNK_VALUES // self.channels, 0
        while True:
            chunk = np.zeros((n_frames, self.channels), np.float32)
            try:
                read: Samples = self._file.read(out=chunk)
            except (soundfile.SoundFileError, RuntimeError) as error:
                # Frames before the damage are in the buffer already; the rest of it is zero.
                voiced = np.flatnonzero(chunk.any(axis=1))
                done += int(voiced[-1]) + 1 if voiced.size else 0
                self.warnings.append(_damaged(done / self.rate, _reason(error)))
                if voiced.size:
                    yield chunk[: voiced[-1] + 1]
                return
            done += len(read)
            if len(read):
                yield read
            if len(read) < n_frames:
                break
        if self.frames is not None and done < self.frames and not self.warnings:
            self.warnings.append(f"{TRUNCATED}: {done} of {self.frames} frames")
        elif self.format.startswith("OGG") and not self.warnings and not _ogg_is_complete(self._source):
            self.warnings.append(TRUNCATED)

    def __enter__(self) -> SoundFileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class PyAvReader:
    """M4A, MP4, WebM, MKV and the rest of FFmpeg's containers; needs the `media` extra."""

    def __init__(self, file: File, name: str) -> None:
        import av

        self.name = name
        self.warnings: list[str] = []
        self._own = file.open("rb") if isinstance(file, Path) else None
        whitelist = {"format_whitelist": MEDIA_FORMATS, "protocol_whitelist": "none"}
        try:
            self._container: Any = av.open(self._own or file, options=whitelist)
        except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
            self._close_own()
            raise AudioError(_not_audio(name, _reason(error))) from error
        try:
            self._open_stream()
        except (av.FFmpegError, ValueError, StopIteration) as error:
            self.__exit__()
            raise AudioError(_not_audio(name, _reason(error))) from error
        except AudioError:
            self.__exit__()
            raise

    def _open_stream(self) -> None:
        if not self._container.streams.audio:
            raise AudioError(f"{self.name}: a {self._container.format.name} file without an audio track")
        self._stream = self._container.streams.audio[0]
        self._damaged_packets = 0
        self._decoded = self._decode()
        # The header may be wrong about rate and channels (HE-AAC is): the first frame is not.
        self._first = next(self._decoded)
        self.rate: int = self._first.sample_rate
        self.channels: int = len(self._first.layout.channels)
        self.format = f"{self._container.format.name} ({self._stream.codec_context.name})"
        seconds = self._seconds()
        self.frames = round(seconds * self.rate) if 0 < seconds < 1e7 else None

    def _seconds(self) -> float:
        """What the headers say; 0 when they do not."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return float((self._container.duration or 0) / 1e6)

    def chunks(self) -> Iterator[Samples]:
        import av

        done = 0
        try:
            for chunk in self._converted():
                done += len(chunk)
                yield chunk
        except (av.FFmpegError, ValueError) as error:
            self.warnings.append(_damaged(done / self.rate, _reason(error)))
        if self._damaged_packets:
            self.warnings.append(f"{self._damaged_packets} damaged packets of the file were left out")
        # Lengths in these headers are rounded, so only a real loss counts.
        if self.frames is not None and not self.warnings and self.frames - done > max(self.rate, done // 20):
            self.warnings.append(TRUNCATED)

    def _converted(self) -> Iterator[Samples]:
        """Frames as float32 [n, channels] of the first frame's rate and layout.

        Packed samples, since PyAV reads beyond a planar frame that has more than eight channels. A
        resampler fits one kind of frame and may not notice another, so each change gets a new one.
        """
        import av

        kind: tuple[str, str, int] | None = None
        resampler: Any = None
        for frame in chain([self._first], self._decoded):
            if kind != (frame.format.name, frame.layout.name, frame.sample_rate):
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                resampler = av.AudioResampler(format="flt", layout=self._first.layout, rate=self.rate)
            try:
                packed = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                self._damaged_packets += 1
                kind = None
                continue
            for chunk in packed:
                samples: Any = chunk.to_ndarray()
                yield samples.reshape(-1, self.channels)

    def _decode(self) -> Iterator[Any]:
        """All frames; a damaged packet is counted and left out."""
        import av

        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                self._damaged_packets += 1

    def _close_own(self) -> None:
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> PyAvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._close_own()


def _cut_short(log: str) -> bool:
    """Does libsndfile's log say that a chunk is longer than the file?

    A size of nearly 2**31 or 2**32 was written by a program that streamed to a pipe and could not
    know the length: that is not damage.
    """
    sizes = re.findall(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return any(int(found) < int(claimed) < 0x7FFF0000 for claimed, found in sizes)


def _ogg_is_complete(file: File) -> bool:
    """Does the last page carry the end-of-stream flag (RFC 3533, section 6: header type bit 4)?"""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _ogg_is_complete(opened)
    end = file.seek(0, 2)
    file.seek(max(0, end - 65536))  # a page is at most 65307 bytes
    tail = file.read(65536)
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


def _damaged(seconds: float, reason: str) -> str:
    return f"the file is truncated or damaged: what comes before {seconds:.2f} s was used ({reason})"


def _reason(error: BaseException) -> str:
    import soundfile

    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().removeprefix("Error : ") or f"libsndfile error {error.code}"
    system = getattr(error, "strerror", None)
    return str(system or error).strip() or type(error).__name__


def _first_bytes(file: File) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(16)
    file.seek(0)
    header = file.read(16)
    file.seek(0)
    return header


def _not_audio(name: str, reason: str) -> str:
    return (
        f"{name}: expected audio or video, but no decoder knows it ({reason}). Is it a recording, and "
        "complete? If a player opens it, convert it first: ffmpeg -i IN -ar 16000 -ac 1 OUT.wav."
    )


def _not_installed(name: str, header: bytes, refusal: str) -> str:
    return (
        f"{name}: expected a format that libsndfile reads (WAV, FLAC, Ogg, Opus, MP3, AIFF), found first "
        f"bytes {header!r} ({refusal}). M4A, MP4, WebM, MKV and others need PyAV: "
        'pip install "rustasr[media]"'
    )
