"""Changes to a checkpoint's tensors by name that a converter must refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Tensors = dict[str, Any]


def without(name: str) -> Callable[[Tensors], Any]:
    """One is missing."""
    return lambda tensors: tensors.pop(name)


def shaped(name: str, *shape: int) -> Callable[[Tensors], Any]:
    """One has another shape."""
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})
