"""The registry's rows: names, facts about them, and how they are found."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from rustasr import registry
from rustasr.convert.conformer import Conformer, Head, n_parameters
from rustasr.convert.qwen3_asr import (
    ALIGNER_LANGUAGES,
    LANGUAGES,
    AudioDims,
    Qwen3Source,
    TextDims,
)
from rustasr.convert.qwen3_asr import expected_tensors as qwen_tensors
from rustasr.convert.whisper import WhisperDims, expected_tensors
from rustasr.convert.whisper_tables import RELEASES
from rustasr.errors import ModelNotFoundError
from rustasr.families.qwen3_text import CODE_OF_NAME

NAMES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1", "large-v2",
    "large-v3", "large-v3-turbo",
)  # fmt: skip


def test_every_published_whisper_has_a_row() -> None:
    names = {row.name for row in registry.MODELS if row.model_type is registry.ModelType.WHISPER}
    assert names == {f"whisper-{size}" for size in NAMES} == {row.name for row in RELEASES}


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_parameters_follow_from_the_dimensions(release: object) -> None:
    row = next(row for row in RELEASES if row is release)
    heads = row.n_audio_state // 64
    dims = WhisperDims(
        row.n_mels, 1500, row.n_audio_state, heads, row.n_audio_layer,
        row.n_vocab, 448, row.n_audio_state, heads, row.n_text_layer,
    )  # fmt: skip
    total = 0
    for shape in expected_tensors(dims).values():
        size = 1
        for extent in shape:
            size *= extent
        total += size
    assert registry.get(row.name).parameters == total


def rows_of(family: registry.ModelType) -> list[Any]:
    rows = [row for row in registry.MODELS if row.model_type is family]
    assert rows
    return [pytest.param(row, id=row.name) for row in rows]


@pytest.mark.parametrize("row", rows_of(registry.ModelType.WHISPER))
def test_whisper_rows_are_complete(row: registry.ModelInfo) -> None:
    english = row.name.endswith(".en")
    assert row.license == "MIT"
    assert row.languages == ("en",) if english else len(row.languages) in (99, 100)
    assert row.multilingual is not english
    assert ("yue" in row.languages) is ("v3" in row.name)
    assert re.fullmatch(r"openai/whisper-[a-z0-9.-]+", row.repository)
    assert row.origin == row.repository
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(row.files)


@pytest.mark.parametrize("row", rows_of(registry.ModelType.GIGAAM))
def test_gigaam_rows_are_complete(row: registry.ModelInfo) -> None:
    variant = row.name.removeprefix("gigaam-v3-")
    assert row.origin == f"ai-sage/GigaAM-v3@{variant.replace('-', '_')}"
    assert (row.license, row.languages, row.multilingual) == ("MIT", ("ru",), False)
    assert ("tokenizer.model" in row.files) is variant.startswith("e2e")
    assert {"config.json", "pytorch_model.bin"} <= set(row.files)
    full = Conformer(
        n_mels=64, n_layer=16, d_model=768, n_head=16, d_ff=3072, conv_kernel=5, conv_norm="layer_norm",
        use_bias=True, xscaling=False, attention="rotary", rope_base=5000.0, subsampling="conv1d",
        subsampling_factor=4, subsampling_kernel=5, subsampling_channels=768,
    )  # fmt: skip
    head = Head("ctc", {"ctc": 33, "rnnt": 33, "e2e-ctc": 256, "e2e-rnnt": 1024}[variant])
    if variant.endswith("rnnt"):
        head = replace(head, type="rnnt", max_symbols=10, pred_layers=1, pred_hidden=320, joint_hidden=320)
    assert row.parameters == n_parameters(full, head)


@pytest.mark.parametrize("row", rows_of(registry.ModelType.PARAKEET))
def test_parakeet_rows_are_complete(row: registry.ModelInfo) -> None:
    assert row.origin == f"nvidia/{row.name}"
    assert row.files == (f"{row.name}.nemo",)
    assert row.license == "CC-BY-4.0"
    assert len(row.languages) == (25 if row.name.endswith("v3") else 1)
    is_tdt = "tdt" in row.name
    full = Conformer(
        n_mels=128 if is_tdt else 80, n_layer=42 if "1.1b" in row.name else 24, d_model=1024, n_head=8,
        d_ff=4096, conv_kernel=9, conv_norm="batch_norm", use_bias=not is_tdt, xscaling=not is_tdt,
        attention="rel_pos", rope_base=0.0, subsampling="dw_striding", subsampling_factor=8,
        subsampling_kernel=3, subsampling_channels=256,
    )  # fmt: skip
    head = Head("ctc", 8192 if row.name.endswith("v3") else 1024)
    if "ctc" not in row.name:
        head = replace(head, type="rnnt", max_symbols=10, pred_layers=2, pred_hidden=640, joint_hidden=640)
    if is_tdt:
        head = replace(head, type="tdt", durations=(0, 1, 2, 3, 4))
    assert row.parameters == n_parameters(full, head)


@pytest.mark.parametrize(
    ("row", "encoder", "text", "n_vocab", "n_classes"),
    [
        ("qwen3-asr-0.6b", (18, 896, 14, 3584), (1024, 3072), 151_936, 0),
        ("qwen3-asr-1.7b", (24, 1024, 16, 4096), (2048, 6144), 151_936, 0),
        ("qwen3-forced-aligner-0.6b", (24, 1024, 16, 4096), (1024, 3072), 152_064, 5000),
    ],
)
def test_qwen_rows_are_complete(
    row: str, encoder: tuple[int, ...], text: tuple[int, int], n_vocab: int, n_classes: int
) -> None:
    found = registry.get(row)
    source = Qwen3Source(
        where="",
        audio=AudioDims(128, *encoder, conv_channels=480, chunk_frames=100, window_frames=800),
        text=TextDims(n_vocab, 28, text[0], 16, 8, 128, text[1], 65536),
        rope_base=1e6, norm_eps=1e-6, n_classes=n_classes, segment_ms=80, languages=(), audio_token_id=0,
        timestamp_token_id=None, tensors={},
    )  # fmt: skip
    assert found.parameters == sum(math.prod(shape) for shape in qwen_tensors(source).values())
    assert found.license == "Apache-2.0"
    assert registry.find(found.repository.removeprefix("Qwen/")) is found
    names = ALIGNER_LANGUAGES if n_classes else LANGUAGES
    assert found.languages == tuple(CODE_OF_NAME[name] for name in names)
    assert {"config.json", "tokenizer_config.json", "vocab.json", "merges.txt"} <= set(found.files)
    weights = [name for name in found.files if name.endswith(".safetensors")]
    assert len(weights) == (2 if "1.7b" in row else 1)
    assert ("model.safetensors.index.json" in found.files) is (len(weights) > 1)


@pytest.mark.parametrize("row", registry.MODELS, ids=lambda row: row.name)
def test_pins_are_hashes(row: registry.ModelInfo) -> None:
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in row.known_sha256)
    assert bool(row.packages) is (row.package_weights_sha256 is not None)
    for archive in row.packages:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", archive.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)


def test_a_name_counts_only_with_the_size_of_the_published_model() -> None:
    row = registry.get("gigaam-v3-ctc")
    assert registry.published("GigaAM-v3-ctc", row.parameters) is row
    assert registry.published(row.name, row.parameters + row.parameters // 200) is row
    assert registry.published(row.name, 6_484_002) is None
    assert registry.published("gigaam-v9-ctc", row.parameters) is None


def test_hashes_are_unique_and_name_their_row() -> None:
    digests = [digest for row in registry.MODELS for digest in row.known_sha256]
    assert len(digests) == len(set(digests))
    for row in registry.MODELS:
        assert all(registry.by_sha256(digest) is row for digest in row.known_sha256)
    assert registry.by_sha256("0" * 64) is None


def test_aliases_and_case() -> None:
    assert registry.get("whisper-turbo").name == "whisper-large-v3-turbo"
    assert registry.get("Whisper-Large").name == "whisper-large-v3"
    assert registry.find("nothing") is None


def test_unknown_names_suggest_or_say_it_is_no_file() -> None:
    with pytest.raises(ModelNotFoundError, match=r"did you mean .*whisper-base"):
        registry.get("whisper-bsae")
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        registry.get("models/mine.gguf")
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        registry.get("parakeet.nemo")


def test_real_weights_are_known_by_hash(tiny_en_ct2: object, base_ct2: object) -> None:
    from pathlib import Path

    from rustasr.convert.common import file_sha256

    for folder, name in ((tiny_en_ct2, "whisper-tiny.en"), (base_ct2, "whisper-base")):
        row = registry.by_sha256(file_sha256(Path(str(folder)) / "model.bin"))
        assert row is not None
        assert row.name == name
