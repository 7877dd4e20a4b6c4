"""What a path holds, decided by its content, and the Whisper checkpoint opened from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustasr.convert import ctranslate2, huggingface, safetensors_files, torch_pickle, whispercpp
from rustasr.convert.common import Checkpoint
from rustasr.convert.whisper import WhisperDims, WhisperSource, dims_from_shapes, parse_heads
from rustasr.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError

_MAX_CONFIG_BYTES = 16 << 20
_WANTED = (
    "expected a .gguf, a Hugging Face folder (config.json + model.safetensors), a CTranslate2 folder "
    "(model.bin), an OpenAI .pt or a whisper.cpp .bin"
)


@dataclass(frozen=True)
class Detected:
    """A source. `kind`: gguf, ctranslate2, safetensors, torch or whispercpp. `files` hold the weights."""

    kind: str
    path: Path
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Where configuration and tokenizer files would lie."""
        return self.files[0].parent

    @property
    def label(self) -> str:
        """The name that people gave it: repository, folder or file name (a hub snapshot's is a hash)."""
        parts = self.files[0].absolute().parts
        for part in parts:
            if part.startswith("models--"):
                return part.removeprefix("models--").replace("--", "/")
        is_generic = self.files[0].name in ("model.bin", "pytorch_model.bin") or self.kind == "safetensors"
        return self.folder.absolute().name if is_generic else self.files[0].name

    def side_files(self) -> list[Path]:
        """Files beside the weights that the conversion depends on."""
        names = ("config.json", "generation_config.json", "tokenizer.json", "vocab.json", "added_tokens.json")
        return [self.folder / name for name in names if (self.folder / name).is_file()]


def detect(path: Path) -> Detected:
    """Looks into `path` (a file or a folder); names and extensions of files do not matter.

    Raises ModelNotFoundError when nothing is there, UnsupportedModelError when it is no known format.
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path}: no such file or folder; {_WANTED}")
    if path.is_dir():
        return _detect_folder(path)
    return Detected(_file_kind(path), path, (path,))


def _file_kind(path: Path) -> str:
    with open(path, "rb") as stream:
        head = stream.read(64)
    if head[:4] == b"GGUF":
        return "gguf"
    if head[:4] == whispercpp.MAGIC:
        return "whispercpp"
    if head[:4] == torch_pickle.ZIP_HEAD or head.startswith(torch_pickle.LEGACY_HEAD):
        return "torch"
    if ctranslate2.looks_like(head):
        return "ctranslate2"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    raise UnsupportedModelError(
        f"{path}: begins with {head[:16]!r}, which is no format known here; {_WANTED}"
    )


def _detect_folder(folder: Path) -> Detected:
    for kind, single in (("safetensors", "model.safetensors"), ("torch", "pytorch_model.bin")):
        if (folder / single).is_file():
            return Detected(kind, folder, (folder / single,))
        if (folder / f"{single}.index.json").is_file():
            return Detected(kind, folder, _shards(folder / f"{single}.index.json"))
    if (folder / "model.bin").is_file():
        return Detected(_file_kind(folder / "model.bin"), folder, (folder / "model.bin",))
    files = sorted(
        path for path in folder.iterdir() if path.suffix in (".gguf", ".bin", ".pt", ".safetensors")
    )
    if len(files) == 1:
        return Detected(_file_kind(files[0]), folder, (files[0],))
    names = ", ".join(path.name for path in files[:5]) or "no such file"
    raise UnsupportedModelError(f"{folder}: found {names}; {_WANTED}")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_config(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index}: no weight_map (tensor name -> file)")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ModelFileError(f"{index}: shard {name!r:.80} is not a file of this folder: fetch it too")
    return tuple(index.parent / name for name in names)


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a file of reasonable size; ModelFileError when it is missing or damaged."""
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: it belongs to the model, copy it beside the weights")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes is no configuration")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def open_whisper(found: Detected) -> WhisperSource:
    """The Whisper checkpoint of a detected source; the weights stay on disk until they are written."""
    return _OPENERS[found.kind](found)


