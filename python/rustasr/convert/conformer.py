"""Conformer recognisers -> GGUF: what GigaAM and Parakeet share.

Both families descend from NeMo's ConformerEncoder and keep its tensor names, so a checkpoint comes here under
one set of names (row-major shapes; d: width, C: channels of the subsampling, V: tokens without blank):

    encoder.pre_encode.conv.{0,2,...}  conv1d: [d, n_in, k]   conv2d: [d, n_in, k, k]
                                       dw_striding: [C, 1, k, k], then depthwise and pointwise [C, C, 1, 1]
    encoder.pre_encode.out             [d, C * bins], inputs channel-major (conv2d and dw_striding)
    encoder.layers.i.norm_{feed_forward1,self_att,conv,feed_forward2,out}   [d]
    encoder.layers.i.feed_forward{1,2}.linear{1,2}
    encoder.layers.i.self_attn.linear_{q,k,v,out}, rel_pos: linear_pos, pos_bias_{u,v} [heads, d / heads]
    encoder.layers.i.conv.{pointwise_conv1, depthwise_conv, batch_norm, pointwise_conv2}
    ctc:        head                   [V + 1, d, 1]
    rnnt, tdt:  prediction.embed, prediction.lstm.{weight,bias}_{ih,hh}_l<n>, joint.{enc,pred,out}

and this module lays it out for the graphs: dense convolutions as matrices with tap-major rows, depthwise
kernels with the channels fastest, batch normalisation folded into the depthwise convolution before it,
query|key|value fused where they have the same input, each LSTM layer as one matrix [input | hidden] with one
bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rustasr.convert.common import Checkpoint, Field, Metadata, OutputTensor, SourceTensor, check_tensors
from rustasr.errors import ModelFileError, UnsupportedModelError

COUNTER = ".num_batches_tracked"  # batches that a BatchNorm saw in training
Shapes = dict[str, tuple[int, ...]]
_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm1d's default, which both families use
_NORMS = ("norm_feed_forward1", "norm_self_att", "norm_conv", "norm_feed_forward2", "norm_out")


@dataclass(frozen=True)
class Frontend:
    """From samples to log-mel features; `frontend.*` in the GGUF."""

    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    center: bool
    pad_mode: str
    drop_last_frame: bool
    preemphasis: float
    floor: float
    floor_mode: str
    normalize: str

    def metadata(self) -> Metadata:
        """The keys of the GGUF; the logarithm is natural."""
        return {
            "frontend.sample_rate": Field("u32", self.sample_rate),
            "frontend.n_fft": Field("u32", self.n_fft),
            "frontend.hop_length": Field("u32", self.hop_length),
            "frontend.n_mels": Field("u32", self.n_mels),
            "frontend.center": Field("bool", self.center),
            "frontend.pad_mode": Field("str", self.pad_mode),
            "frontend.drop_last_frame": Field("bool", self.drop_last_frame),
            "frontend.preemphasis": Field("f32", self.preemphasis),
            "frontend.log": Field("str", "ln"),
            "frontend.floor": Field("f32", self.floor),
            "frontend.floor_mode": Field("str", self.floor_mode),
            "frontend.normalize": Field("str", self.normalize),
        }

    def tables(
        self, window: Callable[[], NDArray[Any]], mel_filters: Callable[[], NDArray[Any]]
    ) -> list[OutputTensor]:
        """window [win_length], stored in the middle of n_fft values; filters [n_mels, n_fft/2 + 1]."""
        left = (self.n_fft - self.win_length) // 2  # torch.stft
        right = self.n_fft - self.win_length - left
        return [
            OutputTensor("frontend.window", (self.n_fft,), lambda: np.pad(window(), (left, right))),
            OutputTensor("frontend.mel_filters", (self.n_mels, self.n_fft // 2 + 1), mel_filters),
        ]


@dataclass(frozen=True)
class Conformer:
    """The encoder. `conv_norm` is the checkpoint's: batch_norm (folded here) or layer_norm."""

    n_mels: int
    n_layer: int
    d_model: int
    n_head: int
    d_ff: int
    conv_kernel: int
    conv_norm: str
    use_bias: bool
    xscaling: bool
    attention: str
    rope_base: float
    subsampling: str
    subsampling_factor: int
    subsampling_kernel: int
    subsampling_channels: int

    def check(self, where: str) -> None:
        """Relations between the sizes; ModelFileError names the one that does not hold."""
        factor = self.subsampling_factor
        rules = {
            f"the width {self.d_model} is no multiple of {self.n_head} heads": self.d_model % self.n_head,
            f"the convolution's kernel {self.conv_kernel} is not odd": self.conv_kernel % 2 == 0,
            f"the subsampling's kernel {self.subsampling_kernel} is even": self.subsampling_kernel % 2 == 0,
            f"the subsampling's factor {factor} is no power of two": factor & (factor - 1),
            f"heads of {self.d_model // self.n_head} values cannot rotate":
                self.attention == "rotary" and self.d_model // self.n_head % 2,
        }  # fmt: skip
        for text, broken in rules.items():
            if broken:
                raise ModelFileError(f"{where}: {text}")

    @property
    def n_stages(self) -> int:
        """Convolutions of stride 2."""
        return int(math.log2(self.subsampling_factor))

    @property
    def n_bins(self) -> int:
        """Frequency bins that are left after the subsampling."""
        bins = self.n_mels
        for _ in range(self.n_stages):
            bins = (bins - 1) // 2 + 1
        return bins

    def metadata(self) -> Metadata:
        """`conformer.*`"""
        result = {
            "conformer.n_layer": Field("u32", self.n_layer),
            "conformer.d_model": Field("u32", self.d_model),
            "conformer.n_head": Field("u32", self.n_head),
            "conformer.d_ff": Field("u32", self.d_ff),
            "conformer.conv_kernel": Field("u32", self.conv_kernel),
            "conformer.use_bias": Field("bool", self.use_bias),
            "conformer.xscaling": Field("bool", self.xscaling),
            "conformer.attention": Field("str", self.attention),
            "conformer.conv_norm": Field("str", "layer_norm" if self.conv_norm == "layer_norm" else "none"),
            "conformer.subsampling": Field("str", self.subsampling),
            "conformer.subsampling_factor": Field("u32", self.subsampling_factor),
            "conformer.subsampling_kernel": Field("u32", self.subsampling_kernel),
            "conformer.subsampling_channels": Field("u32", self.subsampling_channels),
        }
        if self.attention == "rotary":
            result["conformer.rope_base"] = Field("f32", self.rope_base)
        return result


