"""The registry's rows: names, facts about them, and how they are found."""

from __future__ import annotations

import re

import pytest

from rustasr import registry
from rustasr.convert.whisper import WhisperDims, expected_tensors
from rustasr.convert.whisper_tables import RELEASES
from rustasr.errors import ModelNotFoundError

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


@pytest.mark.parametrize("row", registry.MODELS, ids=lambda row: row.name)
def test_rows_are_complete(row: registry.ModelInfo) -> None:
    english = row.name.endswith(".en")
    assert row.license == "MIT"
    assert row.languages == ("en",) if english else len(row.languages) in (99, 100)
    assert row.multilingual is not english
    assert ("yue" in row.languages) is ("v3" in row.name)
    assert re.fullmatch(r"openai/whisper-[a-z0-9.-]+", row.repository)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(row.files)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in row.known_sha256)
    assert bool(row.packages) is (row.package_weights_sha256 is not None)
    for archive in row.packages:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", archive.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)


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


def test_real_weights_are_known_by_hash(tiny_en_ct2: object, base_ct2: object) -> None:
    from pathlib import Path

    from rustasr.convert.common import file_sha256

    for folder, name in ((tiny_en_ct2, "whisper-tiny.en"), (base_ct2, "whisper-base")):
        row = registry.by_sha256(file_sha256(Path(str(folder)) / "model.bin"))
        assert row is not None
        assert row.name == name
