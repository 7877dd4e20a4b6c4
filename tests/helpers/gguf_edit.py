"""A GGUF with something in it changed, for tests of what a wrong file or a wrong network would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rustasr.convert.common import Field, write_gguf
from rustasr.convert.gguf_input import open_gguf

Change = Callable[[np.ndarray], np.ndarray]


def edited(
    source: Path,
    target: Path,
    *,
    fields: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Change | None] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Path:
    """`fields` sets values of the type that they have (`...` removes the key); `tensors` maps a name to what
    makes the new array of the old one (None removes the tensor). For F32 files."""
    model = open_gguf(source)
    metadata = dict(model.metadata)
    for key, value in (fields or {}).items():
        if value is ...:
            del metadata[key]
        else:
            metadata[key] = value if isinstance(value, Field) else Field(metadata[key].kind, value)
    plan = []
    for tensor in model.tensors:
        change = (tensors or {}).get(tensor.name, ...)
        name = (rename or {}).get(tensor.name, tensor.name)
        if change is None:
            continue
        if change is ...:
            plan.append(replace(tensor, name=name))
            continue
        values = np.ascontiguousarray(change(np.array(tensor.build())), np.float32)
        plan.append(replace(tensor, name=name, shape=values.shape, build=lambda v=values: v, raw=None))
    write_gguf(target, model.architecture, metadata, plan, "f32")
    return target