@dataclass(frozen=True)
class Head:
    """From frames to tokens: type ctc, rnnt or tdt; the blank is the id after the last token."""

    type: str
    n_vocab: int
    durations: tuple[int, ...] = ()
    max_symbols: int = 0
    pred_layers: int = 0
    pred_hidden: int = 0
    joint_hidden: int = 0

    def metadata(self) -> Metadata:
        """`head.*`"""
        result = {
            "head.type": Field("str", self.type),
            "head.n_vocab": Field("u32", self.n_vocab),
            "head.blank_id": Field("u32", self.n_vocab),
        }
        if self.type == "tdt":
            result["head.durations"] = Field("arr_i32", list(self.durations))
        if self.type != "ctc":
            for name in ("max_symbols", "pred_layers", "pred_hidden", "joint_hidden"):
                result[f"head.{name}"] = Field("u32", getattr(self, name))
        return result


# --- what a checkpoint must hold ---


def expected_tensors(encoder: Conformer, head: Head) -> Shapes:
    """Every tensor of a checkpoint but the front end's, with its row-major shape."""
    shapes = _subsampling_shapes(encoder)
    for layer in range(encoder.n_layer):
        shapes.update(_layer_shapes(encoder, f"encoder.layers.{layer}"))
    shapes.update(_head_shapes(encoder, head))
    return shapes


def n_parameters(encoder: Conformer, head: Head) -> int:
    """Weights as the publishers count them: without running statistics and front-end tables."""
    shapes = expected_tensors(encoder, head)
    return sum(math.prod(shape) for name, shape in shapes.items() if ".running_" not in name)


def _subsampling_shapes(encoder: Conformer) -> Shapes:
    shapes: Shapes = {}
    d, k, channels = encoder.d_model, encoder.subsampling_kernel, encoder.subsampling_channels

    def conv(index: int, n_out: int, n_in: int, *kernel: int) -> None:
        shapes[f"encoder.pre_encode.conv.{index}.weight"] = (n_out, n_in, *kernel)
        shapes[f"encoder.pre_encode.conv.{index}.bias"] = (n_out,)

    for stage in range(encoder.n_stages):
        if encoder.subsampling == "conv1d":
            conv(2 * stage, channels, channels if stage else encoder.n_mels, k)
        elif encoder.subsampling == "conv2d":
            conv(2 * stage, channels, channels if stage else 1, k, k)
        elif stage == 0:
            conv(0, channels, 1, k, k)
        else:
            conv(3 * stage - 1, channels, 1, k, k)
            conv(3 * stage, channels, channels, 1, 1)
    if encoder.subsampling != "conv1d":
        shapes["encoder.pre_encode.out.weight"] = (d, channels * encoder.n_bins)
        shapes["encoder.pre_encode.out.bias"] = (d,)
    return shapes


