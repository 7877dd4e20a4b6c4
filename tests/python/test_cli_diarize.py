"""`rustasr diarize`: its files, options, exit codes and interruption."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transcript_schema import SCHEMA, violations  # tests/helpers

from rustasr import model as model_module
from rustasr import subtitles
from rustasr.cli import main
from rustasr.cli import speakers as options_module
from rustasr.diarization import DiarizationOptions, diarize, read_rttm, report
from rustasr.diarization.timeline import to_svg
from rustasr.types import Coverage, Segment, TranscriptionResult, Turn, Word
from rustasr.vad import Span
from rustasr.writers import FORMATS
from speakers import RATE, Known, LevelEncoder, LevelModel, LevelVad, recording

if TYPE_CHECKING:
    from click.testing import Result

FILES = {
    "report.md",
    "timeline.svg",
    "segments.json",
    "combined.txt",
    "combined.srt",
    "combined.vtt",
    "speakers.rttm",
}


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> LevelModel:
    model = LevelModel()
    monkeypatch.setattr(model_module, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(options_module, "EncoderLoader", lambda *_, **__: LevelEncoder())
    monkeypatch.setattr(options_module, "OverlapLoader", lambda *_, **__: Known([]))
    monkeypatch.setattr(options_module, "take_vad", lambda *_: LevelVad())
    return model


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return wav(tmp_path / "talk.wav", recording((0, 3.0), (None, 1.5), (1, 3.0), (None, 1.5), (0, 2.0)))


def wav(path: Path, samples: Any) -> Path:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- files


def test_all_files_of_a_recording(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("diarize", talk, "--out-dir", out, "--speaker-names", "Ann,Bob")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == FILES | {"Ann.txt", "Bob.txt"}
    document = json.loads((out / "segments.json").read_text())
    assert violations(document, SCHEMA) == []
    assert [segment["speaker"] for segment in document["segments"]] == ["Ann", "Bob", "Ann"]
    assert (out / "Bob.txt").read_text() == "[0:00:04.4] " + "v1 " * 12 + "v1\n"
    lines = (out / "combined.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["[0:00:00.0]", "Ann:"],
        ["[0:00:04.4]", "Bob:"],
        ["[0:00:09.0]", "Ann:"],
    ]
    turns = read_rttm((out / "speakers.rttm").read_text())["talk"]
    assert [turn.speaker for turn in turns] == ["Ann", "Bob", "Ann"]
    assert "<v Bob>" in (out / "combined.vtt").read_text()
    assert "Bob: v1" in (out / "combined.srt").read_text()
    page = (out / "report.md").read_text()
    assert "![Who speaks when](timeline.svg)" in page
    assert re.search(r"\| Ann \| 0:00:05.0 \| 62% \| 2 \| 2\d \| \[Ann.txt\]\(<Ann.txt>\) \|", page)
    assert "**Bob** (0:00:04.4): v1 v1" in page
    assert "talk.wav -> " in result.output and "2 speakers" in result.output


def test_several_recordings_get_a_folder_each(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = wav(tmp_path / "other" / "talk.wav", recording((0, 2.0)))
    out = tmp_path / "out"
    assert run("diarize", talk, other, "--out-dir", out, "--quiet").output == ""
    assert {path.name for path in out.iterdir()} == {"talk", "talk.wav"}
    assert all((folder / "report.md").exists() for folder in out.iterdir())


def test_without_a_folder_the_talk_goes_to_standard_output(levels: LevelModel, talk: Path) -> None:
    result = run("diarize", talk, "--quiet")
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        "speaker_0:",
        "speaker_1:",
        "speaker_0:",
    ]


def test_resume_skips_finished_reports(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("diarize", talk, "--out-dir", out).exit_code == 0
    assert "1 of 1 recordings are done already" in run("diarize", talk, "--out-dir", out, "--resume").output
    assert len(levels.calls) == 1


# --- transcribe --diarize


def test_every_format_of_transcribe_has_the_speakers(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = [f"--format={kind}" for kind in FORMATS]
    result = run("transcribe", talk, "--diarize", "--speaker-names", "Ann,Bob", "--output-dir", out, *formats)
    assert result.exit_code == 0, result.output
    written = {path.suffix: path.read_text() for path in out.iterdir()}
    assert [line.split()[0] for line in written[".txt"].splitlines()] == ["Ann:", "Bob:", "Ann:"]
    document = json.loads(written[".json"])
    assert violations(document, SCHEMA) == []
    assert [segment["speaker"] for segment in document["segments"]] == ["Ann", "Bob", "Ann"]
    assert {turn["speaker"] for turn in document["turns"]} == {"Ann", "Bob"}
    assert "\nBob: v1 v1" in written[".srt"] and "\n<v Bob>v1 v1" in written[".vtt"]
    assert [row.split("\t")[2] for row in written[".tsv"].splitlines()] == ["speaker", "Ann", "Bob", "Ann"]
    assert re.search(r"\[00:00:04.\d+ --> 00:00:07.\d+\] Bob: v1 v1", written[".log"])


def test_transcribe_takes_the_flags_of_diarize(
    levels: LevelModel, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def spy(*arguments: Any, **named: Any) -> TranscriptionResult:
        calls.append(named)
        return diarize(*arguments, **named)

    monkeypatch.setattr("rustasr.diarization.diarize", spy)
    rttm = tmp_path / "talk.rttm"
    rttm.write_text("SPEAKER talk 1 0.0 8.0 <NA> <NA> Ann <NA> <NA>\n")
    flags = "--speaker-mode cluster --num-speakers 2 --speaker-language Ann=de --left-name L".split()
    for command in ("diarize", "transcribe"):
        ask = () if command == "diarize" else ("--diarize",)
        assert run(command, talk, *ask, *flags, "--rttm", rttm, "--language", "en").exit_code == 0
    options = DiarizationOptions("cluster", num_speakers=2, left_name="L")
    for call in calls:
        assert call["options"] == options and call["speaker_languages"] == {"Ann": "de"}
        assert [turn.speaker for turn in call["turns"]] == ["Ann"]
    assert [options["language"] for options in levels.calls] == ["de", "de"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-speakers", "2"], "--num-speakers is about speakers: add --diarize"),
        (["--speaker-language", "Ann=de"], "--speaker-language is about speakers: add --diarize"),
        (["--diarize", "--vad", "none"], "leave it out"),
        (["--diarize", "--num-speakers", "0"], "expected 1 to 100"),
        (["--diarize", "--timestamps", "none"], "speakers need times"),
    ],
)
def test_wrong_usage_of_transcribe(
    levels: LevelModel, talk: Path, arguments: list[str], message: str
) -> None:
    result = run("transcribe", talk, *arguments)
    assert result.exit_code == 2 and message in result.output


# --- options


def test_a_side_per_channel_with_names_and_languages(levels: LevelModel, tmp_path: Path) -> None:
    left, right = recording((0, 3.0), (None, 4.0)), recording((None, 3.5), (3, 3.5))
    call = wav(tmp_path / "call.wav", np.stack([left, right], axis=1))
    names = ("--left-name", "agent", "--right-name", "customer", "--speaker-language", "customer=de")
    result = run("diarize", call, "--quiet", *names)
    assert (
        result.stdout
        == "[0:00:00.0] agent: " + "v0 " * 11 + "v0\n[0:00:03.3] customer: " + "v3 " * 14 + "v3\n"
    )
    assert [options.get("language") for options in levels.calls] == [None, "de"]


def test_turns_from_rttm(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    rttm = tmp_path / "known.rttm"
    rttm.write_text(
        "SPEAKER talk 1 0.0 4.0 <NA> <NA> Ann <NA> <NA>\nSPEAKER other 1 0.0 9.0 <NA> <NA> Eve <NA> <NA>\n"
        "SPEAKER talk 1 4.0 8.0 <NA> <NA> Bob <NA> <NA>\n"
    )
    result = run("diarize", talk, "--rttm", rttm, "--quiet")
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["Ann:", "Bob:"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPEAKER a 1 0 1 <NA> <NA> X\nSPEAKER b 1 0 1 <NA> <NA> Y\n", "expected turns of talk, found a, b"),
        ("SPEAKER talk 1 0 soon <NA> <NA> X\n", "line 1: expected seconds"),
        ("", "expected turns of talk, found no turn at all"),
    ],
)
def test_rttm_that_does_not_fit_fails_the_recording(
    levels: LevelModel, talk: Path, tmp_path: Path, text: str, message: str
) -> None:
    rttm = tmp_path / "known.rttm"
    rttm.write_text(text)
    result = run("diarize", talk, "--rttm", rttm)
    assert result.exit_code == 1 and message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no AUDIO given"),
        (["talk.wav", "--resume"], "give --out-dir"),
        (["talk.wav", "--speaker-language", "mic"], "expected NAME=LANG"),
        (["talk.wav", "--num-speakers", "0"], "expected 1 to 100"),
        (["talk.wav", "--num-speakers", "2", "--max-speakers", "3"], "not both"),
        (["talk.wav", "--speaker-names", "A,A"], "expected different names"),
        (["talk.wav", "--rttm", "missing.rttm"], "missing.rttm"),
    ],
)
def test_wrong_usage_exits_with_2(levels: LevelModel, arguments: list[str], message: str) -> None:
    result = run("diarize", *arguments)
    assert result.exit_code == 2 and message in result.output


def test_a_name_that_nobody_has_exits_with_2(levels: LevelModel, talk: Path) -> None:
    result = run("diarize", talk, "--speaker-language", "Eve=de")
    assert result.exit_code == 2 and "found 'Eve'" in result.output


def test_a_bad_recording_does_not_stop_the_others(levels: LevelModel, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("diarize", tmp_path / "missing.wav", talk, "--out-dir", out)
    assert result.exit_code == 1 and "missing.wav" in result.output
    assert (out / "talk" / "report.md").exists()


CHILD = """
import signal, sys, time; sys.path[:0] = {paths!r}
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
from rustasr import model as model_module
from rustasr.cli import main, speakers as options_module
from speakers import LevelModel, LevelVad
class Slow(LevelVad):
    def speech(self, blocks):
        def slowly():
            for block in blocks:
                print("heard", file=sys.stderr, flush=True)
                time.sleep(0.3)
                yield block
        return super().speech(slowly())
