"""Damaged recordings: a typed error or a result each, in a process that survives, quickly and small.

Files are made by damaging good ones; the process that opens them is a child, so that a crash of a
decoder shows as a failure here.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = """
import json, sys, time
import numpy, soundfile, soxr
from rustasr.audio import open_audio
from rustasr.errors import AudioError
from rustasr.system import peak_rss_bytes
for path in sys.stdin.read().split("\\n"):
    start = time.perf_counter()
    try:
        source = open_audio(path)
        n = 0
        for block in source.blocks(30):
            assert block.dtype == numpy.float32 and numpy.isfinite(block).all()
            n += len(block)
        outcome = f"{n} samples"
    except AudioError as error:
        assert len(str(error)) > 30, error
        outcome = f"AudioError: {error}"
    print(json.dumps([path, outcome, time.perf_counter() - start, peak_rss_bytes()]), flush=True)
"""


def good_files() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    samples = (0.2 * rng.standard_normal(16000)).clip(-1, 1)
    kinds = {
        "wav": ("WAV", "PCM_16"),
        "float.wav": ("WAV", "FLOAT"),
        "flac": ("FLAC", "PCM_16"),
        "ogg": ("OGG", "VORBIS"),
        "opus": ("OGG", "OPUS"),
        "mp3": ("MP3", "MPEG_LAYER_III"),
        "aiff": ("AIFF", "PCM_16"),
    }
    files = {}
    for name, (kind, subtype) in kinds.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16000, format=kind, subtype=subtype)
        files[name] = buffer.getvalue()
    return files


def media_files() -> dict[str, bytes]:
    """What PyAV reads, where it is installed: three seconds of noise in each container."""
    try:
        import av
    except ModuleNotFoundError:
        return {}
    samples = (np.random.default_rng(5).standard_normal(48000) * 3000).astype(np.int16)
    files = {}
    for name, codec, container_format in (
        ("aac", "aac", "adts"),
        ("m4a", "aac", "mp4"),
        ("mkv", "aac", "matroska"),
        ("webm", "libopus", "webm"),
    ):
        rate = 48000 if codec == "libopus" else 16000
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container_format) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.layout = "mono"
            for start in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(
                    samples[None, start : start + 1024], format="s16", layout="mono"
                )
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        files[name] = buffer.getvalue()
    return files


def with_thirteen_channels(aac: bytes, at: int) -> bytes:
    """An ADTS stream in which frame `at` declares 13 channels (ISO/IEC 14496-3, program_config_element).

    PyAV hands such a frame through a mono resampler as it is and reads beyond its planes.
    """
    element = "1010000011000110100000000000000000000"
    element += "".join(f"0{tag:04b}" for tag in range(13))
    element += "0" * (-len(element) % 8) + "00000000"
    out, position, index = bytearray(), 0, 0
    while position + 7 < len(aac):
        header = bytearray(aac[position : position + 7])
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        body = aac[position + 7 : position + size]
        if index == at:
            body = int(element, 2).to_bytes(len(element) // 8, "big") + body
        length = len(body) + 7
        header[3] = header[3] & 0xFC | length >> 11
        header[4] = length >> 3 & 255
        header[5] = header[5] & 31 | (length & 7) << 5
        out += header + body
        position, index = position + size, index + 1
    return bytes(out)


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def wav_damage(wav: bytes) -> Iterator[tuple[str, bytes]]:
    """Offsets of a canonical 44-byte header."""
    fields = {
        "form": (8, [b"AVI ", b"\0\0\0\0"]),
        "riff-size": (4, [b"\0\0\0\0", b"\xff\xff\xff\xff"]),
        "fmt-size": (16, [b"\0\0\0\0", b"\x01\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"]),
        "codec": (20, [b"\0\0", b"\x55\0", b"\x61\x01", b"\xff\xff"]),
        "channels": (22, [b"\0\0", b"\xff\xff", b"\x41\0"]),
        "rate": (24, [b"\0\0\0\0", b"\x01\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"]),
        "block": (32, [b"\0\0", b"\xff\xff"]),
        "bits": (34, [b"\0\0", b"\x07\0", b"\xff\xff"]),
        "data-tag": (36, [b"junk"]),
        "data-size": (40, [b"\0\0\0\0", b"\x01\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"]),
    }
    for name, (at, values) in fields.items():
        for index, value in enumerate(values):
            yield f"{name}-{index}.wav", patched(wav, at, value)


def damaged_files() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(4)
    good = good_files()
    for name, data in good.items():
        for cut in (1, 4, 12, 44, 100, len(data) // 2, len(data) - 1):
            yield f"cut{cut}.{name}", data[:cut]
        for seed in range(3):
            flips = bytearray(data)
            for at in rng.integers(4, 200 if seed < 2 else len(data), 12):
                flips[at] ^= int(rng.integers(1, 256))
            yield f"flips{seed}.{name}", bytes(flips)
        yield f"hole.{name}", patched(data, len(data) // 3, bytes(len(data) // 4))
    yield from wav_damage(good["wav"])
    media = media_files()
    if media:
        yield "thirteen.aac", with_thirteen_channels(media["aac"], 14)
    for name, data in media.items():
        for cut in (100, len(data) // 2):
            yield f"cut{cut}.{name}", data[:cut]
        for seed in range(40):
            flips = bytearray(data)
            for at in rng.integers(0, 300 if seed % 4 == 0 else len(data), 15):
                flips[at] = int(rng.choice([0, 127, 128, 255, int(rng.integers(256))]))
            yield f"media{seed}.{name}", bytes(flips)
    flac = good["flac"]
    yield "rate0.flac", patched(flac, 18, b"\0\0\0")
    yield "total.flac", patched(flac, 21, b"\xff\xff\xff\xff\xff")
    yield "huge-metadata.flac", patched(flac, 5, b"\xff\xff\xff")
    yield "zeros.wav", bytes(5000)
    yield "ones.mp3", b"\xff" * 5000
    yield "random.mp3", rng.bytes(20000)
    yield "random.bin", rng.bytes(20000)
    yield "text.txt", b"This is not a recording.\n" * 50
    yield "page.html", b"<!doctype html><title>404</title>" * 20
    yield "image.png", b"\x89PNG\r\n\x1a\n" + rng.bytes(2000)
    yield "archive.zip", b"PK\x03\x04" + rng.bytes(2000)
    yield "tag.mp3", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100)
    yield "box.mp4", b"\xff\xff\xff\xffftypisom" + rng.bytes(2000)
    yield "box.mkv", b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" + rng.bytes(2000)
    yield "headerless.raw", rng.bytes(3200)


FILES = dict(damaged_files())


@pytest.mark.skipif(sys.platform == "win32", reason="memory of a child is read the POSIX way")
def test_damaged_files_end_in_an_audio_error_or_a_result(tmp_path: Path) -> None:
    assert len(FILES) >= 100
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    paths = "\n".join(str(tmp_path / name) for name in FILES)
    run = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=paths,
        capture_output=True,
        text=True,
        timeout=240,
        env=dict(os.environ),
    )
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    done = [Path(report[0]).name for report in reports]
    assert run.returncode == 0 and done == list(FILES), f"died after {done[-1:]}: {run.stderr[-2000:]}"
    limit = 2**30 if "RUSTASR_SANITIZED" in os.environ else 200 * 2**20  # the sanitizer keeps freed memory
    for path, outcome, seconds, peak in reports:
        assert seconds < 2, (path, outcome, seconds)
        assert peak < limit, (path, outcome, peak)
    errors = [outcome for _, outcome, _, _ in reports if outcome.startswith("AudioError")]
    assert 50 <= len(errors) < len(FILES)
