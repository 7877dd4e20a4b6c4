"""Audio: what goes in comes out as mono float32 at 16 kHz, whatever the container, rate or channels."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from rustasr import audio_readers
from rustasr.audio import SAMPLE_RATE, ArraySource, AudioSource, load_audio, open_audio
from rustasr.errors import AudioError, OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]


def tone(seconds: float, rate: int = SAMPLE_RATE, frequency: float = 440.0) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def encoded(samples: Any, rate: int = SAMPLE_RATE, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def peak_frequency(samples: Samples) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(middle))


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0.0),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ALAW", 2e-2),
        ("WAV", "ULAW", 2e-2),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("AIFF", "PCM_16", 1e-4),
        ("AU", "ULAW", 2e-2),
        ("CAF", "PCM_16", 1e-4),
        ("W64", "PCM_16", 1e-4),
        ("RF64", "PCM_16", 1e-4),
    ],
)
def test_containers_give_back_their_samples(kind: str, subtype: str, tolerance: float) -> None:
    samples = tone(0.5)
    decoded = load_audio(io.BytesIO(encoded(samples, kind=kind, subtype=subtype)))
    assert decoded.dtype == np.float32 and decoded.flags.c_contiguous
    assert decoded.shape == samples.shape
    assert np.abs(decoded - samples).max() <= tolerance


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_containers_keep_the_sound(kind: str, subtype: str) -> None:
    decoded = load_audio(io.BytesIO(encoded(tone(2.0), kind=kind, subtype=subtype)))
    assert abs(len(decoded) - 2 * SAMPLE_RATE) < 0.1 * SAMPLE_RATE
    assert peak_frequency(decoded) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    "rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000]
)
def test_every_rate_becomes_16_khz(rate: int) -> None:
    source = open_audio(io.BytesIO(encoded(tone(2.0, rate), rate)))
    assert source.duration == pytest.approx(2.0)
    decoded = np.concatenate(list(source.blocks(0.7)))
    assert abs(len(decoded) - 2 * SAMPLE_RATE) <= 1
    middle = slice(SAMPLE_RATE // 2, 3 * SAMPLE_RATE // 2)
    assert np.abs(decoded[middle] - tone(2.0)[middle]).max() < 2e-3


def test_blocks_have_the_asked_length_and_join_to_the_whole() -> None:
    data = encoded(tone(3.3, 44100), 44100)
    source = open_audio(io.BytesIO(data))
    blocks = list(source.blocks(1.0))
    assert [len(block) for block in blocks[:-1]] == [SAMPLE_RATE] * 3 and 0 < len(blocks[-1]) < SAMPLE_RATE
    assert np.array_equal(np.concatenate(blocks), load_audio(io.BytesIO(data)))
    again = list(source.blocks(1.0))
    assert all(np.array_equal(a, b) for a, b in zip(blocks, again, strict=True))


def test_channels_are_mixed_or_picked() -> None:
    left, right = tone(0.5, frequency=300), tone(0.5, frequency=800)
    data = encoded(np.stack([left, right], 1), subtype="FLOAT")
    assert np.allclose(load_audio(io.BytesIO(data)), (left + right) / 2, atol=1e-7)
    assert np.array_equal(load_audio(io.BytesIO(data), "left"), left)
    for channel in (1, "right", "1"):
        assert np.array_equal(load_audio(io.BytesIO(data), channel), right)
    with pytest.raises(AudioError, match=r"channel 2 .* has 2"):
        open_audio(io.BytesIO(data), 2)
    with pytest.raises(OptionError, match='expected "mix"'):
        open_audio(io.BytesIO(data), "middle")


def test_a_path_a_file_object_and_an_array_agree(tmp_path: Path) -> None:
    path = tmp_path / "söund file.wav"
    path.write_bytes(encoded(tone(1.0)))
    from_path = load_audio(path)
    assert np.array_equal(from_path, load_audio(str(path)))
    with path.open("rb") as file:
        assert np.array_equal(from_path, load_audio(file))
    assert np.array_equal(from_path, load_audio(from_path))
    source = ArraySource(from_path)
    assert open_audio(source) is source and isinstance(source, AudioSource)
    assert isinstance(open_audio(path), AudioSource)


def test_a_file_object_is_read_from_where_it_stands() -> None:
    file = io.BytesIO(b"header: " + encoded(tone(0.5)))
    file.seek(8)
    assert len(load_audio(file)) == SAMPLE_RATE // 2


class OneWay(io.RawIOBase):
    """A stream that cannot seek, as from a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def test_a_stream_that_cannot_seek_is_spooled() -> None:
    source = open_audio(OneWay(encoded(tone(0.5), kind="FLAC")))  # type: ignore[arg-type]
    assert len(np.concatenate(list(source.blocks(5)))) == SAMPLE_RATE // 2
    with pytest.raises(AudioError, match="0 bytes"):
        open_audio(OneWay(b""))  # type: ignore[arg-type]