def _open_ctranslate2(found: Detected) -> WhisperSource:
    model = ctranslate2.ModelBin(found.files[0])
    tensors = ctranslate2.whisper_tensors(model)
    where = str(found.files[0])
    dims = dims_from_shapes(tensors, *ctranslate2.head_counts(model, tensors), where)
    path = found.folder / "config.json"
    config = read_config(path) if path.is_file() else {}
    alignment = parse_heads(config.get("alignment_heads"), str(path))
    return WhisperSource(where, dims, tensors, alignment, found.label)


def _open_safetensors(found: Detected) -> WhisperSource:
    return _from_hugging_face(found, safetensors_files.read_safetensors(found.files))


def _open_torch(found: Detected) -> WhisperSource:
    archives = [torch_pickle.TorchArchive(path) for path in found.files]
    root = archives[0].root
    if isinstance(root, dict) and "model_state_dict" in root:
        return _from_openai(found, archives[0])
    tensors: Checkpoint = {}
    for archive in archives:
        for name, tensor in _state(archive, archive.root).items():
            if name in tensors:
                raise ModelFileError(f"{archive.path}: tensor {name!r} is in another shard too")
            tensors[name] = tensor
    if not (found.folder / "config.json").is_file():
        raise UnsupportedModelError(
            f"{found.files[0]}: expected OpenAI's 'dims' and 'model_state_dict', or a config.json beside a "
            "Hugging Face state dict; found neither"
        )
    return _from_hugging_face(found, tensors)


def _state(archive: torch_pickle.TorchArchive, state: Any) -> Checkpoint:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ModelFileError(f"{archive.path}: holds a {type(state).__name__}, expected tensors by name")
    return {name: archive.tensor(name, value) for name, value in state.items()}


def _from_openai(found: Detected, archive: torch_pickle.TorchArchive) -> WhisperSource:
    where = str(archive.path)
    dims = archive.root.get("dims")
    names = list(WhisperDims.__dataclass_fields__)
    if not isinstance(dims, dict) or sorted(map(str, dims)) != sorted(names):
        raise ModelFileError(f"{where}: 'dims' is {dims!r:.120}, expected {', '.join(names)}")
    checked = WhisperDims(**dims)
    checked.check(where)
    return WhisperSource(where, checked, _state(archive, archive.root["model_state_dict"]), None, found.label)


def _from_hugging_face(found: Detected, tensors: Checkpoint) -> WhisperSource:
    where = str(found.path)
    path = found.folder / "config.json"
    dims = huggingface.whisper_dims(read_config(path), str(path))
    generation = found.folder / "generation_config.json"
    config = read_config(generation) if generation.is_file() else {}
    alignment = parse_heads(config.get("alignment_heads"), str(generation))
    return WhisperSource(where, dims, huggingface.whisper_tensors(tensors, where), alignment, found.label)


def _open_whispercpp(found: Detected) -> WhisperSource:
    model = whispercpp.GgmlBin(found.files[0])
    return WhisperSource(
        str(found.files[0]), model.dims, model.tensors, None, found.label, tuple(model.tokens)
    )


_OPENERS: dict[str, Callable[[Detected], WhisperSource]] = {
    "ctranslate2": _open_ctranslate2,
    "safetensors": _open_safetensors,
    "torch": _open_torch,
    "whispercpp": _open_whispercpp,
}


def release_name(label: str) -> str | None:
    """ "ggml-base.en.bin", "faster-whisper-tiny", "openai/whisper-small" -> "whisper-<size>"; else None.

    Only the whole name counts: "whisper-small-hindi" is somebody's own model.
    """
    short = label.lower().replace("_", "-").rpartition("/")[2]
    match = re.fullmatch(
        r"(?:ggml-)?(?:openai-)?(?:faster-)?(?:whisper-)?"
        r"((?:tiny|base|small|medium)(?:\.en)?|large(?:-v[123])?(?:-turbo)?|turbo)"
        r"(?:-(?:ct2|hf|fp16|f16|q\d\S*))?(?:\.(?:pt|bin))?",
        short,
    )
    if match is None:
        return None
    size = {"turbo": "large-v3-turbo", "large": "large-v3"}.get(match[1], match[1])
    return f"whisper-{size}"
