"""Every error that rustasr raises on purpose.

::

    RustAsrError
    ├── AudioError               the recording cannot be read, or is not audio
    ├── ModelError               anything about a model
    │   ├── ModelNotFoundError   no such name, file or folder, or it cannot be fetched
    │   ├── ModelFileError       the file is malformed, truncated or incomplete
    │   ├── UnsupportedModelError  well formed, but this version does not implement it
    │   └── ChecksumError        the content is not what its checksum says
    ├── DeviceError              no such device, or it failed or ran out of memory
    ├── OptionError              an argument is outside what the call accepts (also a ValueError)
    ├── TranscriptionError       the computation itself failed
    └── Cancelled                the caller stopped it; `.partial` is what was finished

A message says what was expected, what was found, where (file, key, tensor, byte), and what to try.
The C++ core throws the same classes (`csrc/core/error.h`); the bindings translate them by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rustasr.types import TranscriptionResult


class RustAsrError(Exception):
    """Base of the tree: `except RustAsrError` catches whatever rustasr raises on purpose."""


class AudioError(RustAsrError):
    """The recording cannot be read, is not audio, or holds nothing that could be transcribed."""


class ModelError(RustAsrError):
    """Something is wrong with the model that was asked for."""


class ModelNotFoundError(ModelError):
    """No such registry name, file or folder, or the weights cannot be fetched from here."""


class ModelFileError(ModelError):
    """The file is not a usable model: truncated, malformed, incomplete, wrong shape or type."""


class UnsupportedModelError(ModelError):
    """The file is well formed but asks for something that this version does not implement."""


class ChecksumError(ModelError):
    """The content of a file is not what its recorded checksum says."""


class DeviceError(RustAsrError):
    """No such device, or it failed or ran out of memory."""


class OptionError(RustAsrError, ValueError):
    """An argument is outside what the call accepts, or the model cannot honour it."""


class TranscriptionError(RustAsrError):
    """The computation itself failed."""


class Cancelled(RustAsrError):  # noqa: N818 - what happened, not a mistake
    """The caller stopped the work.

    `partial` is the result of what was finished before that, with times as usual, or None when
    nothing was.
    """

    def __init__(
        self, message: str = "cancelled by the caller", partial: TranscriptionResult | None = None
    ) -> None:
        super().__init__(message)
        self.partial = partial


__all__ = [
    "AudioError",
    "Cancelled",
    "ChecksumError",
    "DeviceError",
    "ModelError",
    "ModelFileError",
    "ModelNotFoundError",
    "OptionError",
    "RustAsrError",
    "TranscriptionError",
    "UnsupportedModelError",
]