model_module.load_model = lambda *a, **k: LevelModel()
options_module.take_vad = lambda *a: Slow()
main(prog_name="rustasr")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")
def test_ctrl_c_stops_the_search_for_turns(tmp_path: Path) -> None:
    long = wav(tmp_path / "long.wav", np.full(2000 * RATE, 0.0625, np.float32))
    code = CHILD.format(paths=[str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, "diarize", str(long), "--out-dir", str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    assert process.stderr.readline().strip() == "heard"  # of 200 blocks: a minute of work
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors
    assert errors.count("heard") < 150 and time.monotonic() - began < 60
    assert not (tmp_path / "out").exists()


def test_two_at_once_both_have_a_turn_in_the_rttm(
    levels: LevelModel, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, dict[str, object]]] = []

    def loader(name: object, **values: object) -> Known:
        asked.append((name, values))
        return Known([Span(RATE, 2 * RATE)])

    monkeypatch.setattr(options_module, "OverlapLoader", loader)
    found = {}
    for choice in ("auto", "other.gguf", "none"):
        out = tmp_path / choice
        result = run("diarize", talk, "--out-dir", out, "--overlap", choice, "--threads", 3)
        assert result.exit_code == 0, result.output
        found[choice] = read_rttm((out / "speakers.rttm").read_text())["talk"]
        assert (out / "combined.txt").read_text() == (tmp_path / "auto" / "combined.txt").read_text()
    assert [name for name, _ in asked] == ["auto", "other.gguf"]
    assert all(values["threads"] == 3 for _, values in asked)
    assert Turn(1.0, 2.0, "speaker_1") in found["auto"] and found["auto"] == found["other.gguf"]
    assert found["none"] == [turn for turn in found["auto"] if turn != Turn(1.0, 2.0, "speaker_1")]


def test_overlap_is_about_speakers(levels: LevelModel, talk: Path) -> None:
    result = run("transcribe", talk, "--overlap", "none")
    assert result.exit_code == 2 and "--overlap is about speakers: add --diarize" in result.output


# --- the report on its own


def made(segments: list[Segment], turns: tuple[Turn, ...] = (), **values: Any) -> TranscriptionResult:
    text = " ".join(segment.text for segment in segments)
    return TranscriptionResult(text, tuple(segments), "en", 100.0, 1.0, "m", turns=turns, **values)


def test_names_become_files_that_every_system_takes() -> None:
    names = ["combined", "a/b", "A_B", "..", "Ann", "ann", "x" * 300]
    result = made([Segment(i, i + 1.0, "word", speaker=name) for i, name in enumerate(names)])
    found = report.files(result, "talk")
    own = set(found) - FILES
    assert own == {
        "combined-2.txt",
        "a_b.txt",
        "A_B-2.txt",
        "_.txt",
        "Ann.txt",
        "ann-2.txt",
        "x" * 100 + ".txt",
    }
    assert all("word" in found[name] for name in own)


def test_the_report_names_what_is_doubtful_and_escapes_what_is_said() -> None:
    segments = [
        Segment(0, 1, "a *star* | <b>", speaker="A|B"),
        Segment(2, 3, "la la la", speaker="A|B", flags=("repetition",)),
        Segment(4, 5, "fine", flags=("estimated_times",)),
    ]
    coverage = Coverage(10.0, 7.0, ((60.0, 63.0),))
    page = report.files(made(segments, coverage=coverage, warnings=("half of it",)), "talk")["report.md"]
    assert "a \\*star\\* \\| \\<b\\>" in page and "A\\|B" in page
    assert "- half of it" in page
    assert "- 0:01:00.0 to 0:01:03.0: speech without text" in page
    assert "- 0:00:02.0: repeats itself: “la la la”" in page
    assert "**unknown** (0:00:04.0): fine" in page and "“fine”" not in page


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 99), st.floats(0.0, 30), st.sampled_from(["Ann", "<Bob> & Co", "speaker_2"])),
        max_size=12,
    ),
    st.floats(0.5, 100_000),
)
def test_the_picture_is_well_formed_and_stays_inside(
    turns: list[tuple[float, float, str]], length: float
) -> None:
    spoken = tuple(Turn(a * length / 100, min(length, a * length / 100 + s), n) for a, s, n in turns)
    result = TranscriptionResult(
        "", (), "en", length, 1.0, "m", turns=spoken, coverage=Coverage(1.0, 0.5, ((0.0, length),))
    )
    picture = ET.fromstring(to_svg(result))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {name for _, _, name in turns} <= set(texts) and "text (50 %)" in texts
    for path in picture.iter("{http://www.w3.org/2000/svg}path"):
        for piece in path.attrib["d"].replace("M", " ").split("z"):
            if "h" in piece:
                start, width = float(piece.split()[0]), float(piece.split("h")[1].split("v")[0])
                assert start >= 150 and start + width <= 982