def test_standard_input_is_read(tmp_path: Path) -> None:
    code = "from rustasr.audio import load_audio; print(len(load_audio('-')))"
    run = subprocess.run(
        [sys.executable, "-c", code], input=encoded(tone(0.5)), capture_output=True, check=True
    )
    assert int(run.stdout) == SAMPLE_RATE // 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(encoded(tone(0.5))))
    writer.start()
    assert len(load_audio(pipe)) == SAMPLE_RATE // 2
    writer.join()


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mkv", "a.webm", "a.aac"])
def test_media_containers_are_read_through_pyav(tmp_path: Path, name: str) -> None:
    av = pytest.importorskip("av", reason="the media extra is not installed")
    codec, rate = ("libopus", 48000) if name.endswith("webm") else ("aac", 44100)
    samples = (tone(2.0, rate) * 32767).astype(np.int16)
    with av.open(str(tmp_path / name), "w", format="adts" if name.endswith("aac") else None) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + 1024], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_audio(tmp_path / name)
    decoded = np.concatenate(list(source.blocks(1.0)))
    assert abs(len(decoded) - 2 * SAMPLE_RATE) < 0.15 * SAMPLE_RATE
    assert peak_frequency(decoded) == pytest.approx(440, abs=2)
    assert source.warnings == []
    cut = (tmp_path / name).read_bytes()
    (tmp_path / "cut").write_bytes(cut[: len(cut) // 2])
    try:
        source = open_audio(tmp_path / "cut")
        assert 0 < sum(map(len, source.blocks(1.0))) <= 2.2 * SAMPLE_RATE
    except AudioError as error:
        assert "cut" in str(error)


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "video.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    with pytest.raises(AudioError, match=r'pip install "rustasr\[media\]"'):
        open_audio(path)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the media extra is not installed")
    (tmp_path / "secret.wav").write_bytes(encoded(tone(1.0)))
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        encoding="utf-8",
    )
    (tmp_path / "list.ffconcat").write_text(
        f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n", encoding="utf-8"
    )
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(AudioError, match=name):
            open_audio(tmp_path / name)


# --- odd content: a result, a result with a warning, or an AudioError


def decode(data: bytes) -> tuple[Samples, list[str]]:
    source = open_audio(io.BytesIO(data))
    return np.concatenate(list(source.blocks(10))), source.warnings


def test_silence_and_one_sample_are_ordinary() -> None:
    assert not load_audio(io.BytesIO(encoded(np.zeros(1000)))).any()
    assert len(load_audio(io.BytesIO(encoded(np.ones(1) / 2)))) == 1


def test_nothing_to_decode_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="zero samples"):
        open_audio(io.BytesIO(encoded(np.zeros(0))))
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match="0 bytes"):
        open_audio(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match=r"missing\.wav.*cannot be opened"):
        open_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="directory"):
        open_audio(tmp_path)
    with pytest.raises(AudioError, match="cannot be opened"):
        open_audio("nul\0.wav")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG", "MP3", "AU"])
