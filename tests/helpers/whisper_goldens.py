"""The stored outputs of openai-whisper and how to hold a result against them (tests/data/goldens/whisper)."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent.parent / "data" / "goldens" / "whisper"
MODELS = ("tiny.en", "base")
Golden = dict[str, Any]


@cache
def rows(name: str) -> dict[str, Golden]:
    """The rows of `<name>.jsonl` by clip; empty where the file is missing."""
    path = FOLDER / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["clip"]: row for row in map(json.loads, lines)}


@cache
def layers(model: str) -> dict[str, NDArray[Any]]:
    """The stored slices of every stage for jfk.flac."""
    with np.load(FOLDER / f"{model}-layers-jfk.npz") as file:
        return {key: file[key] for key in file.files}


def samples(path: Path) -> NDArray[np.float32]:
    """Mono float32 samples of a 16 kHz file, channels averaged; read without the package under test."""
    import soundfile

    data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 16000, f"{path}: {rate} Hz"
    return np.ascontiguousarray(data.mean(axis=1, dtype=np.float32))


@cache
def manifest(folder: Path) -> dict[str, dict[str, str]]:
    """MANIFEST.tsv of the recordings, by file."""
    with (folder / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["file"]: dict(row) for row in table}


def margin(golden: Golden) -> float:
    """How close the reference's greedy choice ever was to another token (difference of logits)."""
    return min((w.get("min_margin", float("inf")) for w in golden["windows"]), default=float("inf"))


def assert_same_segments(result: Any, golden: Golden, *, seconds: float = 1e-6) -> None:
    """Text, token ids and times of every segment as in the golden (blank segments of the golden left out)."""
    expected = [s for s in golden["segments"] if s["text"].strip()]
    found = [(round(s.start, 3), round(s.end, 3), s.text.strip()) for s in result.segments]
    end = golden["duration"]  # openai-whisper's last timestamp may lie behind the end of the recording
    wanted = [(min(s["start"], end), min(s["end"], end), s["text"].strip()) for s in expected]
    assert [f[2] for f in found] == [w[2] for w in wanted], describe(golden)
    for have, want in zip(found, wanted, strict=True):
        assert abs(have[0] - want[0]) <= seconds, (
            f"start of {want[2]!r}: {have[0]} for {want[0]}; {describe(golden)}"
        )
        assert abs(have[1] - want[1]) <= seconds, (
            f"end of {want[2]!r}: {have[1]} for {want[1]}; {describe(golden)}"
        )
    for segment, want in zip(result.segments, expected, strict=True):
        if segment.tokens:
            assert list(segment.tokens) == want["tokens"], describe(golden)
    assert result.text.strip() == golden["text"].strip()


def describe(golden: Golden) -> str:
    """For the message of a failed comparison: is this a near tie in the reference?"""
    name = f"{golden['model']} {golden['mode']} {golden['clip']}"
    return f"{name}: the reference's smallest margin was {margin(golden):.5f}"


def assert_times_in_order(result: Any, duration: float) -> None:
    """Segments, and words within them, run forwards and stay inside the recording."""
    end = 0.0
    for segment in result.segments:
        assert end <= segment.start + 1e-6 <= segment.end + 2e-6 <= duration + 0.011, segment
        end = segment.end
    end = 0.0
    for word in (w for s in result.segments for w in s.words or ()):
        assert end <= word.start + 1e-6 <= word.end + 2e-6 <= duration + 0.011, word
        end = word.end


def cut_loop(text: str, n: int = 6, times: int = 4) -> str | None:
    """The first `times` equal groups of at most `n` words in a row, or None: a decoding loop."""
    words = text.lower().split()
    for size in range(1, n + 1):
        for i in range(len(words) - size * times + 1):
            group = words[i : i + size]
            if all(words[i + k * size : i + (k + 1) * size] == group for k in range(times)):
                return " ".join(group)
    return None
