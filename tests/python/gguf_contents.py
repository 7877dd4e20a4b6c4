"""A GGUF as arrays and values, by the gguf package's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from rustasr.convert import convert

Contents = tuple[dict[str, NDArray[Any]], dict[str, Any]]
# Where a model is from, which differs between two forms of the same weights.
PROVENANCE = {"general.name", "general.source", "rustasr.source_sha256"}


def contents(path: Path) -> Contents:
    """(tensors as row-major arrays, metadata) of a GGUF."""
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


def tensor_types(path: Path) -> dict[str, str]:
    """Tensor -> type, in lower case."""
    return {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors}


def converted(source: Path, folder: Path, **options: Any) -> Contents:
    """The contents of `source` converted, with F32 weights unless told otherwise."""
    options.setdefault("qtype", "f32")
    return contents(convert(source, folder / "converted.gguf", **options).output)


def assert_same_tensors(left: Contents, right: Contents, *, but: tuple[str, ...] = ()) -> None:
    """The same tensors in the same order, bit for bit, apart from those named in `but`."""
    assert list(left[0]) == list(right[0])
    for name, data in left[0].items():
        assert name in but or np.array_equal(data, right[0][name]), name


def differing_keys(left: Contents, right: Contents) -> set[str]:
    """Metadata keys with other values."""
    return {key for key in left[1] | right[1] if left[1].get(key) != right[1].get(key)}
