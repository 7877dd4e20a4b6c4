"""rustasr: speech recognition on ggml, for Python and the command line.

>>> import rustasr
>>> result = rustasr.load_model("whisper-base").transcribe("talk.mp3")  # doctest: +SKIP
>>> print(result.text)  # doctest: +SKIP

Names are loaded on first use, so that `import rustasr` costs milliseconds.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustasr import errors
from rustasr.errors import (
    AudioError,
    Cancelled,
    ChecksumError,
    DeviceError,
    ModelError,
    ModelFileError,
    ModelNotFoundError,
    OptionError,
    RustAsrError,
    TranscriptionError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from rustasr.aligner import ForcedAligner, load_aligner
    from rustasr.audio import AudioSource, load_audio, open_audio
    from rustasr.diarization.encoder import load_speaker_encoder
    from rustasr.diarization.overlap import OverlapOptions, load_overlap_detector
    from rustasr.diarization.pipeline import DiarizationOptions
    from rustasr.diarization.transcript import diarize
    from rustasr.families.gigaam import GigaamOptions
    from rustasr.families.parakeet import ParakeetOptions
    from rustasr.families.qwen3_asr import QwenOptions
    from rustasr.families.whisper import WhisperOptions
    from rustasr.model import AsrModel, load_model
    from rustasr.progress import PartialText, Progress
    from rustasr.types import Segment, Token, TranscriptionResult, Word
    from rustasr.vad import SileroOptions, Span, Vad, WebRtcOptions, load_vad

_LAZY = {
    "AsrModel": "rustasr.model",
    "AudioSource": "rustasr.audio",
    "DiarizationOptions": "rustasr.diarization.pipeline",
    "ForcedAligner": "rustasr.aligner",
    "GigaamOptions": "rustasr.families.gigaam",
    "OverlapOptions": "rustasr.diarization.overlap",
    "ParakeetOptions": "rustasr.families.parakeet",
    "PartialText": "rustasr.progress",
    "Progress": "rustasr.progress",
    "QwenOptions": "rustasr.families.qwen3_asr",
    "Segment": "rustasr.types",
    "SileroOptions": "rustasr.vad",
    "Span": "rustasr.vad",
    "Token": "rustasr.types",
    "TranscriptionResult": "rustasr.types",
    "Vad": "rustasr.vad",
    "WebRtcOptions": "rustasr.vad",
    "WhisperOptions": "rustasr.families.whisper",
    "Word": "rustasr.types",
    "diarize": "rustasr.diarization.transcript",
    "load_aligner": "rustasr.aligner",
    "load_audio": "rustasr.audio",
    "load_model": "rustasr.model",
    "load_overlap_detector": "rustasr.diarization.overlap",
    "load_speaker_encoder": "rustasr.diarization.encoder",
    "load_vad": "rustasr.vad",
    "open_audio": "rustasr.audio",
}


def _load_core() -> Any:
    """Import the compiled module and let it find the backends that lie beside it.

    A developer build leaves `_core` in its build folder, which is then on `sys.path`: that folder
    joins the package's path, so that the module is `rustasr._core` there too.
    """
    package_dir = Path(__file__).parent
    if not any(package_dir.glob("_core.*.so")) and not any(package_dir.glob("_core*.pyd")):
        spec = importlib.util.find_spec("_core")
        if spec is not None and spec.origin is not None and str(Path(spec.origin).parent) not in __path__:
            __path__.append(str(Path(spec.origin).parent))
    try:
        core = importlib.import_module("rustasr._core")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the compiled part of rustasr (module _core) was not found in {package_dir}; "
            "expected it there after `pip install .`; reinstall the package, or put the folder of a "
            "developer build on PYTHONPATH"
        ) from error
    core.load_backends(str(package_dir))
    return core


def __getattr__(name: str) -> Any:
    if name == "_core":
        value = _load_core()
    elif name == "__version__":
        value = _version()
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module 'rustasr' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rustasr")
    except PackageNotFoundError:
        return "0.0.0+source"


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY) | {"__version__"})


__all__ = [
    "AsrModel",
    "AudioError",
    "AudioSource",
    "Cancelled",
    "ChecksumError",
    "DeviceError",
    "DiarizationOptions",
    "ForcedAligner",
    "GigaamOptions",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "OptionError",
    "OverlapOptions",
    "ParakeetOptions",
    "PartialText",
    "Progress",
    "QwenOptions",
    "RustAsrError",
    "Segment",
    "SileroOptions",
    "Span",
    "Token",
    "TranscriptionError",
    "TranscriptionResult",
    "UnsupportedModelError",
    "Vad",
    "WebRtcOptions",
    "WhisperOptions",
    "Word",
    "diarize",
    "errors",
    "load_aligner",
    "load_audio",
    "load_model",
    "load_overlap_detector",
    "load_speaker_encoder",
    "load_vad",
    "open_audio",
]
