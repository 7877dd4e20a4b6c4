"""CAM++ checkpoints -> GGUF (3D-Speaker: speakerlab/models/campplus/{DTDNN,layers}.py).

The published files (`campplus_cn_en_common.pt`, ...) are a bare state dict: `head.*`, `xvector.*`. Sizes are
read off the shapes; what no shape tells (dilations, strides, the length of a context segment) is the class's.
"""

from __future__ import annotations

from pathlib import Path

from rustasr.convert.common import Checkpoint, FamilyPlan, Field, check_tensors
from rustasr.convert.mel import povey_window
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

DILATIONS = (1, 2, 2)  # CAMPPlus.__init__, block by block
SEGMENT_FRAMES = 100  # CAMLayer.seg_pooling
TDNN_TAPS, LOCAL_TAPS = 5, 3  # CAMPPlus.__init__
REDUCTION = 2  # CAMLayer
MOST_LAYERS = 256
# Where clusters of 1.5 s windows are cut and joined: in the middle of the range in which every recording that
# was tried came out right (models/campplus.md).
CUT_DISTANCE, MERGE_COSINE = 0.68, 0.60
MIN_SAMPLES = 24_000  # 1.5 s: speakerlab/bin/infer_diarization.py


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a CAM++ checkpoint."""
    refuse_tokenizer(tokenizer)
    where = source.where
    tensors = {name: tensor for name, tensor in source.state.items() if not name.endswith(COUNTER)}
    sizes = _Sizes(tensors, where)
    check_tensors(tensors, sizes.expected(), where)
    voices = Voices(sizes.n_dims, CUT_DISTANCE, MERGE_COSINE, MIN_SAMPLES)
    return FamilyPlan(
        architecture="campplus",
        tensors=[*kaldi_tables(sizes.n_mels, povey_window), *_layout(tensors, sizes, where).out],
        fields={
            **kaldi_metadata(sizes.n_mels),
            **voices.metadata(),
            "campplus.head_channels": Field("u32", sizes.head),
            "campplus.init_channels": Field("u32", sizes.init),
            "campplus.bottleneck": Field("u32", sizes.bottleneck),
            "campplus.growth": Field("u32", sizes.growth),
            "campplus.layers": Field("arr_i32", list(sizes.layers)),
            "campplus.dilations": Field("arr_i32", list(DILATIONS)),
            "campplus.segment_frames": Field("u32", SEGMENT_FRAMES),
        },
    )


class _Sizes:
    """The sizes of a checkpoint, by its tensors."""

    def __init__(self, tensors: Checkpoint, where: str) -> None:
        def size(name: str, axis: int) -> int:
            return extent(tensors, name, axis, where)

        self.head = size("head.conv1.weight", 0)
        self.init = size("xvector.tdnn.linear.weight", 0)
        self.n_mels = size("xvector.tdnn.linear.weight", 1) * 8 // self.head
        self.bottleneck = size("xvector.block1.tdnnd1.linear1.weight", 0)
        self.growth = size("xvector.block1.tdnnd1.cam_layer.linear_local.weight", 0)
        self.n_dims = size("xvector.dense.linear.weight", 0)
        self.layers = tuple(_count(tensors, f"xvector.block{i + 1}.tdnnd") for i in range(len(DILATIONS)))
        if any(name.startswith(f"xvector.block{len(DILATIONS) + 1}.") for name in tensors):
            raise UnsupportedModelError(f"{where}: expected {len(DILATIONS)} dense blocks, found more")
        if self.n_mels % 8:
            raise ModelFileError(
                f"{where}: tensor 'xvector.tdnn.linear.weight' has {self.n_mels * self.head // 8} inputs, "
                f"expected {self.head} channels of an eighth of the mels"
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that enter each block, and those behind the last transit."""
        result = [self.init]
        for n in self.layers:
            result.append((result[-1] + n * self.growth) // 2)
        return tuple(result)

    def expected(self) -> Shapes:
        """Every tensor but the counters, with its row-major shape."""
        c = self.head
        shapes: Shapes = {"head.conv1.weight": (c, 1, 3, 3), **norm_shapes("head.bn1", c)}
        for layer in ("layer1", "layer2"):
            for i in range(2):
                for number in (1, 2):
                    shapes[f"head.{layer}.{i}.conv{number}.weight"] = (c, c, 3, 3)
                    shapes.update(norm_shapes(f"head.{layer}.{i}.bn{number}", c))
            shapes[f"head.{layer}.0.shortcut.0.weight"] = (c, c, 1, 1)
            shapes.update(norm_shapes(f"head.{layer}.0.shortcut.1", c))
        shapes.update({"head.conv2.weight": (c, c, 3, 3), **norm_shapes("head.bn2", c)})
        shapes["xvector.tdnn.linear.weight"] = (self.init, c * self.n_mels // 8, TDNN_TAPS)
        shapes.update(norm_shapes("xvector.tdnn.nonlinear.batchnorm", self.init))
        for number, (n_layers, n_in, n_out) in enumerate(
            zip(self.layers, self.channels[:-1], self.channels[1:], strict=True), 1
        ):
            for k in range(n_layers):
                shapes.update(self._layer(f"xvector.block{number}.tdnnd{k + 1}", n_in + k * self.growth))
            n_dense = n_in + n_layers * self.growth
            shapes.update(norm_shapes(f"xvector.transit{number}.nonlinear.batchnorm", n_dense))
            shapes[f"xvector.transit{number}.linear.weight"] = (n_out, n_dense, 1)
        shapes.update(norm_shapes("xvector.out_nonlinear.batchnorm", self.channels[-1]))
        shapes["xvector.dense.linear.weight"] = (self.n_dims, 2 * self.channels[-1], 1)
        shapes.update(norm_shapes("xvector.dense.nonlinear.batchnorm", self.n_dims, affine=False))
        return shapes

    def _layer(self, prefix: str, n_in: int) -> Shapes:
        bottleneck, narrow = self.bottleneck, self.bottleneck // REDUCTION
        return {
            **norm_shapes(f"{prefix}.nonlinear1.batchnorm", n_in),
            f"{prefix}.linear1.weight": (bottleneck, n_in, 1),
            **norm_shapes(f"{prefix}.nonlinear2.batchnorm", bottleneck),
            f"{prefix}.cam_layer.linear_local.weight": (self.growth, bottleneck, LOCAL_TAPS),
            f"{prefix}.cam_layer.linear1.weight": (narrow, bottleneck, 1),
            f"{prefix}.cam_layer.linear1.bias": (narrow,),
            f"{prefix}.cam_layer.linear2.weight": (self.growth, narrow, 1),
            f"{prefix}.cam_layer.linear2.bias": (self.growth,),
        }


def _count(tensors: Checkpoint, prefix: str) -> int:
    """How many layers `prefix`1, `prefix`2, ... there are; missing tensors of theirs are found later."""
    n = next(n for n in range(MOST_LAYERS) if f"{prefix}{n + 1}.linear1.weight" not in tensors)
    return max(n, 1)


def _layout(tensors: Checkpoint, sizes: _Sizes, where: str) -> Layout:
    """The GGUF's tensors behind the front end's, in the order of the computation."""
    layout = Layout(tensors, where)
    layout.convolution("head.conv1", "head.conv1", "head.bn1")
    for layer in ("layer1", "layer2"):
        for i in range(2):
            block = f"head.{layer}.{i}"
            layout.convolution(f"{block}.conv1", f"{block}.conv1", f"{block}.bn1")
            layout.convolution(f"{block}.conv2", f"{block}.conv2", f"{block}.bn2")
        layout.convolution(
            f"head.{layer}.0.shortcut", f"head.{layer}.0.shortcut.0", f"head.{layer}.0.shortcut.1"
        )
    layout.convolution("head.conv2", "head.conv2", "head.bn2")
    # The head's channels of a mel are neighbours here, its mels of a channel are there.
    layout.convolution(
        "tdnn",
        "xvector.tdnn.linear",
        "xvector.tdnn.nonlinear.batchnorm",
        reorder=(sizes.head, sizes.n_mels // 8),
    )
    for number, n_layers in enumerate(sizes.layers, 1):
        for k in range(n_layers):
            _layer(layout, f"block{number}.{k}", f"xvector.block{number}.tdnnd{k + 1}")
        transit = f"xvector.transit{number}"
        layout.norm(f"transit{number}.norm", f"{transit}.nonlinear.batchnorm")
        last = number == len(sizes.layers)
        layout.linear(
            f"transit{number}.linear",
            f"{transit}.linear",
            "xvector.out_nonlinear.batchnorm" if last else None,
        )
    layout.linear("dense", "xvector.dense.linear", "xvector.dense.nonlinear.batchnorm")
    return layout


def _layer(layout: Layout, name: str, source: str) -> None:
    layout.norm(f"{name}.norm", f"{source}.nonlinear1.batchnorm")
    layout.linear(f"{name}.linear", f"{source}.linear1", f"{source}.nonlinear2.batchnorm")
    layout.convolution(f"{name}.local", f"{source}.cam_layer.linear_local")
    layout.linear(f"{name}.context1", f"{source}.cam_layer.linear1")
    layout.linear(f"{name}.context2", f"{source}.cam_layer.linear2")
