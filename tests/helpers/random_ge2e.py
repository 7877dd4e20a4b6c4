"""GE2E's speaker encoder with random weights: the checkpoint as Resemblyzer has it, and the parts of a piece
in Python.

The same numbers are put into the official network by scripts/make-goldens-ge2e.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def random_ge2e(
    n_mels: int = 40, n_hidden: int = 256, n_layers: int = 3, n_dims: int = 256, seed: int = 0
) -> dict[str, Array]:
    """Tensors by their names in `model_state`. The first layer's are large: most powers are small."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {
        "similarity_weight": np.full(1, 10.0, np.float32),
        "similarity_bias": np.full(1, -5.0, np.float32),
    }

    def put(name: str, scale: float, *shape: int) -> None:
        tensors[name] = (scale * random.standard_normal(shape, np.float32)).astype(np.float32)

    for i in range(n_layers):
        n_in = n_hidden if i else n_mels
        put(f"lstm.weight_ih_l{i}", 2 / np.sqrt(n_in) if i else 4.0, 4 * n_hidden, n_in)
        put(f"lstm.weight_hh_l{i}", 1 / np.sqrt(n_hidden), 4 * n_hidden, n_hidden)
        put(f"lstm.bias_ih_l{i}", 0.2, 4 * n_hidden)
        put(f"lstm.bias_hh_l{i}", 0.2, 4 * n_hidden)
    put("linear.weight", 2 / np.sqrt(n_hidden), n_dims, n_hidden)
    put("linear.bias", 0.1, n_dims)
    return tensors


def write_checkpoint(path: Path, tensors: dict[str, Array]) -> Path:
    """`pretrained.pt`: in the format of torch before 1.6, with states of the optimizer beside the model's."""
    from legacy_torch import write_legacy

    from whisper_writers import torch_tensor

    state = {name: torch_tensor(value, f"1000{name}") for name, value in tensors.items()}
    storages = {f"1000{name}": value for name, value in tensors.items()}
    storages["mean"] = np.zeros(7, np.float32)
    mean = torch_tensor(storages["mean"], "mean")
    root = {"step": 7, "model_state": state, "optimizer_state": {"state": {140178894849152: mean}}}
    return write_legacy(path, root, storages)
