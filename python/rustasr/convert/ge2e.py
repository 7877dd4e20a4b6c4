"""GE2E's speaker encoder -> GGUF (resemble-ai/Resemblyzer: resemblyzer/{voice_encoder,audio,hparams}.py).

`pretrained.pt` holds `step`, `model_state` and `optimizer_state`; so do the checkpoints of
Real-Time-Voice-Cloning, whose encoder it is. `lstm.*` and `linear.*` are wanted; `similarity_*` serve the
training alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import (
    Checkpoint,
    FamilyPlan,
    Field,
    Metadata,
    OutputTensor,
    SourceTensor,
    check_tensors,
)
from rustasr.convert.mel import hann_window, slaney_filterbank
from rustasr.convert.sources import Source
from rustasr.convert.speakers import SAMPLE_RATE, Shapes, Voices, extent, refuse_tokenizer

TRAINING = "similarity_"
WINDOW, HOP = 400, 160  # samples: hparams.py, 25 ms every 10 ms
PART_FRAMES = 160  # hparams.py: partials_n_frames
PART_STEP = 77  # embed_utterance's rate of 1.3 parts a second
LEAST_COVERAGE = 0.75  # embed_utterance's min_coverage
LEVEL_DB = -30.0  # hparams.py: audio_norm_target_dBFS
# Where clusters of 1.5 s windows are cut and joined (models/ge2e-resemblyzer.md). All coordinates are 0 or
# more, so that even different speakers are alike by 0.5.
CUT_DISTANCE, MERGE_COSINE = 0.40, 0.80
MOST_LAYERS = 8
VECTOR = 16


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of Resemblyzer's encoder."""
    refuse_tokenizer(tokenizer)
    where = source.where
    tensors = {name: tensor for name, tensor in source.state.items() if not name.startswith(TRAINING)}
    n_layers = sum(f"lstm.weight_ih_l{i}" in tensors for i in range(MOST_LAYERS))
    n_mels = extent(tensors, "lstm.weight_ih_l0", 1, where)
    n_hidden = extent(tensors, "lstm.weight_hh_l0", 1, where)
    n_dims = extent(tensors, "linear.weight", 0, where)
    check_tensors(tensors, _expected(n_layers, n_mels, n_hidden, n_dims), where)
    voices = Voices(n_dims, CUT_DISTANCE, MERGE_COSINE, PART_FRAMES * HOP, LEVEL_DB)
    return FamilyPlan(
        architecture="ge2e",
        tensors=[*_frontend(n_mels), *_network(tensors, n_layers)],
        fields={
            **_metadata(n_mels),
            **voices.metadata(),
            "ge2e.layers": Field("u32", n_layers),
            "ge2e.hidden": Field("u32", n_hidden),
            "ge2e.part_frames": Field("u32", PART_FRAMES),
            "ge2e.part_step": Field("u32", PART_STEP),
            "ge2e.least_coverage": Field("f32", LEAST_COVERAGE),
        },
    )


def _expected(n_layers: int, n_mels: int, n_hidden: int, n_dims: int) -> Shapes:
    shapes: Shapes = {"linear.weight": (n_dims, n_hidden), "linear.bias": (n_dims,)}
    for i in range(n_layers):
        shapes[f"lstm.weight_ih_l{i}"] = (4 * n_hidden, n_hidden if i else n_mels)
        shapes[f"lstm.weight_hh_l{i}"] = (4 * n_hidden, n_hidden)
        shapes[f"lstm.bias_ih_l{i}"] = shapes[f"lstm.bias_hh_l{i}"] = (4 * n_hidden,)
    return shapes


def _metadata(n_mels: int) -> Metadata:
    """`frontend.*` of librosa.feature.melspectrogram as audio.py calls it (librosa from 0.9 on pads with
    zeros)."""
    return {
        "frontend.sample_rate": Field("u32", SAMPLE_RATE),
        "frontend.n_fft": Field("u32", WINDOW),
        "frontend.hop_length": Field("u32", HOP),
        "frontend.n_mels": Field("u32", n_mels),
        "frontend.center": Field("bool", True),
        "frontend.pad_mode": Field("str", "zero"),
        "frontend.drop_last_frame": Field("bool", False),
        "frontend.preemphasis": Field("f32", 0.0),
        "frontend.log": Field("str", "none"),
        "frontend.floor": Field("f32", 0.0),
        "frontend.floor_mode": Field("str", "clamp"),
        "frontend.normalize": Field("str", "none"),
    }


def _frontend(n_mels: int) -> list[OutputTensor]:
    filters = (n_mels, WINDOW // 2 + 1)
    return [
        OutputTensor("frontend.window", (WINDOW,), lambda: hann_window(WINDOW)),
        OutputTensor("frontend.mel_filters", filters, lambda: slaney_filterbank(n_mels, WINDOW)),
    ]


def _network(tensors: Checkpoint, n_layers: int) -> list[OutputTensor]:
    """The tensors in the order of the computation. The two biases of a layer are one; the first layer's rows
    are filled up with zeros (csrc/models/ge2e.cpp says why).
    """
    made: list[OutputTensor] = []
    for i in range(n_layers):
        weight, hidden = tensors[f"lstm.weight_ih_l{i}"], tensors[f"lstm.weight_hh_l{i}"]
        bias, other = tensors[f"lstm.bias_ih_l{i}"], tensors[f"lstm.bias_hh_l{i}"]

        padding = -weight.shape[1] % VECTOR if i == 0 else 0

        def rows(weight: SourceTensor = weight, padding: int = padding) -> NDArray[Any]:
            return np.pad(weight.read(), ((0, 0), (0, padding)))

        def both(bias: SourceTensor = bias, other: SourceTensor = other) -> NDArray[np.float32]:
            total: NDArray[np.float32] = bias.read().astype(np.float32) + other.read().astype(np.float32)
            return total

        shape = (weight.shape[0], weight.shape[1] + padding)
        made.append(OutputTensor(f"lstm.{i}.input.weight", shape, rows, weight.dtype))
        made.append(OutputTensor(f"lstm.{i}.input.bias", bias.shape, both))
        made.append(OutputTensor(f"lstm.{i}.hidden.weight", hidden.shape, hidden.read, hidden.dtype))
    for part in ("weight", "bias"):
        tensor = tensors[f"linear.{part}"]
        made.append(OutputTensor(f"linear.{part}", tensor.shape, tensor.read, tensor.dtype))
    return made
