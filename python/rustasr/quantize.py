"""Makes a smaller (or larger) GGUF: every matmul weight in another type, tensor by tensor.

What stays F32 (biases, norms, positions, front-end tables) and how a type steps down when a row is not a
whole number of its blocks is `rustasr.convert.encoding`'s business; see there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rustasr.convert import Overrides, convert, detect
from rustasr.convert.common import OutputTensor, write_gguf
from rustasr.convert.encoding import choose_type, parse_overrides, parse_qtype, tensor_bytes
from rustasr.convert.gguf_input import GgufInput, open_gguf
from rustasr.errors import OptionError
from rustasr.progress import FileProgress

_FLOATS = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class TensorChange:
    """One tensor: type before and after, bytes after."""

    name: str
    shape: tuple[int, ...]
    old: str
    new: str
    bytes_after: int


@dataclass(frozen=True)
class QuantizeReport:
    """What `quantize` did; sizes are those of the files, in bytes."""

    input: Path
    output: Path
    qtype: str
    tensors: tuple[TensorChange, ...]
    bytes_before: int
    bytes_after: int
    fallbacks: tuple[str, ...]
    warnings: tuple[str, ...]


def quantize(
    input: Path | str,  # noqa: A002 (the name that the command line uses)
    output: Path | str,
    qtype: str,
    *,
    force: bool = False,
    overrides: Overrides = (),
    progress: FileProgress | None = None,
) -> QuantizeReport:
    """Writes `input` with matmul weights of `qtype` (f32, bf16, f16, q8_0, q6_k, q4_0) to `output`.

    `input` is a GGUF of any type, or any source that `convert` reads. `overrides` are (regular expression,
    type) pairs; the first whose pattern is found in a tensor's name wins. Atomic: `output` is complete or
    not there. Raises OptionError (type, pattern, `output` exists and `force` is off), ModelFileError.
    """
    source, target, wanted = Path(input), Path(output), parse_qtype(qtype)
    patterns = parse_overrides(overrides)
    found = detect(source)
    if target.exists() and not force:
        raise OptionError(f"output {target} exists: choose another name or use --force")
    if target.exists() and target.samefile(found.files[0]):
        raise OptionError(f"output {target} is the input itself: choose another name")
    if found.kind != "gguf":
        report = convert(source, target, qtype=wanted, overrides=overrides, progress=progress)
        tensors, fallbacks, warnings = list(report.tensors), report.fallbacks, list(report.warnings)
    else:
        model = open_gguf(found.files[0])
        tensors, warnings = model.tensors, _requantisation(model, wanted, patterns)
        fallbacks = write_gguf(
            target,
            model.architecture,
            model.metadata,
            tensors,
            wanted,
            overrides=overrides,
            progress=progress,
        )
    before = sum(path.stat().st_size for path in found.files)
    changes = tuple(
        _change(tensor, choose_type(tensor.name, tensor.shape, wanted, patterns)[1]) for tensor in tensors
    )
    return QuantizeReport(
        source, target, wanted, changes, before, target.stat().st_size, fallbacks, tuple(warnings)
    )


def _change(tensor: OutputTensor, new: str) -> TensorChange:
    return TensorChange(tensor.name, tensor.shape, tensor.dtype, new, tensor_bytes(tensor.shape, new))


def _requantisation(
    model: GgufInput, qtype: str, patterns: Sequence[tuple[re.Pattern[str], str]]
) -> list[str]:
    """A warning when weights that were quantised before change: their loss stays and another is added."""
    changed = (t.dtype for t in model.tensors if t.dtype != choose_type(t.name, t.shape, qtype, patterns)[1])
    lossy = sorted(set(changed) - set(_FLOATS))
    if not lossy:
        return []
    return [
        f"{model.path} holds {', '.join(lossy)} weights already: what they lost stays lost in {qtype}; "
        "quantise the f16 or f32 model instead where you can"
    ]
