"""`load_model`: from a name or a path to an object that transcribes.

registry name or path → rustasr.hub (fetch, convert) → GGUF → `_core.Model` → the family's class.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rustasr.errors import UnsupportedModelError

if TYPE_CHECKING:
    from rustasr import _core
    from rustasr.aligner import ForcedAligner
    from rustasr.audio import AudioInput
    from rustasr.diarization import DiarizationOptions
    from rustasr.journal import Rounds
    from rustasr.progress import FileProgress, ProgressCallback, TextCallback
    from rustasr.registry import ModelInfo
    from rustasr.streaming import TextStream
    from rustasr.types import TranscriptionResult
    from rustasr.vad import Vad

FAMILIES = {
    "whisper": "rustasr.families.whisper:Whisper",
    "gigaam": "rustasr.families.gigaam:Gigaam",
    "parakeet": "rustasr.families.parakeet:Parakeet",
    "qwen3_asr": "rustasr.families.qwen3_asr:Qwen3Asr",
}
"""general.architecture of the GGUF -> module:class. One row per family; grep finds them all."""

NOT_TRANSCRIBERS = {
    "silero-vad": "a detector of speech and does not transcribe: use it with another model "
    "(--vad silero, rustasr.load_vad)",
    **dict.fromkeys(
        ("campplus", "wespeaker", "ge2e"),
        "a speaker encoder and does not transcribe: it tells voices apart beside another model "
        "(--encoder, rustasr.load_speaker_encoder)",
    ),
    "pyannet": "a detector of overlapped speech and does not transcribe: it finds where two speak at once, "
    "for diarization (--overlap, rustasr.load_overlap_detector)",
}
"""general.architecture of the others -> what they are for."""


@runtime_checkable
class AsrModel(Protocol):
    """What every family offers."""

    @property
    def name(self) -> str:
        """Registry name, or the name that the model file gives itself."""

    @property
    def model_type(self) -> str:
        """The family: "whisper", ..."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that `transcribe` takes as an array."""

    @property
    def supported_languages(self) -> tuple[str, ...]:
        """Language codes, most to least common in training."""

    @property
    def model_info(self) -> ModelInfo | None:
        """The registry row, or None for a model that has none."""

    def transcribe(
        self,
        audio: AudioInput,
        options: Any = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        vad: str | Vad | None = None,
        diarize: bool | DiarizationOptions = False,
        journal: str | Path | Rounds | None = None,
        on_text: TextCallback | None = None,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TranscriptionResult:
        """Transcribes a recording of any length; see the family for its options."""

    def stream(
        self,
        audio: AudioInput,
        options: Any = None,
        *,
        align: str | Path | ForcedAligner | None = None,
        vad: str | Vad | None = None,
        journal: str | Path | None = None,
        progress: ProgressCallback | None = None,
        **option_overrides: Any,
    ) -> TextStream:
        """Transcribes in a thread of its own: iterate over the text as it comes in; `result()` is the end."""

    def cancel(self) -> None:
        """Stops every `transcribe` and `stream` of this model that is running; each raises Cancelled."""


def load_model(
    name_or_path: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    weights: str = "auto",
    quant: str | None = None,
    *,
    progress: FileProgress | None = None,
) -> AsrModel:
    """Loads a model, fetching and converting it first where needed.

    `name_or_path`: a registry name ("whisper-base"), a `.gguf`, a Hugging Face or CTranslate2 folder, a
    whisper.cpp `.bin`, an OpenAI `.pt`, a GigaAM `.ckpt` or a NeMo `.nemo`; None means the default model.
    `device`: "auto", "cpu", or a name from `rustasr devices`. `threads`: 0 means one per physical core.
    `weights`: "auto", "safetensors" or "gguf". `quant`: the type of the weights ("q8_0"), for names and for
    sources that are converted.
    `progress(done, total, what)` follows downloads and conversions.

    Raises ModelNotFoundError, ModelFileError, UnsupportedModelError, ChecksumError, DeviceError, OptionError.
    """
    from rustasr import hub

    wanted = name_or_path if name_or_path is not None else hub.default_model()
    if str(wanted).lower() in NOT_TRANSCRIBERS:
        raise UnsupportedModelError(f"{wanted} is {NOT_TRANSCRIBERS[str(wanted).lower()]}")
    core, name, row = open_model(wanted, device, threads, weights, quant, progress=progress)
    model: AsrModel = _family(core.architecture, core.path)(core, name=name, model_info=row)
    return model


def open_model(
    name_or_path: str | Path,
    device: str,
    threads: int,
    weights: str,
    quant: str | None,
    *,
    progress: FileProgress | None = None,
) -> tuple[_core.Model, str, ModelInfo | None]:
    """(the compiled model, its name, its registry row if it has one); the arguments are `load_model`'s."""
    from rustasr import _core, hub, registry

    path = hub.resolve(name_or_path, quant, weights, progress=progress)
    core = _core.Model(str(path), device, threads)
    row = registry.find(str(name_or_path)) or registry.find(str(core.metadata.get("general.name", "")))
    name = row.name if row is not None else str(core.metadata.get("general.name") or path.stem)
    return core, name, row


def _family(architecture: str, path: str) -> Any:
    """The class that serves an architecture."""
    target = FAMILIES.get(architecture)
    if architecture in NOT_TRANSCRIBERS:
        raise UnsupportedModelError(f"{path} is {NOT_TRANSCRIBERS[architecture]}")
    if target is None:
        raise UnsupportedModelError(
            f"{path}: general.architecture is {architecture!r}, expected one of {', '.join(FAMILIES)}"
        )
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


__all__ = ["FAMILIES", "AsrModel", "load_model", "open_model"]
