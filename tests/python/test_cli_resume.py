"""--resume after a kill continues inside the recording, and the files are those of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_model import EchoModel  # tests/helpers
from click.testing import CliRunner, Result

from rustasr import model as model_module
from rustasr.audio import load_audio
from rustasr.cli import main
from rustasr.cli.outputs import journal_path

# The command, with a journal from the first round on.
COMMAND = "from rustasr import cli, journal; journal.PATIENCE_S = 0.0; cli.main()"


@pytest.fixture(scope="module")
def talk(shared_micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of what the checkpoint understands."""
    folder = shared_micro / "gigaam-micro-ctc" / "dev"
    clips = [load_audio(path) for path in sorted(folder.glob("*.flac"))[:8]]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate(clips), 16000)
    return path


def start(*arguments: object, command: str = "transcribe") -> subprocess.Popen[str]:
    line = [sys.executable, "-c", COMMAND, command, *map(str, arguments)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def document(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key not in ("inference_seconds", "rtf")}


@pytest.mark.shared
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("vad", [[], ["--vad", "webrtc"]], ids=["", "vad"])
def test_killed_again_and_again(
    vad: list[str], talk: Path, micro_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    options = ["-m", micro_gguf("gigaam-micro-ctc"), "--window-seconds", 2, "--batch-size", 1, *vad]
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    assert start(talk, *options, "-o", whole).wait() == 0
    assert list(tmp_path.iterdir()) == [whole], "no journal is left"
    draw, n_kills, known = random.Random(os.getpid()), 0, 0
    while n_kills < 3:
        process = start(talk, *options, "-o", killed, "--resume")
        until = known + draw.randint(1, 4)
        while lines_of(journal_path(killed)) < until and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        assert not killed.exists()
        assert lines_of(journal_path(killed)) >= known, "nothing was done again"
        n_kills, known = n_kills + 1, lines_of(journal_path(killed))
    assert n_kills > 0
    last = start(talk, *options, "-o", killed, "--resume")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert "continuing what an earlier run began" in said
    assert document(killed) == document(whole)
    assert not journal_path(killed).exists()
    assert start(talk, *options, "-o", killed, "--resume").communicate()[1].startswith("1 of 1 recordings")


@pytest.mark.shared
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_diarized_call_killed_again_and_again(
    talk: Path, micro_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    samples, half = load_audio(talk), len(load_audio(talk)) // 2
    left = np.where(np.arange(len(samples)) < half, samples, 0)
    call = tmp_path / "call.wav"
    soundfile.write(call, np.stack([left, samples - left], axis=1), 16000)
    model = micro_gguf("gigaam-micro-ctc")
    options = ["-m", model, "--window-seconds", 2, "--batch-size", 1, "--vad", "webrtc"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(call, *options, "--out-dir", whole, command="diarize").wait() == 0
    journal = journal_path(killed / "report.md")
    n_kills = 0
    for until in (1, 3, 6, 9):
        process = start(call, *options, "--out-dir", killed, "--resume", command="diarize")
        while lines_of(journal) < until and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        assert lines_of(journal) >= until and not (killed / "report.md").exists()
        n_kills += 1
    assert n_kills > 1
    last = start(call, *options, "--out-dir", killed, "--resume", command="diarize")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert "continuing what an earlier run began" in said
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    assert document(killed / "segments.json") == document(whole / "segments.json")
    for path in whole.iterdir():
        if path.suffix != ".json":
            assert timeless(killed / path.name) == timeless(path), path.name
    assert (
        start(call, *options, "--out-dir", killed, "--resume", command="diarize")
        .communicate()[1]
        .startswith("1 of 1 recordings")
    )


def timeless(path: Path) -> list[str]:
    """A file's lines but for the one that says how long the work took."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("- time:")]


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> EchoModel:
    model = EchoModel()
    monkeypatch.setattr(model_module, "load_model", lambda *_, **__: model)
    return model


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "wav.wav"
    soundfile.write(path, np.full(16000, 0.1), 16000)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["transcribe", *map(str, arguments)])


def test_where_the_journal_lies(echo: EchoModel, wav: Path, tmp_path: Path) -> None:
    assert run(wav).exit_code == 0
    assert run(wav, "-o", tmp_path / "a.srt").exit_code == 0
    assert run(wav, "--output-dir", tmp_path / "d", "-f", "text", "-f", "json").exit_code == 0
    assert [call.get("journal") for call in echo.calls] == [
        None,
        tmp_path / "a.partial.jsonl",
        tmp_path / "d" / "wav.partial.jsonl",
    ]


def test_a_journal_is_continued_on_request_only(echo: EchoModel, wav: Path, tmp_path: Path) -> None:
    journal = tmp_path / "a.partial.jsonl"
    journal.write_text("earlier")
    said = run(wav, "-o", tmp_path / "a.txt", "--resume").output
    assert "continuing what an earlier run began" in said
    assert not journal.exists(), "the work is done"
    (tmp_path / "a.txt").unlink()
    journal.write_text("earlier")
    said = run(wav, "-o", tmp_path / "a.txt").output
    assert "begun anew; --resume would have continued" in said
    assert not journal.exists()