# --- properties of what is written


words = st.lists(st.text("abcdefgh.,!?äß漢字", min_size=1, max_size=60), min_size=1, max_size=30)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(words, st.sampled_from([None, "Ann", "Bob with a very long name indeed"])), max_size=6
    ),
    st.booleans(),
    st.booleans(),
)
def test_subtitles_keep_every_word_of_every_speaker(
    said: list[tuple[list[str], str | None]], timed: bool, named: bool
) -> None:
    segments = []
    for i, (texts, speaker) in enumerate(said):
        step = 9.0 / len(texts)
        heard = tuple(Word(10 * i + j * step, 10 * i + (j + 1) * step, t, 1.0) for j, t in enumerate(texts))
        segments.append(
            Segment(10.0 * i, 10.0 * i + 9, " ".join(texts), heard if timed else None, speaker=speaker)
        )
    cues = subtitles.cues(segments, 10.0 * len(said), names=named)
    shown = "".join("".join("".join(cue.lines).split()) for cue in cues)
    prefix = {None: "", "Ann": "Ann:", "Bob with a very long name indeed": "Bobwithaverylongnameindeed:"}
    assert shown == "".join((prefix[s] if named else "") + "".join(texts) for texts, s in said)
    for before, after in itertools.pairwise(cues):
        assert before.start_ms <= before.end_ms <= after.start_ms
