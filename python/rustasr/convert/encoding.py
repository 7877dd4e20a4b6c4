"""Tensor types: which one a tensor gets, and the rows in that type.

The block formats are ggml's (https://github.com/ggml-org/ggml, `ggml-common.h`): Q8_0 and Q4_0 hold 32
values of one row in a block, Q6_K 256. A row must be a whole number of blocks; ggml's release build does
not check that, so `choose_type` does, and steps down Q6_K -> Q8_0 -> F16 until the rows fit.

`KEPT_WIDER` is the other reason for a wider type: matrices where fewer bits cost too many words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.errors import ModelFileError, OptionError

# name -> (values in a block, bytes of a block)
BLOCKS: dict[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q6_k": (256, 210),
    "q4_0": (32, 18),
}
QTYPES = tuple(BLOCKS)
_ALIASES = {"fp32": "f32", "float32": "f32", "fp16": "f16", "float16": "f16", "q6k": "q6_k", "q8": "q8_0",
            "q4": "q4_0", "bfloat16": "bf16"}  # fmt: skip
_STEP_DOWN = {"q6_k": "q8_0", "q8_0": "f16", "q4_0": "f16"}


@dataclass(frozen=True)
class KeptWider:
    """Matrices that a file of one of `qtypes` keeps in type `wider`: those whose name matches, while their
    smaller side is at most `narrow`."""

    names: re.Pattern[str]
    qtypes: tuple[str, ...]
    wider: str
    narrow: int


KEPT_WIDER = (
    # Measured with Whisper base on Russian (20 readings): the decoder in Q4_0 too makes 31.2 % errors, in
    # Q8_0 25.0 %, F16 has 23.7 %; the encoder is what Q4_0 makes fast, and bears it. Matrices of larger
    # models bear Q4_0 better. Q6_K costs no more than Q8_0 and is smaller, where rows fill its blocks.
    KeptWider(re.compile(r"^decoder\."), ("q4_0",), "q6_k", 512),
    # The prediction network of a transducer and its side of the joint: an LSTM carries the error of every
    # step into all later ones, and they are 2 % of the weights, read a token at a time.
    KeptWider(re.compile(r"^(prediction\.|joint\.(pred|out)\.)"), ("q8_0", "q6_k", "q4_0"), "f16", 1 << 31),
    # The audio encoder of Qwen3-ASR: with fewer than eight bits the text after it runs into endless loops or
    # stays empty, a step rather than a slope in the error rate (CrispASR, PERFORMANCE.md #218 and #240).
    KeptWider(re.compile(r"^(audio_tower|projector)\."), ("q6_k", "q4_0"), "q8_0", 1 << 31),
    # Its token embedding is the output matrix too: as llama.cpp's Q4_0 files have it.
    KeptWider(re.compile(r"^language_model\.token_embedding\."), ("q4_0",), "q6_k", 1 << 31),
    # A detector of speech has 1.3 MB of weights, one of overlapped speech 6 MB.
    KeptWider(re.compile(r"^(vad|pyannet)\."), ("f16", "bf16", "q8_0", "q6_k", "q4_0"), "f32", 1 << 31),
    # CAM++: its vectors move by 1e-2 in Q8_0, 4e-3 in BF16, 5e-4 in F16 (the most of 192 numbers, whose size
    # is 0.07), and it is small.
    KeptWider(
        re.compile(r"^(block\d+\.\d+|transit\d+|dense)\."), ("bf16", "q8_0", "q6_k", "q4_0"), "f32", 1 << 31
    ),
    # GE2E's encoder has 5.7 MB of weights.
    KeptWider(re.compile(r"^(lstm\.\d+|linear)\."), ("bf16", "q8_0", "q6_k", "q4_0"), "f32", 1 << 31),
)
_SLOW = ("q6_k", "q4_0", "q8_0")
_CHUNK_VALUES = 1 << 20  # rows are encoded about this many values at a time: a few MB of scratch

Overrides = Sequence[tuple[str, str]]


def parse_qtype(name: str) -> str:
    """The canonical name of a tensor type ("Q6K" -> "q6_k"); OptionError for anything else."""
    key = name.strip().lower().replace("-", "_")
    key = _ALIASES.get(key, key)
    if key not in BLOCKS:
        raise OptionError(f"unknown tensor type {name!r}: expected one of {', '.join(QTYPES)}")
    return key


def parse_overrides(overrides: Overrides) -> list[tuple[re.Pattern[str], str]]:
    """(regular expression, type) pairs, compiled; OptionError for a bad pattern or type."""
    compiled = []
    for pattern, qtype in overrides:
        try:
            compiled.append((re.compile(pattern), parse_qtype(qtype)))
        except re.error as error:
            raise OptionError(f"override pattern {pattern!r} is not a regular expression: {error}") from error
    return compiled


def is_matmul_weight(name: str, shape: Sequence[int]) -> bool:
    """Whether the tensor takes the file's type: every 2-D `*.weight`. All others stay F32."""
    return name.endswith(".weight") and len(shape) == 2


