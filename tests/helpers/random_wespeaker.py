"""WeSpeaker's ResNets with random weights, of any size: the checkpoint as WeSpeaker saves it.

The same numbers are put into the official network by scripts/make-goldens-wespeaker.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RESNET34 = (3, 4, 6, 3)


def random_wespeaker(
    layers: tuple[int, ...] = RESNET34, channels: int = 32, n_mels: int = 80, n_dims: int = 256, seed: int = 0
) -> dict[str, Array]:
    """Tensors by their names in `avg_model.pt`, the classifier of the training among them."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}

    def put(name: str, *shape: int) -> None:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        tensors[name] = (scale * random.standard_normal(shape, np.float32)).astype(np.float32)

    def norm(name: str, n: int) -> None:
        tensors[f"{name}.weight"] = random.uniform(0.5, 1.0, n).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(0, 0.2, n).astype(np.float32)
        tensors[f"{name}.running_mean"] = random.normal(0, 0.2, n).astype(np.float32)
        tensors[f"{name}.running_var"] = random.uniform(0.7, 2.0, n).astype(np.float32)
        tensors[f"{name}.num_batches_tracked"] = np.array(7, np.int64)

    put("conv1.weight", channels, 1, 3, 3)
    norm("bn1", channels)
    n_in = channels
    for i, n_blocks in enumerate(layers):
        n = channels << i
        for k in range(n_blocks):
            block = f"layer{i + 1}.{k}"
            put(f"{block}.conv1.weight", n, n_in, 3, 3)
            norm(f"{block}.bn1", n)
            put(f"{block}.conv2.weight", n, n, 3, 3)
            norm(f"{block}.bn2", n)
            if i and not k:
                put(f"{block}.shortcut.0.weight", n, n_in, 1, 1)
                norm(f"{block}.shortcut.1", n)
            n_in = n
    put("seg_1.weight", n_dims, 2 * n_in * n_mels // 8)
    tensors["seg_1.bias"] = random.normal(0, 0.1, n_dims).astype(np.float32)
    put("projection.weight", 11, n_dims)
    return tensors


def write_checkpoint(path: Path, tensors: dict[str, Array]) -> Path:
    """`avg_model.pt`: a state dict and nothing else."""
    from whisper_writers import Pickle, torch_tensor, write_torch_zip

    state = {name: torch_tensor(value, str(i)) for i, (name, value) in enumerate(tensors.items())}
    return write_torch_zip(path, Pickle().add(state).done(), list(tensors.values()), path.stem)
