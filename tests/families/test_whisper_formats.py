"""The same words whatever the recording is stored in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import wer
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
Asr = Callable[[str, str], Any]

# name: (sample rate, channels, soundfile subtype)
FORMATS = {
    "same.wav": (16000, 1, "PCM_16"),
    "float.wav": (16000, 1, "FLOAT"),
    "24bit.flac": (16000, 1, "PCM_24"),
    "lossy.mp3": (16000, 1, None),
    "cd.wav": (44100, 2, "PCM_16"),
    "video.flac": (48000, 2, "PCM_16"),
    "opus.ogg": (48000, 1, "OPUS"),
    "phone.wav": (8000, 1, "ALAW"),
}


@pytest.fixture(scope="module")
def recordings(jfk_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """jfk.flac once in every format."""
    folder, pcm, out = tmp_path_factory.mktemp("formats"), goldens.samples(jfk_path), {}
    for name, (rate, channels, subtype) in FORMATS.items():
        data = pcm if rate == 16000 else soxr.resample(pcm, 16000, rate, "VHQ")
        out[name] = folder / name
        soundfile.write(out[name], np.stack([data] * channels, axis=1), rate, subtype=subtype)
    return out


@pytest.mark.parametrize("name", FORMATS)
def test_same_words_from_every_format(
    name: str, recordings: dict[str, Path], asr: Asr, jfk_path: Path
) -> None:
    model = asr("base", "f32")
    wanted = model.transcribe(jfk_path, language="en")
    if FORMATS[name][0] == 8000:
        # Without what lies above 4 kHz base hears "America asked", openai-whisper as well: the standard is
        # the same band without A-law.
        narrow = soxr.resample(goldens.samples(jfk_path), 16000, 8000, "VHQ")
        wanted = model.transcribe(soxr.resample(narrow, 8000, 16000, "VHQ"), language="en")
    found = model.transcribe(recordings[name], language="en")
    assert wer.normalize(found.text) == wer.normalize(wanted.text)
    assert found.duration == pytest.approx(wanted.duration, abs=0.1)


@pytest.mark.parametrize("name", ["same.wav", "float.wav", "24bit.flac"])
def test_lossless_copies_give_the_very_same_result(
    name: str, recordings: dict[str, Path], asr: Asr, jfk_path: Path
) -> None:
    model = asr("tiny.en", "f32")
    first, second = (model.transcribe(path) for path in (jfk_path, recordings[name]))
    assert first.segments == second.segments


def test_an_array_equals_the_file(asr: Asr, jfk_path: Path) -> None:
    model = asr("tiny.en", "f32")
    assert model.transcribe(goldens.samples(jfk_path)).segments == model.transcribe(jfk_path).segments


def test_a_file_object_equals_the_file(asr: Asr, jfk_path: Path) -> None:
    model = asr("tiny.en", "f32")
    with jfk_path.open("rb") as file:
        assert model.transcribe(file).segments == model.transcribe(jfk_path).segments