def _layer_shapes(encoder: Conformer, prefix: str) -> Shapes:
    shapes: Shapes = {}
    d, d_ff = encoder.d_model, encoder.d_ff

    def linear(name: str, n_out: int, n_in: int, *kernel: int, bias: bool = encoder.use_bias) -> None:
        shapes[f"{prefix}.{name}.weight"] = (n_out, n_in, *kernel)
        if bias:
            shapes[f"{prefix}.{name}.bias"] = (n_out,)

    def norm(name: str, *parts: str) -> None:
        shapes.update({f"{prefix}.{name}.{part}": (d,) for part in ("weight", "bias", *parts)})

    for name in _NORMS:
        norm(name)
    for name in ("feed_forward1", "feed_forward2"):
        linear(f"{name}.linear1", d_ff, d)
        linear(f"{name}.linear2", d, d_ff)
    for part in ("q", "k", "v", "out"):
        linear(f"self_attn.linear_{part}", d, d)
    if encoder.attention == "rel_pos":
        linear("self_attn.linear_pos", d, d, bias=False)
        for part in ("u", "v"):
            shapes[f"{prefix}.self_attn.pos_bias_{part}"] = (encoder.n_head, d // encoder.n_head)
    linear("conv.pointwise_conv1", 2 * d, d, 1)
    linear("conv.depthwise_conv", d, 1, encoder.conv_kernel)
    norm("conv.batch_norm", *(("running_mean", "running_var") if encoder.conv_norm == "batch_norm" else ()))
    linear("conv.pointwise_conv2", d, d, 1)
    return shapes


def _head_shapes(encoder: Conformer, head: Head) -> Shapes:
    d, n_out = encoder.d_model, head.n_vocab + 1
    if head.type == "ctc":
        return {"head.weight": (n_out, d, 1), "head.bias": (n_out,)}
    p, j = head.pred_hidden, head.joint_hidden
    shapes: Shapes = {"prediction.embed.weight": (n_out, p)}
    for layer in range(head.pred_layers):
        for part in ("ih", "hh"):
            shapes[f"prediction.lstm.weight_{part}_l{layer}"] = (4 * p, p)
            shapes[f"prediction.lstm.bias_{part}_l{layer}"] = (4 * p,)
    for name, rows, columns in (("enc", j, d), ("pred", j, p), ("out", n_out + len(head.durations), j)):
        shapes[f"joint.{name}.weight"], shapes[f"joint.{name}.bias"] = (rows, columns), (rows,)
    return shapes


def claim(
    found: Checkpoint, expected: Mapping[str, tuple[int, ...]], name_in_file: Callable[[str], str], where: str
) -> Checkpoint:
    """The checkpoint under the names of `expected`, after checking that it holds just those tensors.

    `name_in_file` gives the name that a file of this format has for one of them; errors use it.
    """
    names = {name: name_in_file(name) for name in expected}
    check_tensors(found, {names[name]: shape for name, shape in expected.items()}, where)
    return {name: found[names[name]] for name in expected}


# --- the layout of the GGUF ---


def output_tensors(tensors: Checkpoint, encoder: Conformer, head: Head, where: str) -> list[OutputTensor]:
    """The GGUF's tensors behind the front end's, in the order of the computation."""
    plan = _Plan(tensors)
    _plan_subsampling(plan, encoder)
    for layer in range(encoder.n_layer):
        _plan_layer(plan, encoder, f"encoder.layers.{layer}")
    if head.type == "ctc":
        plan.matrix("head.weight")
        plan.same("head.bias")
    else:
        _check_blank(tensors["prediction.embed.weight"], head, where)
        _plan_transducer(plan, head)
    return plan.out


class _Plan:
    """Collects output tensors; each method says what becomes of one or several source tensors."""

    def __init__(self, tensors: Checkpoint) -> None:
        self.tensors = tensors
        self.out: list[OutputTensor] = []

    def add(self, name: str, shape: tuple[int, ...], build: Callable[[], NDArray[Any]], dtype: str) -> None:
        self.out.append(OutputTensor(name, shape, build, dtype))

    def same(self, *names: str) -> None:
        """Tensors that are stored as they are; absent ones (biases) are left out."""
        for name in names:
            if name in self.tensors:
                tensor = self.tensors[name]
                self.add(name, tensor.shape, tensor.read, tensor.dtype)

    def linear(self, *names: str) -> None:
        """Weight and, where there is one, bias; a convolution of one tap becomes a matrix."""
        for name in names:
            self.matrix(f"{name}.weight")
            self.same(f"{name}.bias")

    def matrix(self, name: str) -> None:
        """[n_out, n_in] of [n_out, n_in, 1, ...]"""
        tensor = self.tensors[name].reshaped(self.tensors[name].shape[:2])
        self.add(name, tensor.shape, tensor.read, tensor.dtype)

    def fused(self, name: str, *parts: str) -> None:
        """The rows of several linear layers below each other, weights and biases."""
        for kind in ("weight", "bias"):
            sources = [self.tensors[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in self.tensors]
            if sources:
                shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])
                self.add(f"{name}.{kind}", shape, _concatenated(sources, 0), sources[0].dtype)

    def taps(self, name: str) -> None:
        """A dense convolution [n_out, n_in, taps...] as [n_out, taps * n_in], input channels fastest."""
        tensor = self.tensors[f"{name}.weight"]
        n_out, n_in, *kernel = tensor.shape
        shape = (n_out, math.prod(kernel) * n_in)
        self.add(
            f"{name}.weight", shape, lambda: np.moveaxis(tensor.read(), 1, -1).reshape(shape), tensor.dtype
        )
        self.same(f"{name}.bias")

    def kernel(self, name: str) -> None:
        """A convolution of one input channel each, [C, 1, time, mel] -> [time, mel, C]."""
        tensor = self.tensors[f"{name}.weight"]
        channels, _, *kernel = tensor.shape
        shape = (*kernel, channels)
        self.add(f"{name}.kernel", shape, lambda: np.moveaxis(tensor.read()[:, 0], 0, -1), tensor.dtype)
        self.same(f"{name}.bias")


