"""Text that is shown while it is recognised, and an aligner, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_model import EchoModel
from click.testing import CliRunner, Result

from rustasr import model as model_module
from rustasr.cli import main
from rustasr.cli import transcribe as command
from rustasr.cli.live import LiveText
from rustasr.progress import PartialText


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> EchoModel:
    model = EchoModel()
    monkeypatch.setattr(model_module, "load_model", lambda *_, **__: model)
    return model


def talk(folder: Path, name: str = "talk.wav") -> Path:
    soundfile.write(folder / name, np.full(32000, 0.1), 16000)
    return folder / name


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["transcribe", *map(str, arguments)])


def shown(capsys: pytest.CaptureFixture[str], *texts: tuple[float, str, bool]) -> str:
    live = LiveText(to_stderr=False)
    for start, text, final in texts:
        live(PartialText(start, text, final))
    live.close()
    return capsys.readouterr().out


def test_a_line_grows(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, (0.0, "Hel", False), (0.0, "Hello", False), (0.0, "Hello.", True)) == "Hello.\n"


def test_stretches_wait_for_those_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        (0.0, "one", False), (5.0, "two", False), (5.0, "two.", True), (0.0, "one.", True), (9.0, "", True),
        (12.0, "three", True),
    ]  # fmt: skip
    assert shown(capsys, *told) == "one.\ntwo.\nthree\n"


def test_a_text_that_is_taken_back_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    told = [(0.0, "no no no", False), (0.0, "yes", False), (0.0, "yes.", True)]
    assert shown(capsys, *told) == "no no no\nyes.\n"


def test_an_unfinished_line_is_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, (0.0, "half", False)) == "half\n"


def test_live_text_is_beside_what_is_written(echo: EchoModel, tmp_path: Path) -> None:
    result = run(talk(tmp_path), "--stream-text")
    assert result.exit_code == 0
    assert result.stdout == result.stderr == "heard 16000 samples\n" * 2
    result = run(talk(tmp_path), "--stream-text", "-o", tmp_path / "talk.txt")
    assert result.stdout == ""
    assert result.stderr.startswith("heard 16000 samples\n" * 2)
    assert (tmp_path / "talk.txt").read_text() == "heard 16000 samples\n" * 2


def test_a_terminal_gets_live_text_in_place_of_the_result(
    echo: EchoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command._Live, "of", lambda *_, **__: command._Live.IN_PLACE)
    result = run(talk(tmp_path), "--stream-text")
    assert (result.stdout, result.stderr) == ("heard 16000 samples\n" * 2, "")


@pytest.mark.parametrize(
    ("options", "tty", "named", "in_place"),
    [
        ([], True, False, True),
        ([], False, False, False),
        ([], True, True, False),  # the result has names of speakers, live text has not
        (["--format", "json"], True, False, False),
        (["--format", "text", "--format", "srt"], True, False, False),
    ],
)
def test_where_live_text_goes(
    options: list[str], tty: bool, named: bool, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rustasr.cli.outputs import Outputs

    monkeypatch.setattr("sys.stdout.isatty", lambda: tty, raising=False)
    outputs = Outputs.plan(tuple(options[1::2]), None, None, ["a.wav"])
    assert (command._Live.of(outputs, named=named) is command._Live.IN_PLACE) is in_place


def test_an_aligner_is_handed_on(echo: EchoModel, tmp_path: Path) -> None:
    assert run(talk(tmp_path), "--align", "qwen3-forced-aligner-0.6b").exit_code == 0
    assert echo.calls[-1] == {"align": "qwen3-forced-aligner-0.6b"}
    run(talk(tmp_path), "--context", "trains", "--window-seconds", "30")
    assert echo.calls[-1] == {"initial_prompt": "trains", "window_seconds": 30.0}


@pytest.mark.parametrize(("kind", "told"), [("srt", True), ("vtt", True), ("tsv", True), ("text", False)])
def test_estimated_times_are_said_where_times_are_written(
    echo: EchoModel, tmp_path: Path, kind: str, told: bool
) -> None:
    result: Any = run(talk(tmp_path, "estimate.wav"), "--format", kind)
    assert ("--align qwen3-forced-aligner-0.6b" in result.stderr) is told
    assert "--align" not in run(talk(tmp_path), "--format", kind).stderr
