"""The command line with a real model: every command once, on real speech."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from rustasr.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

pytestmark = pytest.mark.weights
JFK_WORDS = ("fellow Americans", "country can do for you", "what you can do for your country")


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def model(tiny_en_gguf: Callable[[str], Path]) -> Path:
    return tiny_en_gguf("q8_0")


def test_a_recording_in_every_format(model: Path, jfk_path: Path, tmp_path: Path) -> None:
    formats = [
        part for name in ("text", "json", "srt", "vtt", "tsv", "verbose") for part in ("--format", name)
    ]
    result = run(
        *("transcribe", jfk_path, "-m", model, *formats, "--timestamps", "word", "--output-dir", tmp_path)
    )
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.iterdir())) == 6
    for suffix in ("txt", "srt", "vtt", "tsv", "log"):
        text = " ".join((tmp_path / f"jfk.{suffix}").read_text(encoding="utf-8").split())
        assert "country" in text and "Americans" in text, suffix
    document = json.loads((tmp_path / "jfk.json").read_text(encoding="utf-8"))
    assert all(words in document["text"].replace(",", "") for words in JFK_WORDS)
    assert document["model"] == "whisper-tiny.en" and document["language"] == "en"
    words = [word for segment in document["segments"] for word in segment["words"]]
    assert len(words) == len(document["text"].split())
    assert all(a["end"] <= b["start"] for a, b in pairwise(words))
    assert 0 <= words[0]["start"] < 1.5 and 9 < words[-1]["end"] <= 11.0


def test_standard_input_gives_the_same_text_as_the_file(model: Path, jfk_path: Path) -> None:
    from_file = run("transcribe", jfk_path, "-m", model)
    from_pipe = run("transcribe", "-", "-m", model, stdin=jfk_path.read_bytes())
    assert from_file.exit_code == from_pipe.exit_code == 0
    assert from_file.stdout == from_pipe.stdout and "country" in from_file.stdout


def test_what_an_english_model_cannot_do_is_refused(model: Path, jfk_path: Path) -> None:
    for arguments in (
        ["--task", "translate"],
        ["--language", "de"],
        ["--beam-size", "0.5"],
        ["--seed", "-1"],
    ):
        result = run("transcribe", jfk_path, "-m", model, *arguments)
        assert result.exit_code == 2, (arguments, result.output)


def test_a_damaged_model_exits_with_3(model: Path, jfk_path: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:1_000_000])
    result = run("transcribe", jfk_path, "-m", tmp_path / "cut.gguf")
    assert result.exit_code == 3 and "cut.gguf" in result.stderr
    assert run("transcribe", jfk_path, "-m", model, "--device", "nonsense").exit_code == 3


def test_inspect_shows_metadata_and_tensors(model: Path) -> None:
    result = run("models", "inspect", model, "--tensors")
    assert result.exit_code == 0, result.output
    for part in ("whisper.n_audio_state", "384", "encoder.blocks.3.attn.qkv.weight", "q8_0"):
        assert part in result.stdout
    document = json.loads(run("models", "inspect", model, "--json").stdout)
    assert document["metadata"]["whisper.n_vocab"] == 51864 and len(document["tensors"]) > 100


def test_convert_and_quantize_report_and_refuse_to_overwrite(tiny_en_ct2: Path, tmp_path: Path) -> None:
    whole, small = tmp_path / "tiny.gguf", tmp_path / "small.gguf"
    result = run("convert", tiny_en_ct2, "-o", whole)
    assert result.exit_code == 0 and "ctranslate2" in result.stdout, result.output
    assert run("convert", tiny_en_ct2, "-o", whole).exit_code == 2
    result = run("quantize", "--input", whole, "--output", small, "--qtype", "q6k")
    assert result.exit_code == 0, result.output
    assert "token_embedding" in result.stdout and "kept wider" in result.stdout  # 384 is no multiple of 256
    assert small.stat().st_size < 0.7 * whole.stat().st_size
    assert run("quantize", "--input", whole, "--output", small, "--qtype", "q4_0").exit_code == 2
    mixed = ["--qtype", "q4_0", "--force", "--tensor-type", "token_embedding=q8_0"]
    result = run("quantize", "--input", whole, "--output", small, *mixed)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith((" encoder", " decoder"))]
    types = {row[0]: row[3] for row in rows}
    assert types["decoder.token_embedding.weight"] == "q8_0"
    assert types["encoder.blocks.0.mlp.0.weight"] == "q4_0"
    assert types["decoder.blocks.0.mlp.0.weight"] == "q8_0"  # the decoder of a model this small stays wider
    assert run("quantize", "--input", whole, "--output", small, "--qtype", "q3", "--force").exit_code == 2
    assert run("convert", tmp_path, "-o", tmp_path / "x.gguf").exit_code == 3


def test_a_model_in_the_cache_is_listed_used_and_removed(
    model: Path, jfk_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path))
    assert json.loads(run("models", "list", "--json").stdout)["local"] == []
    cached = tmp_path / "models" / "whisper-tiny.en-q8_0.gguf"
    cached.parent.mkdir(exist_ok=True)
    shutil.copy(model, cached)
    (local,) = json.loads(run("models", "list", "--json").stdout)["local"]
    assert (local["name"], local["type"]) == ("whisper-tiny.en", "q8_0")
    listing = run("models", "list").stdout
    assert cached.name in listing and "whisper-large-v3-turbo" in listing
    assert "country" in run("transcribe", jfk_path).stdout  # the default, since it is the only one
    assert run("models", "verify", "whisper-tiny.en").exit_code == 3  # copied in: no hash to compare with
    assert run("models", "remove", "whisper-tiny.en").exit_code == 0
    assert not cached.exists()
    assert run("models", "remove", "whisper-tiny.en").exit_code == 3


def test_benchmark_prints_a_table_and_writes_its_numbers(model: Path, jfk_path: Path, tmp_path: Path) -> None:
    (tmp_path / "jfk.txt").write_text(
        "And so my fellow Americans ask not what your country can do for you "
        "ask what you can do for your country",
        encoding="utf-8",
    )
    result = run(
        *("benchmark", "--audio", jfk_path, "--models", model, "--repeat", "1"),
        *("--reference", tmp_path / "jfk.txt", "--output", tmp_path / "b.json", "--plot", tmp_path / "b.svg"),
    )
    assert result.exit_code == 0, result.output
    assert model.name in result.stdout and "MiB" in result.stdout
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["results"][0]["rtf"] > 0
    assert (tmp_path / "b.svg").read_text(encoding="utf-8").startswith("<svg")


def test_devices_and_the_self_check() -> None:
    devices = run("devices")
    assert devices.exit_code == 0 and "cpu" in devices.stdout
    report = run("test")
    assert report.exit_code == 0, report.output
    assert "good (difference" in report.stdout and "ggml" in report.stdout
    assert run("test", "--device", "nonsense").exit_code == 3