def _concatenated(sources: list[SourceTensor], axis: int) -> Callable[[], NDArray[Any]]:
    return lambda: np.concatenate([source.read() for source in sources], axis=axis)


def _plan_subsampling(plan: _Plan, encoder: Conformer) -> None:
    prefix = "encoder.pre_encode"
    for stage in range(encoder.n_stages):
        if encoder.subsampling == "conv1d" or (encoder.subsampling == "conv2d" and stage > 0):
            plan.taps(f"{prefix}.conv.{2 * stage}")
        elif stage == 0:
            plan.kernel(f"{prefix}.conv.0")
        else:
            plan.kernel(f"{prefix}.conv.{3 * stage - 1}")
            plan.linear(f"{prefix}.conv.{3 * stage}")
    if encoder.subsampling == "conv1d":
        return
    # Per frame the checkpoint's inputs run channel by channel (c * bins + f), the graph's bin by bin.
    out, channels, bins = plan.tensors[f"{prefix}.out.weight"], encoder.subsampling_channels, encoder.n_bins

    def bin_major() -> NDArray[Any]:
        weight: NDArray[Any] = out.read().reshape(out.shape[0], channels, bins)
        reordered: NDArray[Any] = weight.transpose(0, 2, 1).reshape(out.shape)
        return reordered

    plan.add(f"{prefix}.out.weight", out.shape, bin_major, out.dtype)
    plan.same(f"{prefix}.out.bias")


def _plan_layer(plan: _Plan, encoder: Conformer, prefix: str) -> None:
    def norm(name: str) -> None:
        plan.same(f"{prefix}.{name}.weight", f"{prefix}.{name}.bias")

    norm("norm_feed_forward1")
    plan.linear(f"{prefix}.feed_forward1.linear1", f"{prefix}.feed_forward1.linear2")
    norm("norm_self_att")
    _plan_attention(plan, encoder, f"{prefix}.self_attn")
    norm("norm_conv")
    plan.linear(f"{prefix}.conv.pointwise_conv1")
    _plan_depthwise(plan, encoder, f"{prefix}.conv")
    plan.linear(f"{prefix}.conv.pointwise_conv2")
    norm("norm_feed_forward2")
    plan.linear(f"{prefix}.feed_forward2.linear1", f"{prefix}.feed_forward2.linear2")
    norm("norm_out")