def choose_type(
    name: str, shape: Sequence[int], qtype: str, overrides: Sequence[tuple[re.Pattern[str], str]] = ()
) -> tuple[str, str]:
    """(type asked for, type that fits) of a tensor with this row-major shape.

    An override whose pattern is found in the name wins over `qtype` and KEPT_WIDER; neither touches what must
    stay F32.
    """
    if not is_matmul_weight(name, shape):
        return "f32", "f32"
    override = next((kind for pattern, kind in overrides if pattern.search(name)), None)
    wanted = override or qtype
    fitting = wanted if override else _tolerable(name, shape, qtype)
    while shape[-1] % BLOCKS[fitting][0]:
        fitting = _STEP_DOWN[fitting]
    return wanted, fitting


def _tolerable(name: str, shape: Sequence[int], qtype: str) -> str:
    """`qtype`, or the type that KEPT_WIDER gives this tensor instead."""
    for rule in KEPT_WIDER:
        if qtype in rule.qtypes and min(shape) <= rule.narrow and rule.names.search(name):
            return rule.wider
    return qtype


def row_bytes(n_values: int, qtype: str) -> int:
    """Bytes of a row of `n_values` in `qtype` (`n_values` a whole number of blocks)."""
    block, size = BLOCKS[qtype]
    return n_values // block * size


def tensor_bytes(shape: Sequence[int], qtype: str) -> int:
    """Bytes of a tensor with this row-major shape."""
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    return rows * row_bytes(shape[-1], qtype)


def encode_tensor(name: str, data: NDArray[Any], qtype: str) -> NDArray[Any]:
    """`data` (float16 or float32, row-major) as the bytes of `qtype`: uint8 [..., row_bytes].

    A value that is not finite, or that F16 cannot hold, is a ModelFileError which names the tensor.
    """
    rows = np.ascontiguousarray(data).reshape(-1, data.shape[-1])
    out = np.empty((rows.shape[0], row_bytes(rows.shape[1], qtype)), dtype=np.uint8)
    step = max(1, _CHUNK_VALUES // max(1, rows.shape[1]))

    def encode(start: int) -> None:
        chunk = rows[start : start + step]
        if not np.isfinite(chunk).all():
            raise ModelFileError(f"tensor {name!r} holds NaN or infinite values: the source is damaged")
        out[start : start + step] = _encode_rows(name, chunk, qtype)

    starts = range(0, rows.shape[0], step)
    if qtype in _SLOW and len(starts) > 1:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the core's quantiser runs without the GIL
            list(pool.map(encode, starts))
    else:
        for start in starts:
            encode(start)
    return out.reshape(*data.shape[:-1], out.shape[-1])


def _encode_rows(name: str, rows: NDArray[Any], qtype: str) -> NDArray[np.uint8]:
    if qtype == "f16":
        if rows.dtype != np.float16:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float16)
            if not np.isfinite(rows).all():
                raise ModelFileError(f"tensor {name!r} has values beyond F16's 65504: use bf16 or f32")
        return rows.astype("<f2", copy=False).view(np.uint8)
    floats = rows.astype("<f4", copy=False)
    if qtype == "f32":
        return floats.view(np.uint8)
    if qtype == "bf16":
        return bf16_bits(floats).view(np.uint8)
    return quantize_rows(floats, qtype)


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each finite float32, rounded to nearest, ties to even."""
    bits = values.astype("<f4", copy=False).view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    halves: NDArray[np.uint16] = rounded.astype("<u2")
    return halves


def bf16_floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bit patterns as float32."""
    return (bits.astype("<u4") << 16).view("<f4")


def quantize_rows(rows: NDArray[np.float32], qtype: str) -> NDArray[np.uint8]:
    """Rows [n, k] in a block format: by ggml where the compiled core is there, else by the gguf package.

    Both give the same bytes for Q8_0 and Q4_0 (tested); only ggml writes Q6_K.
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    core = _core_function("quantize_rows")
    if core is not None:
        packed: NDArray[np.uint8] = core(rows, qtype)
        return packed
    import gguf

    try:
        packed = gguf.quantize(rows, gguf.GGMLQuantizationType[qtype.upper()])
    except NotImplementedError as error:
        raise OptionError(
            f"{qtype} needs the compiled core (rustasr._core), which is not installed"
        ) from error
    return packed


def dequantize_rows(data: NDArray[np.uint8], qtype: str, n_values: int) -> NDArray[np.float32]:
    """Packed rows uint8 [n, row_bytes] as float32 [n, n_values]; any type that the gguf package reads."""
    if qtype == "f32":
        return np.ascontiguousarray(data).view("<f4").reshape(-1, n_values)
    if qtype == "f16":
        return np.ascontiguousarray(data).view("<f2").reshape(-1, n_values).astype(np.float32)
    if qtype == "bf16":
        return bf16_floats(np.ascontiguousarray(data).view("<u2")).reshape(-1, n_values)
    core = _core_function("dequantize_rows") if qtype in BLOCKS else None
    if core is not None:
        floats: NDArray[np.float32] = core(np.ascontiguousarray(data), qtype, n_values)
        return floats
    import gguf

    floats = gguf.dequantize(data, gguf.GGMLQuantizationType[qtype.upper()])
    return floats.reshape(-1, n_values)


def _core_function(name: str) -> Any:
    """A function of the compiled core, or None where the core is not built."""
    try:
        from rustasr import _core
    except ImportError:
        return None
    return getattr(_core, name, None)
