"""The command line around a model: inputs, outputs, exit codes, options, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from cli_model import EchoModel  # tests/helpers
from click.testing import CliRunner

import rustasr
from rustasr import model as model_module
from rustasr.cli import COMMANDS, exit_code, main
from rustasr.cli.inputs import expand
from rustasr.errors import AudioError, DeviceError, ModelFileError, ModelNotFoundError, OptionError

if TYPE_CHECKING:
    from click.testing import Result


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> EchoModel:
    model = EchoModel()

    def load(name: str | None = None, **values: Any) -> EchoModel:
        if name == "missing":
            raise ModelNotFoundError("no model is called 'missing'")
        model.loaded.append((name, values))
        return model

    monkeypatch.setattr(model_module, "load_model", load)
    return model


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return wav(tmp_path / "talk.wav", 2.5)


def wav(path: Path, seconds: float, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((round(16000 * seconds), channels), 0.1), 16000)
    return path


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


# --- help and usage


@pytest.mark.parametrize("name", [*COMMANDS, "models list", "models inspect", "models pull", "models verify"])
def test_help_of_every_command_has_examples(name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0, result.output
    assert "Examples:" in result.output and f"rustasr {name}" in result.output


def test_help_and_version_are_quick_and_need_no_core() -> None:
    code = (
        "import sys; sys.modules['rustasr._core'] = None; sys.argv[0] = 'rustasr'\n"
        "from rustasr.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'soundfile', 'rich', 'huggingface_hub', 'gguf'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run_child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run_child.returncode == 0, run_child.stderr
    assert run_child.stdout.startswith("rustasr ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["transcribe"],
        ["transcribe", "talk.wav", "--format", "docx"],
        ["transcribe", "a.wav", "b.wav", "-o", "out.txt"],
        ["transcribe", "a.wav", "-o", "x.txt", "--output-dir", "y"],
        ["transcribe", "a.wav", "-o", "x.txt", "-f", "text", "-f", "srt"],
        ["transcribe", "a.wav", "--resume"],
        ["transcribe", "a.wav", "--timestamps", "none", "-f", "srt"],
        ["transcribe", "a.wav", "--temperature", "warm"],
        ["transcribe", "a.wav", "--logprob-threshold", "low"],
        ["quantize", "-i", "x", "-o", "y", "-q", "q8_0", "--tensor-type", "embedding"],
        ["transcribe", "a.wav", "--model", "x", "--gguf", "y"],
        ["transcribe", "a.wav", "--vad", "energy"],
        ["convert", "x"],
        ["quantize", "--input", "x", "--output", "y"],
        ["benchmark", "--audio", "x"],
        ["benchmark", "--audio", "x", "--models", "m", "--reference", "a", "--reference", "b"],
    ],
)
def test_wrong_usage_exits_with_2(echo: EchoModel, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output


def test_exit_codes_of_errors() -> None:
    codes = {AudioError: 1, OptionError: 2, ModelFileError: 3, ModelNotFoundError: 3, DeviceError: 3}
    for kind, code in codes.items():
        assert exit_code(kind("x")) == code


# --- inputs


def test_directories_patterns_and_names_become_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.mp3", "a.wav", "deep/c.FLAC", "notes.txt", "deep/[odd] name.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    everything = ["a.wav", "b.mp3", "deep/[odd] name.ogg", "deep/c.FLAC"]
    assert [str(Path(str(n)).relative_to(tmp_path)) for n in expand([str(tmp_path)])] == everything
    assert expand(["*.wav", "a.wav", "-", "-"]) == ["a.wav", "-"]
    assert expand(["**/*.FLAC"]) == [str(Path("deep/c.FLAC"))]
    assert expand(["deep/[odd] name.ogg"]) == ["deep/[odd] name.ogg"]  # a file that looks like a pattern
    assert expand(["notes.txt"]) == ["notes.txt"]  # named, so taken
    first, second = expand(["*.aiff", "b.mp3"])
    assert isinstance(first, AudioError) and second == "b.mp3"
    (tmp_path / "empty").mkdir()
    assert isinstance(expand(["empty"])[0], AudioError)


def test_text_goes_to_standard_output_and_nothing_else(echo: EchoModel, talk: Path) -> None:
    result = run("transcribe", talk)
    assert result.exit_code == 0
    assert result.stdout == "heard 16000 samples\nheard 16000 samples\nheard 8000 samples\n"
    assert result.stderr == ""


def test_standard_input_is_a_recording(echo: EchoModel, talk: Path) -> None:
    result = run("transcribe", "-", "--format", "json", stdin=talk.read_bytes())
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["duration"] == 2.5


def test_audio_may_be_named_by_an_option(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    other = wav(tmp_path / "other.wav", 1.0)
    result = run("transcribe", "--audio", talk, "--audio", other)
    assert result.exit_code == 0 and result.stdout.count("heard") == 4
    assert "talk.wav:" in result.stderr and "other.wav:" in result.stderr


def test_one_channel_can_be_taken(echo: EchoModel, tmp_path: Path) -> None:
    stereo = wav(tmp_path / "stereo.wav", 1.0, channels=2)
    assert run("transcribe", stereo, "--channel", "right").exit_code == 0
    assert run("transcribe", stereo, "--channel", "2").exit_code == 1
    assert run("transcribe", stereo, "--channel", "both").exit_code == 2


# --- outputs


def test_the_suffix_of_the_output_chooses_the_format(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    for name, start in (
        ("a.srt", "1\n00:00:00,000"),
        ("b.vtt", "WEBVTT"),
        ("c.json", "{"),
        ("d.txt", "heard"),
    ):
        assert run("transcribe", talk, "-o", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert run("transcribe", talk, "-o", "-").stdout.startswith("heard")


def test_a_directory_of_outputs_in_several_formats(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    again = wav(tmp_path / "more" / "talk.wav", 1.0)
    third = wav(tmp_path / "more" / "talk.flac", 1.0)
    out = tmp_path / "out" / "deep"
    result = run("transcribe", talk, again, third, "--output-dir", out, "-f", "text", "-f", "srt")
    assert result.exit_code == 0 and result.stdout == ""
    expected = ["talk.flac.srt", "talk.flac.txt", "talk.srt", "talk.txt", "talk.wav.srt", "talk.wav.txt"]
    assert sorted(path.name for path in out.iterdir()) == expected
    assert "x real time" in result.stderr
    assert run("transcribe", talk, "--output-dir", out, "--quiet").stderr == ""


def test_a_bad_recording_does_not_stop_the_others(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    poison = wav(tmp_path / "poison.wav", 1.0)
    arguments = [tmp_path / "bad.wav", "*.nothing", tmp_path / "missing.wav", poison, talk]
    result = run("transcribe", *arguments, "--output-dir", tmp_path / "out")
    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["talk.txt"]
    assert result.stderr.count("error: ") == 4
    for part in ("bad.wav", "*.nothing", "missing.wav", "numbers went wrong"):
        assert part in result.stderr


def test_an_unforeseen_system_error_is_one_line(echo: EchoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/models")

    monkeypatch.setattr(model_module, "load_model", fail)
    result = run("transcribe", __file__)
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "/models" in result.stderr


def test_warnings_reach_standard_error(echo: EchoModel, talk: Path) -> None:
    talk.write_bytes(talk.read_bytes()[:40000])
    result = run("transcribe", talk)
    assert result.exit_code == 0 and "warning: " in result.stderr and "truncated" in result.stderr


def test_an_output_that_cannot_be_written_fails_that_recording(
    echo: EchoModel, talk: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    result = run("transcribe", talk, "--output-dir", tmp_path / "file")
    assert result.exit_code == 1 and "cannot be written" in result.stderr


def test_resume_skips_what_is_done(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    other = wav(tmp_path / "other.wav", 1.0)
    out = tmp_path / "out"
    assert run("transcribe", talk, "--output-dir", out).exit_code == 0
    result = run("transcribe", talk, other, "--output-dir", out, "--resume")
    assert result.exit_code == 0 and "1 of 2 recordings are done already" in result.stderr
    assert len(echo.calls) == 2 and (out / "other.txt").exists()


# --- model and options


def test_only_given_options_reach_the_model(echo: EchoModel, talk: Path) -> None:
    assert run("transcribe", talk).exit_code == 0
    assert echo.calls[-1] == {}
    result = run(
        *(
            "transcribe",
            talk,
            "--language",
            "de",
            "--beam-size",
            "5",
            "--temperature",
            "0,0.4",
            "--temperature",
            "1",
        ),
        *("--no-speech-threshold", "none", "--no-condition-on-previous-text", "--initial-prompt", "Hi"),
        *("--hotwords", "Zoë,Łukasz", "--timestamps", "word", "--seed", "7", "--suppress-tokens", "-1,5"),
    )
    assert result.exit_code == 0, result.output
    assert echo.calls[-1] == {
        "language": "de",
        "beam_size": 5,
        "temperature": (0.0, 0.4, 1.0),
        "no_speech_threshold": None,
        "condition_on_previous_text": False,
        "initial_prompt": "Hi",
        "hotwords": "Zoë,Łukasz",
        "timestamps": "word",
        "seed": 7,
        "suppress_tokens": "-1,5",
    }
    assert run("transcribe", talk, "--temperature", "0.2", "--prompt", "x").exit_code == 0
    assert echo.calls[-1] == {"temperature": 0.2, "initial_prompt": "x"}


def test_every_decoding_option_is_a_field_of_a_familys_options() -> None:
    from dataclasses import fields

    from rustasr.cli.parameters import DECODING

    families = (rustasr.WhisperOptions, rustasr.GigaamOptions, rustasr.ParakeetOptions, rustasr.QwenOptions)
    known = {field.name for family in families for field in fields(family)}
    assert set(DECODING) <= known


def test_model_choice_reaches_load_model(echo: EchoModel, talk: Path) -> None:
    run("transcribe", talk, "-m", "whisper-tiny.en", "--device", "cpu", "--threads", "2", "--quant", "q8_0")
    run("transcribe", talk, "--gguf", "x.gguf")
    choices = [(name, values["weights"], values["threads"], values["quant"]) for name, values in echo.loaded]
    assert choices == [("whisper-tiny.en", "auto", 2, "q8_0"), ("x.gguf", "gguf", 0, None)]


def test_a_model_problem_exits_with_3(echo: EchoModel, talk: Path) -> None:
    result = run("transcribe", talk, "--model", "missing")
    assert result.exit_code == 3 and "error: no model is called" in result.stderr
    echo.model_type = "gigaam"
    assert run("transcribe", talk, "--model-type", "whisper").exit_code == 3


def test_an_option_that_the_model_refuses_exits_with_2(echo: EchoModel, talk: Path) -> None:
    result = run("transcribe", talk, "--language", "xx")
    assert result.exit_code == 2 and "expected en" in result.stderr


def test_all_recordings_share_one_model_and_one_thread(echo: EchoModel, talk: Path, tmp_path: Path) -> None:
    wav(tmp_path / "other.wav", 1.0)
    assert run("transcribe", tmp_path).exit_code == 0
    assert len(echo.calls) == 2 and len(echo.threads) == 1 and len(echo.loaded) == 1


# --- in a process of its own


CHILD = """
import signal, sys; sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
from rustasr import model as model_module
from cli_model import EchoModel
model = EchoModel(slow=float(sys.argv.pop(1)))
model_module.load_model = lambda *a, **k: model
from rustasr.cli import main
main(prog_name="rustasr")
"""


def child(slow: float, *arguments: object) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parents[1] / "helpers"))
    command = [sys.executable, "-c", code, str(slow), "transcribe", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")
def test_ctrl_c_keeps_finished_files_and_writes_the_finished_part(tmp_path: Path) -> None:
    short, long = wav(tmp_path / "a.wav", 0.5), wav(tmp_path / "b.wav", 300.0)
    out = tmp_path / "out"
    process = child(0.1, short, long, "--output-dir", out)
    deadline = time.monotonic() + 20
    while not (out / "a.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.0)  # the second recording takes 30 s; a busy machine needs some to begin with it
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130, stderr
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "b.partial.txt"]
    assert (out / "b.partial.txt").read_text(encoding="utf-8").startswith("heard 16000 samples\n")
    assert "b.partial.txt" in stderr and "Traceback" not in stderr
    done = child(0.0, short, long, "--output-dir", out, "--resume")
    done.communicate(timeout=20)
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "b.txt"]


def test_a_forced_bar_shows_after_two_seconds_and_not_before(tmp_path: Path) -> None:
    quick, slow = wav(tmp_path / "quick.wav", 3.0), wav(tmp_path / "slow.wav", 30.0)
    process = child(0.0, quick, "--progress")
    assert process.communicate(timeout=20)[1] == ""
    process = child(0.1, slow, "--progress")
    stdout, stderr = process.communicate(timeout=30)
    assert stdout.count("heard") == 30 and "left" in stderr and "%" in stderr
    process = child(0.1, slow)  # standard error is a pipe: no bar
    assert process.communicate(timeout=30)[1] == ""


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    process = child(0.0, wav(tmp_path / "a.wav", 1.0), "-f", "json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.wait(20)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert os.name == "nt" or process.returncode in (0, 1)