def _plan_attention(plan: _Plan, encoder: Conformer, prefix: str) -> None:
    """Rotary attention projects the values from the unrotated input, so they stay apart."""
    together = ("q", "k") if encoder.attention == "rotary" else ("q", "k", "v")
    plan.fused(f"{prefix}.{''.join(together)}", *(f"{prefix}.linear_{part}" for part in together))
    if encoder.attention == "rotary":
        plan.fused(f"{prefix}.v", f"{prefix}.linear_v")
    else:
        plan.fused(f"{prefix}.pos", f"{prefix}.linear_pos")
        plan.same(f"{prefix}.pos_bias_u", f"{prefix}.pos_bias_v")
    plan.fused(f"{prefix}.out", f"{prefix}.linear_out")


def _plan_depthwise(plan: _Plan, encoder: Conformer, prefix: str) -> None:
    """kernel [K, 1, d] and bias [d], with the batch normalisation that follows folded into both."""
    d, folded = encoder.d_model, encoder.conv_norm == "batch_norm"
    weight = plan.tensors[f"{prefix}.depthwise_conv.weight"]
    bias = plan.tensors.get(f"{prefix}.depthwise_conv.bias")

    def value(name: str) -> NDArray[np.float64]:
        return plan.tensors[f"{prefix}.batch_norm.{name}"].read().astype(np.float64)

    def scale() -> NDArray[Any]:
        if not folded:
            return np.ones(d)
        variance = value("running_var")
        if not (variance + _NORM_EPSILON > 0).all():
            name = plan.tensors[f"{prefix}.batch_norm.running_var"].name
            raise ModelFileError(f"tensor {name!r} holds negative variances: the source is damaged")
        return value("weight") / np.sqrt(variance + _NORM_EPSILON)

    def kernel() -> NDArray[Any]:
        taps = weight.read()[:, 0].astype(np.float64) * scale()[:, None]
        result: NDArray[np.float32] = taps.T.reshape(encoder.conv_kernel, 1, d).astype(np.float32)
        return result

    def shift() -> NDArray[Any]:
        own: NDArray[Any] = np.zeros(d) if bias is None else bias.read().astype(np.float64)
        if folded:
            own = value("bias") + (own - value("running_mean")) * scale()
        return own.astype(np.float32)

    plan.add(f"{prefix}.depthwise_conv.kernel", (encoder.conv_kernel, 1, d), kernel, weight.dtype)
    plan.add(f"{prefix}.depthwise_conv.bias", (d,), shift, weight.dtype)
    if not folded:
        for kind in ("weight", "bias"):
            norm = plan.tensors[f"{prefix}.batch_norm.{kind}"]  # its name; it is a LayerNorm
            plan.add(f"{prefix}.norm.{kind}", (d,), norm.read, norm.dtype)


def _plan_transducer(plan: _Plan, head: Head) -> None:
    plan.same("prediction.embed.weight")
    for layer in range(head.pred_layers):
        weights = [plan.tensors[f"prediction.lstm.weight_{part}_l{layer}"] for part in ("ih", "hh")]
        biases = [plan.tensors[f"prediction.lstm.bias_{part}_l{layer}"] for part in ("ih", "hh")]
        rows, columns = weights[0].shape
        name = f"prediction.lstm.{layer}"
        plan.add(f"{name}.weight", (rows, 2 * columns), _concatenated(weights, 1), weights[0].dtype)
        plan.add(f"{name}.bias", (rows,), _summed(biases), biases[0].dtype)
    plan.linear("joint.enc", "joint.pred", "joint.out")


def _summed(sources: list[SourceTensor]) -> Callable[[], NDArray[Any]]:
    return lambda: np.stack([source.read().astype(np.float32) for source in sources]).sum(axis=0)


def _check_blank(embedding: SourceTensor, head: Head, where: str) -> None:
    """Decoding starts from the blank's embedding, and the graphs take it for zero: torch's padding_idx."""
    row = embedding.read(slice(head.n_vocab, head.n_vocab + 1))
    if np.any(row):
        raise UnsupportedModelError(
            f"{where}: tensor {embedding.name!r} row {head.n_vocab} (the blank) holds "
            f"{float(np.abs(row).max()):g}, expected zeros"
        )
