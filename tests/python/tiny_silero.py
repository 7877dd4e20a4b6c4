"""A Silero VAD with random weights: its arithmetic in NumPy, straight from the layers as the official files
have them, and the TorchScript archive that it would be published as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.silero import expected_tensors
from whisper_writers import Call, Made, Named, Pickle, torch_tensor, write_torch_zip

Array = NDArray[np.float32]
State = dict[str, Array]


def random_state(seed: int = 0) -> State:
    """Random weights of a spread that keeps probabilities away from 0 and 1; the transform is a real one."""
    random = np.random.RandomState(seed)
    state = {}
    for name, shape in expected_tensors().items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        state[name] = (random.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32)
    times = np.arange(256)
    wave = np.exp(-2j * np.pi * np.outer(np.arange(129), times) / 256) * np.sin(np.pi * times / 256) ** 2
    state["stft.forward_basis_buffer"] = np.concatenate([wave.real, wave.imag])[:, None].astype(np.float32)
    return state


def _convolution(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """x [n_in, T], zero padding of 1, ReLU."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    columns = [np.tensordot(weight, padded[:, at : at + 3], 2) + bias for at in range(0, x.shape[1], stride)]
    return np.maximum(np.stack(columns, axis=1), 0).astype(np.float32)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


def probabilities(state: State, samples: Array) -> list[float]:
    """One probability for every 512 samples."""
    h = c = np.zeros(128, np.float32)
    context = np.zeros(64, np.float32)
    found = []
    for at in range(0, len(samples), 512):
        frame = samples[at : at + 512]
        x = np.concatenate([context, frame, np.zeros(512 - len(frame), np.float32)])
        context = x[-64:]
        x = np.concatenate([x, x[-2:-66:-1]])
        windows = np.stack([x[step * 128 : step * 128 + 256] for step in range(4)], axis=1)
        spectrum = state["stft.forward_basis_buffer"][:, 0] @ windows
        x = np.sqrt(spectrum[:129] ** 2 + spectrum[129:] ** 2)
        for i, stride in enumerate((1, 2, 2, 1)):
            layer = f"encoder.{i}.reparam_conv"
            x = _convolution(x, state[f"{layer}.weight"], state[f"{layer}.bias"], stride)
        gates = state["decoder.rnn.weight_ih"] @ x[:, 0] + state["decoder.rnn.bias_ih"]
        gates += state["decoder.rnn.weight_hh"] @ h + state["decoder.rnn.bias_hh"]
        i, f, g, o = gates.reshape(4, 128)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        out = state["decoder.decoder.2.weight"][:, :, 0] @ np.maximum(h, 0) + state["decoder.decoder.2.bias"]
        found.append(float(_sigmoid(out)[0]))
    return found


def _module(attributes: dict[str, Any], name: str = "Module") -> Made:
    state = {key: _module(item) if isinstance(item, dict) else item for key, item in attributes.items()}
    return Made(
        Named("__torch__.vad.model", name), {"training": False, "_is_full_backward_hook": None} | state
    )


def _nested(state: State, storages: list[Array]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *parents, leaf = name.split(".")
        level = tree
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = torch_tensor(value, str(len(storages)))
        storages.append(value)
    return tree


def write_jit(path: Path, state: State, **settings: Any) -> Path:
    """The archive of torch.jit.save: a network for 16 kHz, one for 8 kHz, and what belongs to none.

    `settings` replace attributes of the network for 16 kHz.
    """
    storages: list[Array] = [np.zeros(0, np.float32)]
    network = _nested(state, storages) | {"sample_rate": 16000, "context_size_samples": 64} | settings
    other = _nested({"stft.forward_basis_buffer": np.ones((130, 1, 128), np.float32)}, storages)
    root = {
        "model_type": "rnn",
        "_state": torch_tensor(storages[0], "0"),
        "_last_sr": 0,
        "sample_rates": Call("torch.jit._pickle", "build_intlist", [8000, 16000]),
        "_model": network,
        "_model_8k": other,
    }
    return write_torch_zip(path, Pickle().add(_module(root, "VADRNNJITMerge")).done(), storages)
