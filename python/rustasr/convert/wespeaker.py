"""WeSpeaker's ResNet checkpoints -> GGUF (wenet-e2e/wespeaker: wespeaker/models/{resnet,pooling_layers}.py).

`avg_model.pt` is a bare state dict: `conv1`, `bn1`, `layer1` to `layer4`, `seg_1`, and `projection.*`, the
classifier of the training, which stays behind. Networks of basic blocks with one embedding layer and pooling
by mean and deviation: ResNet18 and ResNet34, whose sizes are read off the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Checkpoint, FamilyPlan, Field, OutputTensor, check_tensors
from rustasr.convert.mel import hamming_window
from rustasr.convert.sources import Source
from rustasr.convert.speakers import (
    COUNTER,
    Layout,
    Shapes,
    Voices,
    extent,
    kaldi_metadata,
    kaldi_tables,
    norm_shapes,
    refuse_tokenizer,
)
from rustasr.errors import ModelFileError, UnsupportedModelError

TRAINING = "projection."
N_LAYERS = 4
MOST_BLOCKS = 256
FULL_SCALE = (
    2.0**15
)  # wespeaker/cli/speaker.py takes samples as 16-bit numbers; mean and log leave the floor of it
# Those of CAM++: this network's own are not known, because no recording could be tried with its weights.
CUT_DISTANCE, MERGE_COSINE = 0.68, 0.60
MIN_SAMPLES = 24_000  # 1.5 s: the window of wespeaker/cli/speaker.py


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a ResNet of WeSpeaker."""
    refuse_tokenizer(tokenizer)
    where = source.where
    tensors = {
        name: tensor
        for name, tensor in source.state.items()
        if not name.endswith(COUNTER) and not name.startswith(TRAINING)
    }
    sizes = _Sizes(tensors, where)
    check_tensors(tensors, sizes.expected(), where)
    voices = Voices(sizes.n_dims, CUT_DISTANCE, MERGE_COSINE, MIN_SAMPLES)
    return FamilyPlan(
        architecture="wespeaker",
        tensors=[*kaldi_tables(sizes.n_mels, hamming_window), *_layout(tensors, sizes, where)],
        fields={
            **kaldi_metadata(sizes.n_mels, scale=FULL_SCALE),
            **voices.metadata(),
            "wespeaker.channels": Field("u32", sizes.channels),
            "wespeaker.layers": Field("arr_i32", list(sizes.layers)),
        },
    )


class _Sizes:
    """The sizes of a checkpoint, by its tensors."""

    def __init__(self, tensors: Checkpoint, where: str) -> None:
        if "layer1.0.conv3.weight" in tensors or "seg_2.weight" in tensors:
            what = "bottleneck blocks" if "layer1.0.conv3.weight" in tensors else "two embedding layers"
            raise UnsupportedModelError(
                f"{where}: a ResNet of WeSpeaker with {what}; expected basic blocks and one embedding layer, "
                "as ResNet34 has"
            )
        self.channels = extent(tensors, "conv1.weight", 0, where)
        self.n_dims = extent(tensors, "seg_1.weight", 0, where)
        n_in = extent(tensors, "seg_1.weight", 1, where)
        self.layers = tuple(_count(tensors, f"layer{i + 1}.") for i in range(N_LAYERS))
        self.n_mels = n_in // (2 * max(1, self.channels))
        if self.n_mels * 2 * self.channels != n_in or self.n_mels % 8:
            raise ModelFileError(
                f"{where}: tensor 'seg_1.weight' has {n_in} inputs, expected mean and deviation of "
                f"{8 * self.channels} channels of an eighth of the mels"
            )

    def expected(self) -> Shapes:
        """Every tensor but the counters and the classifier, with its row-major shape."""
        c = self.channels
        shapes: Shapes = {"conv1.weight": (c, 1, 3, 3), **norm_shapes("bn1", c)}
        n_in = c
        for i, n_blocks in enumerate(self.layers):
            n = c << i
            for k in range(n_blocks):
                block = f"layer{i + 1}.{k}"
                shapes[f"{block}.conv1.weight"] = (n, n_in, 3, 3)
                shapes[f"{block}.conv2.weight"] = (n, n, 3, 3)
                shapes |= norm_shapes(f"{block}.bn1", n) | norm_shapes(f"{block}.bn2", n)
                if i and not k:
                    shapes[f"{block}.shortcut.0.weight"] = (n, n_in, 1, 1)
                    shapes |= norm_shapes(f"{block}.shortcut.1", n)
                n_in = n
        shapes["seg_1.weight"] = (self.n_dims, 2 * n_in * self.n_mels // 8)
        shapes["seg_1.bias"] = (self.n_dims,)
        return shapes


def _count(tensors: Checkpoint, prefix: str) -> int:
    """How many blocks `prefix`0, `prefix`1, ... there are; missing tensors of theirs are found later."""
    return max(1, next(n for n in range(MOST_BLOCKS) if f"{prefix}{n}.conv1.weight" not in tensors))


def _layout(tensors: Checkpoint, sizes: _Sizes, where: str) -> list[OutputTensor]:
    """The GGUF's tensors behind the front end's, in the order of the computation."""
    layout = Layout(tensors, where)
    layout.convolution("conv1", "conv1", "bn1")
    for i, n_blocks in enumerate(sizes.layers):
        for k in range(n_blocks):
            block = f"layer{i + 1}.{k}"
            layout.convolution(f"{block}.conv1", f"{block}.conv1", f"{block}.bn1")
            layout.convolution(f"{block}.conv2", f"{block}.conv2", f"{block}.bn2")
            if i and not k:
                layout.convolution(f"{block}.shortcut", f"{block}.shortcut.0", f"{block}.shortcut.1")
    weight, bias = tensors["seg_1.weight"], tensors["seg_1.bias"]

    def by_mel() -> NDArray[Any]:
        """The inputs run over mels, in each over channels; in the file it is the other way round."""
        columns = weight.read().reshape(sizes.n_dims, 2, -1, sizes.n_mels // 8)
        return np.ascontiguousarray(columns.swapaxes(2, 3).reshape(weight.shape))

    return [
        *layout.out,
        OutputTensor("dense.weight", weight.shape, by_mel, weight.dtype),
        OutputTensor("dense.bias", bias.shape, bias.read, bias.dtype),
    ]
