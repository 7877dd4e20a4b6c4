"""Reader of whisper.cpp's `.bin` ("ggml") models, float or quantised.

Layout after whisper.cpp 1.8, models/convert-pt-to-ggml.py and src/whisper.cpp (`whisper_model_load`).
Little endian, nothing aligned:

    u32 "ggml" 0x67676d6c   i32 n_vocab n_audio_ctx n_audio_state n_audio_head n_audio_layer
                                n_text_ctx n_text_state n_text_head n_text_layer n_mels ftype
    i32 n_mel, n_bin, f32 [n_mel, n_bin]          the mel filterbank
    i32 n_tokens; per token: u32 length, bytes    base tokens in rank order, no merges
    to the end: i32 rank, name length, ggml type; i32 dim[rank], fastest first; name; data
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.binary import MAX_RANK, Cursor, MappedFile
from rustasr.convert.common import ALL_ROWS, Checkpoint, SourceTensor
from rustasr.convert.encoding import dequantize_rows
from rustasr.convert.mel import slaney_filterbank
from rustasr.convert.whisper import N_FFT, WhisperDims
from rustasr.errors import ModelFileError, UnsupportedModelError

MAGIC = (0x67676D6C).to_bytes(4, "little")
_HEADER = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer",
    "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer", "n_mels",
)  # fmt: skip
_BLOCK_FORMAT = 2  # ggml's GGML_QNT_VERSION since May 2023, stored as thousands of ftype
_MAX_TOKENS = 1 << 20
_MAX_TENSORS = 1 << 16
# ggml_type -> (name, values in a block, bytes of a block); ggml.h and ggml-common.h
_TYPES = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 10: ("q2_k", 256, 84), 11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210), 30: ("bf16", 1, 2),
}  # fmt: skip


class GgmlBin:
    """The parsed file: `dims`, `tokens` (bytes in rank order) and `tensors` under openai-whisper's names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = MappedFile(path)
        cursor = Cursor(self.file)
        if cursor.take(4, "the magic number") != MAGIC:
            raise ModelFileError(f"{path}: no ggml magic number: not a whisper.cpp model")
        self.dims = WhisperDims(**{name: cursor.i32(name) for name in _HEADER})
        self.dims.check(str(path))
        self.block_format = cursor.bounded(cursor.i32("ftype"), 0, 1 << 20, "ftype") // 1000
        self._check_filters(cursor)
        self.tokens = self._read_tokens(cursor)
        self.tensors: Checkpoint = {}
        while cursor.offset < self.file.size:
            if len(self.tensors) >= _MAX_TENSORS:
                raise ModelFileError(f"{path}: more than {_MAX_TENSORS} tensors")
            tensor = self._read_tensor(cursor)
            if tensor.name in self.tensors:
                raise ModelFileError(f"{path}: tensor {tensor.name!r} appears twice")
            self.tensors[tensor.name] = tensor

    def _check_filters(self, cursor: Cursor) -> None:
        """The stored filterbank must be the one that is computed; another would be another model."""
        shape = (cursor.i32("mel filters"), cursor.i32("mel bins"))
        if shape != (self.dims.n_mels, N_FFT // 2 + 1):
            raise ModelFileError(
                f"{self.path}: mel filters {list(shape)}, expected [{self.dims.n_mels}, {N_FFT // 2 + 1}]"
            )
        start = cursor.skip(4 * shape[0] * shape[1], "mel filters")
        stored = self.file.array(start, shape, "<f4", "mel filters")
        if not np.allclose(stored, slaney_filterbank(self.dims.n_mels), rtol=0, atol=1e-6):
            raise UnsupportedModelError(
                f"{self.path}: its mel filters are not Whisper's (Slaney, 0 to 8 kHz)"
            )

    def _read_tokens(self, cursor: Cursor) -> list[bytes]:
        count = cursor.bounded(cursor.i32("number of tokens"), 256, _MAX_TOKENS, "number of tokens")
        tokens = []
        for index in range(count):
            what = f"token {index}"
            length = cursor.bounded(cursor.u32(f"length of {what}"), 0, 4096, f"length of {what}")
            tokens.append(cursor.take(length, what))
        return tokens

    def _read_tensor(self, cursor: Cursor) -> SourceTensor:
        where = f"the tensor at byte {cursor.offset}"
        rank = cursor.bounded(cursor.i32(f"rank of {where}"), 1, MAX_RANK, f"rank of {where}")
        n_name = cursor.bounded(cursor.i32(f"name of {where}"), 1, 256, f"length of the name of {where}")
        code = cursor.i32(f"type of {where}")
        extents = [
            cursor.bounded(cursor.i32(f"shape of {where}"), 1, 1 << 24, f"extent of {where}")
            for _ in range(rank)
        ]
        raw = cursor.take(n_name, f"name of {where}")
        try:
            name = raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise ModelFileError(f"{self.path}: {where} has the name {raw[:40]!r}, expected ASCII") from error
        if code not in _TYPES:
            raise UnsupportedModelError(
                f"{self.path}: tensor {name!r} has ggml type {code}, which is not supported"
            )
        return self._tensor(cursor, name, tuple(reversed(extents)), code)

    def _tensor(self, cursor: Cursor, name: str, shape: tuple[int, ...], code: int) -> SourceTensor:
        kind, block, size = _TYPES[code]
        if block > 1 and self.block_format != _BLOCK_FORMAT:
            raise UnsupportedModelError(
                f"{self.path}: tensor {name!r} uses quantisation format {self.block_format}, expected "
                f"{_BLOCK_FORMAT}: quantise the float model again"
            )
        if shape[-1] % block:
            raise ModelFileError(
                f"{self.path}: rows of {name!r} have {shape[-1]} values, no multiple of {block}"
            )
        n_rows = int(np.prod(shape[:-1], dtype=np.int64))
        row_bytes = shape[-1] // block * size
        start = cursor.skip(n_rows * row_bytes, f"data of tensor {name!r}")

        def read(rows: slice = ALL_ROWS) -> NDArray[Any]:
            if kind in ("f32", "f16"):
                return self.file.array(start, shape, "<f4" if kind == "f32" else "<f2", name)[rows]
            packed = self.file.array(start, (n_rows, row_bytes), "<u1", name)
            return dequantize_rows(packed, kind, shape[-1]).reshape(shape)[rows]

        tensor = SourceTensor(name, shape, read, kind)
        # whisper.cpp stores the biases of the convolutions as columns.
        return tensor.reshaped(shape[:1]) if name.endswith(".bias") and shape[1:] == (1,) else tensor