def test_a_truncated_file_gives_its_beginning_and_a_warning(kind: str) -> None:
    samples = tone(20.0) + 0.1 * np.random.default_rng(1).standard_normal(20 * SAMPLE_RATE).astype(np.float32)
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    whole = encoded(samples.clip(-1, 1), kind=kind, subtype=subtype)
    decoded, warnings = decode(whole[: len(whole) * 6 // 10])
    assert 9 * SAMPLE_RATE < len(decoded) < 13 * SAMPLE_RATE
    assert len(warnings) == 1 and "truncated" in warnings[0]
    assert decode(whole)[1] == []


def test_a_streamed_header_without_a_length_is_no_damage() -> None:
    data = bytearray(encoded(tone(1.0)))
    for length in (0xFFFFFFFF, 0x7FFFFFFF):
        data[4:8] = data[40:44] = length.to_bytes(4, "little")
        decoded, warnings = decode(bytes(data))
        assert len(decoded) == SAMPLE_RATE and warnings == []


def test_not_a_number_becomes_silence_and_huge_values_are_limited() -> None:
    samples = tone(0.1)
    samples[10:13] = [np.nan, np.inf, -np.inf]
    samples[20] = 1e30
    decoded, warnings = decode(encoded(samples, subtype="FLOAT"))
    assert np.isfinite(decoded).all() and not decoded[10:13].any() and decoded[20] == 32768
    assert np.array_equal(decoded[30:], samples[30:])
    assert len(warnings) == 2 and warnings[0].startswith("3 samples") and warnings[1].startswith("1 samples")
    source = ArraySource(samples)
    assert np.array_equal(np.concatenate(list(source.blocks(1))), decoded) and source.warnings == warnings
    assert np.isnan(samples[10])  # the caller's array is left alone


@pytest.mark.parametrize("rate", [1, 3999, 400000, 2**31 - 1])
def test_an_absurd_rate_is_an_error(rate: int) -> None:
    data = bytearray(encoded(tone(0.1)))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match=f"{rate} Hz"):
        open_audio(io.BytesIO(bytes(data)))


def test_arrays_must_be_mono_contiguous_float32() -> None:
    with pytest.raises(TypeError, match=r"int16.*astype"):
        open_audio(np.zeros(100, np.int16))
    with pytest.raises(TypeError, match="float64"):
        open_audio(np.zeros(100))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=r"shape \[100, 2\]"):
        open_audio(np.zeros((100, 2), np.float32))
    with pytest.raises(AudioError, match="contiguous"):
        open_audio(np.zeros(100, np.float32)[::2])
    with pytest.raises(AudioError, match="empty"):
        open_audio(np.zeros(0, np.float32))


def test_other_types_are_type_errors() -> None:
    with pytest.raises(TypeError, match="got int"):
        open_audio(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'rb'"):
        open_audio(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="block_s"):
        next(ArraySource(tone(1.0)).blocks(0))


def test_twenty_minutes_are_decoded_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 44100, 2) as file:
        minute = np.repeat(tone(60.0, 44100)[:, None], 2, 1)
        for _ in range(20):
            file.write(minute)
    code = (
        "import sys; from rustasr.audio import open_audio; from rustasr.system import peak_rss_bytes\n"
        "import soxr, soundfile; before = peak_rss_bytes()\n"
        "n = sum(len(b) for b in open_audio(sys.argv[1]).blocks(30)); print(n, peak_rss_bytes() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    samples, grown = map(int, run.stdout.split())
    assert abs(samples - 1200 * SAMPLE_RATE) <= 1
    assert grown < 40 * 2**20, f"{grown / 2**20:.0f} MiB for 73 MiB of samples, of which one block takes 2"


class SlowFile(io.BytesIO):
    """A file of slow reads, which are counted."""

    n_begun = n_done = 0

    def readinto(self, buffer: Any) -> int:
        self.n_begun += 1
        time.sleep(0.02)
        n_bytes = super().readinto(buffer)
        self.n_done += 1
        return n_bytes


def test_a_block_is_decoded_while_the_one_before_is_used() -> None:
    file = SlowFile(encoded(tone(60.0)))
    blocks = open_audio(file).blocks(10.0)
    next(blocks)
    known, deadline = file.n_done, time.monotonic() + 5.0
    while file.n_done == known and time.monotonic() < deadline:
        time.sleep(0.01)
    assert file.n_done > known, "nobody asked for the next block, but it is being read"


@pytest.mark.parametrize("stereo", [False, True])
def test_a_file_is_closed_when_nobody_reads_it_any_more(
    stereo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[int] = []
    close = audio_readers.SoundFileReader.__exit__

    def watched(reader: Any, *error: Any) -> None:
        under_way.append(file.n_begun - file.n_done)
        close(reader, *error)

    samples = tone(60.0)
    file = SlowFile(encoded(np.stack([samples, samples], 1) if stereo else samples))
    source: Any = open_audio(file)
    monkeypatch.setattr(audio_readers.SoundFileReader, "__exit__", watched)
    blocks = source.pairs(10.0) if stereo else source.blocks(10.0)
    next(blocks)
    time.sleep(0.05)  # the next block is being read
    blocks.close()
    assert under_way == [0]
