"""Hours of speech, and a thousand files: opt-in (`--run-slow`), half an hour on two free cores.

Besides the extra `test` they need psutil, text2num and num2words.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
from wer import normalize

from rustasr.audio import load_audio
from rustasr.cli.outputs import journal_path
from rustasr.vad import load_vad

pytestmark = [pytest.mark.slow, pytest.mark.weights, pytest.mark.shared]

HOURS = float(os.environ.get("RUSTASR_SLOW_HOURS", "3"))
PAUSE_S = 0.7
COMMAND = (
    "import resource, sys; from rustasr import cli\n"
    "try: cli.main()\n"
    "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
)


def clips_with_words(audio: Path) -> list[tuple[Path, str]]:
    """English clips of at least 2 s whose words are known."""
    with open(audio / "MANIFEST.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        (audio / row["file"], row["reference"])
        for row in rows
        if row["file"].startswith("en/") and row["reference"] and float(row["seconds"]) >= 2
        if not any(mark in row["ref_kind"] for mark in ("heard with", "file name", "audio may stop"))
    ]


def errors(reference: str, heard: str) -> tuple[int, int]:
    """(wrong words, reference words)."""
    found = jiwer.process_words(" ".join(normalize(reference)), " ".join(normalize(heard)))
    wrong = found.substitutions + found.deletions + found.insertions
    return wrong, found.hits + found.substitutions + found.deletions


def left_out(reference: str, heard: str, language: str) -> tuple[list[str], int]:
    """(the reference's words for which nothing stands in the text, how many words it has).

    Numbers are written alike first. The letters are aligned, since "bookshop" stands for two words; a word is
    left out when more than half of its letters are deleted.
    """
    from rapidfuzz.distance import Levenshtein  # jiwer's

    words, letters = alike(reference, language).split(), "".join(alike(heard, language).split())
    deleted = np.zeros(sum(map(len, words)), bool)
    for step in Levenshtein.opcodes("".join(words), letters):
        deleted[step.src_start : step.src_end] = step.tag == "delete"
    ends = np.cumsum([len(word) for word in words])
    pieces = np.split(deleted, ends[:-1])
    return [word for word, piece in zip(words, pieces, strict=True) if piece.mean() > 0.5], len(words)


def alike(text: str, language: str) -> str:
    """The words that are compared, with numbers as digits; in Russian (text2num has none) as words."""
    if language == "ru":
        num2words = pytest.importorskip("num2words").num2words
        text = re.sub(r"\d+([.,]\d+)?", lambda n: num2words(n[0].replace(",", "."), lang="ru"), text)
        return " ".join(normalize(text))
    digits: str = pytest.importorskip("text_to_num").alpha2digit(" ".join(normalize(text)), language)
    return digits


@pytest.fixture(scope="module")
def three_hours(
    shared_audio: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[int], list[Any]]:
    """The file, which clip follows which, and the clips; written without holding more than one of them."""
    clips, draw = clips_with_words(shared_audio), random.Random(7)
    path, order, seconds = tmp_path_factory.mktemp("long") / "three_hours.flac", list[int](), 0.0
    pause = np.zeros(round(PAUSE_S * 16000), np.float32)
    with soundfile.SoundFile(path, "w", 16000, 1) as out:
        while seconds < HOURS * 3600:
            for n in draw.sample(range(len(clips)), len(clips)):
                samples = load_audio(clips[n][0])
                out.write(samples)
                out.write(pause)
                order.append(n)
                seconds += (len(samples) + len(pause)) / 16000
    return path, order, clips


def transcribe(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "transcribe", *map(str, arguments), "--threads", "2"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def document(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if key not in ("inference_seconds", "rtf")}


@pytest.fixture(scope="module")
def whole(
    three_hours: tuple[Path, list[int], list[Any]], tiny_en_gguf: Callable[[str], Path]
) -> tuple[dict[str, Any], int, list[object]]:
    """The hours transcribed without a stop, the peak memory in MiB, and with which options."""
    options: list[object] = ["-m", tiny_en_gguf("q8_0"), "--batch-size", 4]
    out = three_hours[0].with_name("whole.json")
    process = transcribe(three_hours[0], *options, "-o", out)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return document(out), int(said.split("peak")[-1]), options


def test_killed_somewhere_and_continued(
    three_hours: tuple[Path, list[int], list[Any]],
    whole: tuple[dict[str, Any], int, list[object]],
    tmp_path: Path,
) -> None:
    path, (expected, peak_mb, options), killed = three_hours[0], whole, tmp_path / "killed.json"
    print(f"peak {peak_mb} MiB over {expected['duration'] / 3600:.1f} h")
    assert peak_mb < 450
    first = transcribe(path, *options, "-o", killed)
    until = random.Random().randint(3, 40)
    while first.poll() is None and (
        not journal_path(killed).exists() or journal_path(killed).read_bytes().count(b"\n") < until
    ):
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not killed.exists()
    second = transcribe(path, *options, "-o", killed, "--resume")
    _, said = second.communicate()
    assert second.returncode == 0, said
    assert "continuing" in said
    assert document(killed) == expected


def test_the_text_is_that_of_the_clips_one_by_one(
    three_hours: tuple[Path, list[int], list[Any]], silero_gguf: Path, asr: Callable[[str, str], Any]
) -> None:
    """With a detector, in batches: windows that see what was written before lose a point, in openai-whisper
    as well.
    """
    path, order, clips = three_hours
    model, alone = asr("tiny.en", "q8_0"), dict[int, int]()
    for n in sorted(set(order)):
        alone[n] = errors(clips[n][1], model.transcribe(clips[n][0]).text)[0]
    result = model.transcribe(path, vad=load_vad(silero_gguf), batch_size=4)
    wrong, words = errors(" ".join(clips[n][1] for n in order), result.text)
    together, apart = wrong / words, sum(alone[n] for n in order) / words
    print(f"{words} words, WER {together:.3%} in one file, {apart:.3%} one by one")
    assert together <= apart + 0.003


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("en_ljspeech_chapter1", "tiny.en"),
        ("en_readings_8min", "tiny.en"),
        ("en_ljspeech_chapter1", "base"),
        ("ru_nsh_10min", "base"),
    ],
)
@pytest.mark.parametrize("detector", [None, "webrtc", "silero"])
def test_hardly_a_word_is_left_out(
    name: str,
    model: str,
    detector: str | None,
    shared_audio: Path,
    silero_gguf: Path,
    asr: Callable[[str, str], Any],
) -> None:
    reference = (shared_audio / "long" / f"{name}.txt").read_text(encoding="utf-8")
    language = name[:2]
    vad = load_vad(silero_gguf) if detector == "silero" else detector
    options = {"language": "ru"} if language == "ru" else {}
    result = asr(model, "q8_0").transcribe(shared_audio / "long" / f"{name}.flac", vad=vad, **options)
    missing, words = left_out(reference, result.text, language)
    covered = None if result.coverage is None else f"{result.coverage.share:.2%} of the speech"
    print(f"\n{name} {model} vad {detector}: {words} words, left out {len(missing)} {missing}; {covered}")
    assert len(missing) <= 0.005 * words
    wrong, words = errors(reference, result.text)
    assert wrong < 0.2 * words


def test_a_thousand_files(shared_audio: Path, asr: Callable[[str, str], Any]) -> None:
    psutil = pytest.importorskip("psutil")
    model, process = asr("tiny.en", "q8_0"), psutil.Process()
    clips = sorted((shared_audio / "en_ivr").glob("*.flac"))
    before = 0
    for n in range(1000):
        result = model.transcribe(clips[n % len(clips)], timestamps="word" if n % 3 else "segment")
        assert result.duration > 0
        if n == 49:
            before = process.memory_info().rss
    growth = (process.memory_info().rss - before) / 1e6
    print(f"resident memory grew by {growth:.1f} MB after the first 50 of 1000 files")
    assert growth < 20
