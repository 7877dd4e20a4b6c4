"""The command line's voice activity detection: which detector, with what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_model import EchoModel  # tests/helpers
from click.testing import CliRunner, Result

from rustasr import model as model_module
from rustasr.cli import main
from rustasr.vad import SileroOptions, WebRtcOptions


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> EchoModel:
    model = EchoModel()
    monkeypatch.setattr(model_module, "load_model", lambda *_, **__: model)
    return model


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The detectors that were asked for, with their options; none is really made."""
    asked: list[tuple[str, Any]] = []

    def load(name: str, options: Any) -> object:
        asked.append((name, options))
        return object()

    monkeypatch.setattr("rustasr.vad.load_vad", load)
    return asked


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.full(16000, 0.1), 16000)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["transcribe", *map(str, arguments)])


def test_no_detector_unless_one_is_named(echo: EchoModel, talk: Path, loaded: list[Any]) -> None:
    assert run(talk).exit_code == 0
    assert loaded == []
    assert "vad" not in echo.calls[0]


def test_the_parameters_reach_the_detector(echo: EchoModel, talk: Path, loaded: list[Any]) -> None:
    flags = "--vad-mode 3 --vad-frame-ms 10 --min-speech-ms 90 --min-silence-ms 500 --pad-ms 0"
    assert run(talk, "--vad", "webrtc", *flags.split(), "--max-segment-s", 12).exit_code == 0
    flags = "--vad-threshold 0.6 --min-speech-ms 90 --min-silence-ms 500 --pad-ms 0 --max-segment-s 12"
    assert run(talk, "--vad", "silero", *flags.split()).exit_code == 0
    assert run(talk, "--vad", "silero").exit_code == 0
    assert loaded == [
        ("webrtc", WebRtcOptions(3, 10, 90.0, 500.0, 0.0, 12.0)),
        (
            "silero",
            SileroOptions(
                threshold=0.6,
                min_speech_duration_ms=90.0,
                min_silence_duration_ms=500.0,
                speech_pad_ms=0.0,
                max_speech_duration_s=12.0,
            ),
        ),
        ("silero", SileroOptions()),
    ]
    assert all("vad" in call for call in echo.calls)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--vad-mode", "2"], "--vad-mode needs a detector: add --vad webrtc or --vad silero"),
        (["--pad-ms", "2", "--vad", "none"], "--pad-ms needs a detector"),
        (["--vad", "silero", "--vad-mode", "1"], "--vad-mode is for --vad webrtc, found --vad silero"),
        (["--vad", "webrtc", "--vad-threshold", "0.5"], "--vad-threshold is for --vad silero"),
        (["--vad", "webrtc", "--min-speech-ms", "-1"], "min_speech_ms: expected 0 to 60000"),
        (["--vad", "energy"], "'energy' is not one of"),
    ],
)
def test_what_a_detector_does_not_have_is_refused(
    flags: list[str], says: str, echo: EchoModel, talk: Path
) -> None:
    result = run(talk, *flags)
    assert result.exit_code == 2
    assert says in result.output
    assert not echo.calls


@pytest.mark.weights
@pytest.mark.shared
def test_a_recording_with_pauses(
    tmp_path: Path, shared_audio: Path, tiny_en_gguf: Any, jfk_path: Path
) -> None:
    speech, rate = soundfile.read(jfk_path)
    hum = np.sin(np.arange(20 * rate) * 2 * np.pi * 50 / rate) * 0.003
    path = tmp_path / "pauses.wav"
    soundfile.write(path, np.concatenate([hum, speech, hum]), rate)
    out = tmp_path / "out.json"
    done = run(path, "-m", tiny_en_gguf("q8_0"), "--vad", "webrtc", "--timestamps", "word", "-o", out)
    assert done.exit_code == 0, done.output
    document = json.loads(out.read_text(encoding="utf-8"))
    assert "ask what you can do for your country" in document["text"]
    assert 8 < document["coverage"]["speech_seconds"] < 13
    assert document["coverage"]["text_seconds"] > 0.9 * document["coverage"]["speech_seconds"]
    words = [word for segment in document["segments"] for word in segment["words"]]
    assert all(19.5 < word["start"] <= word["end"] < 31.5 for word in words)
