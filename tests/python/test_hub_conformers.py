"""Pulling GigaAM and Parakeet: the branch that a row names, the files it lists, what the cache then holds."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformer_checkpoints import make_gigaam, make_parakeet, write_gigaam_ckpt, write_gigaam_hf, write_nemo
from gguf_contents import contents
from rustasr import hub, hub_fetch, registry
from rustasr.errors import ModelNotFoundError

Upstream = Callable[[str, Path], Any]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """`upstream("repository@branch", folder)` publishes a folder; fetching takes the named files only."""
    import huggingface_hub

    published: dict[str, Path] = {}

    def snapshot_download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        source = published[f"{repository}@{revision or 'main'}"]
        target = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / "0f"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in allow_patterns:
            if (source / name).exists():
                shutil.copy(source / name, target)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return lambda name, folder: published.update({name: folder})


@pytest.mark.parametrize(
    ("variant", "head", "characters"), [("ctc", "ctc", True), ("e2e-rnnt", "rnnt", False)]
)
def test_gigaam_comes_from_the_branch_of_its_variant(
    tmp_path: Path, root: Path, upstream: Upstream, variant: str, head: str, characters: bool
) -> None:
    folder = write_gigaam_hf(tmp_path / "repo", make_gigaam("v3", head, characters=characters))
    upstream(f"ai-sage/GigaAM-v3@{variant.replace('-', '_')}", folder)
    path = hub.pull(f"gigaam-v3-{variant}", "f16")
    assert path == root / f"gigaam-v3-{variant}-f16.gguf"
    keys = contents(path)[1]
    assert keys["head.type"] == head
    assert keys["general.source"] == f"ai-sage/GigaAM-v3@{variant.replace('-', '_')}"
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["source"] == keys["general.source"]


def test_parakeet_comes_as_a_nemo_archive(tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "repo").mkdir()
    write_nemo(tmp_path / "repo" / "parakeet-tdt-0.6b-v2.nemo", make_parakeet())
    (tmp_path / "repo" / "model.safetensors").write_bytes(b"not asked for")
    upstream("nvidia/parakeet-tdt-0.6b-v2@main", tmp_path / "repo")
    keys = contents(hub.resolve("parakeet-tdt-0.6b-v2", "f16"))[1]
    assert keys["general.architecture"] == "parakeet"
    assert keys["general.source"] == "nvidia/parakeet-tdt-0.6b-v2"


def test_a_branch_without_the_files_is_said(tmp_path: Path, upstream: Upstream) -> None:
    folder = write_gigaam_hf(tmp_path / "repo", make_gigaam("v3", "rnnt"))
    (folder / "tokenizer.model").unlink()
    upstream("ai-sage/GigaAM-v3@e2e_rnnt", folder)
    with pytest.raises(ModelNotFoundError, match=r"ai-sage/GigaAM-v3@e2e_rnnt has no tokenizer\.model"):
        hub.pull("gigaam-v3-e2e-rnnt")


def test_without_a_connection_the_message_says_what_to_bring(tmp_path: Path, upstream: Upstream) -> None:
    row = registry.get("gigaam-v3-e2e-ctc")
    advice = hub_fetch.by_hand(row, tmp_path)
    assert (
        "config.json, pytorch_model.bin, tokenizer.model of the repository ai-sage/GigaAM-v3@e2e_ctc"
        in advice
    )
    assert dataclasses.replace(row, revision=None).origin == "ai-sage/GigaAM-v3"


@pytest.mark.parametrize("kind", ["ckpt", "nemo", "hf"])
def test_a_local_checkpoint_is_converted_once(tmp_path: Path, root: Path, kind: str) -> None:
    if kind == "ckpt":
        source = write_gigaam_ckpt(tmp_path / "model.ckpt", make_gigaam("v3", "rnnt"))
    elif kind == "nemo":
        source = write_nemo(tmp_path / "model.nemo", make_parakeet("rnnt"), gzipped=True)
    else:
        source = write_gigaam_hf(tmp_path / "hf", make_gigaam("v3", "rnnt"))
    path = hub.resolve(source, "f16")
    assert path.parent == root / "converted"
    assert hub.resolve(source, "f16") == path
    if kind != "nemo":  # its tokenizer lies beside it, and is a part of what was converted
        beside = next(tmp_path.rglob("*tokenizer.model"))
        beside.write_bytes(beside.read_bytes().replace("привет".encode(), "прощай".encode()))
        assert hub.resolve(source, "f16") != path
