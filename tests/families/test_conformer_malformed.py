"""A damaged or foreign conformer file is refused with the key or tensor that is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_conformer as tiny

from rustasr import _core
from rustasr.convert.common import Field, OutputTensor
from rustasr.errors import ModelFileError


def refuse(path: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        _core.Model(str(path), "cpu", 1)


def test_every_missing_key_is_named(tmp_path: Path) -> None:
    model = tiny.make("gigaam-v3")
    for key in model.metadata():
        fields = model.metadata()
        del fields[key]
        refuse(model.write(tmp_path / "tiny.gguf", metadata=fields), key.replace(".", r"\."))


def test_every_missing_tensor_is_named(tmp_path: Path) -> None:
    for variant in tiny.VARIANTS:
        model = tiny.make(variant)
        tensors = model.output_tensors()
        for i, tensor in enumerate(tensors):
            if ".layers.1." in tensor.name:  # as layer 0
                continue
            path = model.write(tmp_path / "tiny.gguf", tensors=tensors[:i] + tensors[i + 1 :])
            refuse(path, rf"tensor \"{tensor.name}\" is missing: expected shape".replace(".", r"\."))


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_a_wrong_shape_names_the_tensor(variant: str, tmp_path: Path) -> None:
    model = tiny.make(variant)
    tensors = model.output_tensors()
    for i, tensor in enumerate(tensors):
        if ".layers.1." in tensor.name:
            continue
        shape = (tensor.shape[0] + 1, *tensor.shape[1:])
        wrong = OutputTensor(tensor.name, shape, lambda shape=shape: np.zeros(shape, np.float32))  # type: ignore[misc]
        path = model.write(tmp_path / "tiny.gguf", tensors=[*tensors[:i], wrong, *tensors[i + 1 :]])
        refuse(path, rf"tensor \"{tensor.name}\": expected shape .*, found".replace('."', '\\."'))


def test_a_tensor_of_another_model_is_named(tmp_path: Path) -> None:
    model = tiny.make("gigaam-v3")
    extra = OutputTensor("encoder.extra", (4,), lambda: np.zeros(4, np.float32))
    path = model.write(tmp_path / "tiny.gguf", tensors=[*model.output_tensors(), extra])
    refuse(path, r"1 tensors that this model does not have: \"encoder\.extra\"")


V3, PARAKEET = "gigaam-v3", "parakeet"
MISSING, UNKNOWN = r"is missing", r"tensors that this model does not have: "
MISFITS: list[tuple[str, str, Any, str]] = [
    (V3, "conformer.n_head", 3, r"d_model: expected a multiple of conformer\.n_head \(3\), found 64"),
    (V3, "conformer.n_head", 64, r"n_head: expected an even number of the 64 values for each, found 64"),
    (V3, "conformer.n_head", 0, r"conformer\.n_head\": expected a u32 from 1 to 256, found 0"),
    (V3, "conformer.conv_kernel", 4, r"conv_kernel: expected an odd number, found 4"),
    (V3, "conformer.subsampling_kernel", 4, r"subsampling_kernel: expected an odd number"),
    (V3, "conformer.subsampling_factor", 6, r"subsampling_factor: expected a power of two above 1, found 6"),
    (V3, "conformer.subsampling_factor", 16, r"n_mels: expected at least conformer\.subsampling_factor"),
    (V3, "conformer.subsampling_channels", 32, r"channels: expected conformer\.d_model \(64\), found 32"),
    (V3, "conformer.rope_base", 1.0, r"rope_base: expected more than 1, found 1"),
    (V3, "conformer.rope_base", float("nan"), r"rope_base"),
    (V3, "conformer.attention", "local", r"attention: expected one of rotary, rel_pos, found \"local\""),
    (V3, "conformer.conv_norm", "batch_norm", r"conv_norm: expected one of layer_norm, none"),
    (V3, "conformer.subsampling", "dw_striding", r"subsampling: GigaAM has conv1d or conv2d"),
    (PARAKEET, "conformer.subsampling", "conv1d", r"subsampling_channels: expected conformer\.d_model"),
    (PARAKEET, "conformer.subsampling_factor", 2, r"subsampling_factor: expected 4 or more with dw_striding"),
    (PARAKEET, "conformer.attention", "rotary", r"rope_base"),
    (V3, "head.type", "aed", r"head\.type: expected .*ctc.*found \"aed\""),
    (V3, "head.blank_id", 0, r"head\.blank_id\": expected a u32 from 10 to 10, found 0"),
    (V3, "head.n_vocab", 0, r"head\.n_vocab"),
    (V3, "conformer.n_layer", 3, rf"\"encoder\.layers\.2\.norm_feed_forward1\.weight\" {MISSING}"),
    (V3, "conformer.n_layer", 1, rf"{UNKNOWN}\"encoder\.layers\.1\."),
    (V3, "conformer.use_bias", False, rf"{UNKNOWN}.*bias\""),
]


@pytest.mark.parametrize(("variant", "key", "value", "message"), MISFITS)
def test_sizes_that_do_not_fit_name_the_key(
    variant: str, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    model = tiny.make(variant)
    fields = model.metadata()
    fields[key] = replace(fields[key], value=value)
    refuse(model.write(tmp_path / "tiny.gguf", metadata=fields), message)


def test_a_key_of_another_type_is_named(tmp_path: Path) -> None:
    model = tiny.make("gigaam-v3")
    fields = {**model.metadata(), "conformer.d_model": Field("str", "64")}
    refuse(model.write(tmp_path / "tiny.gguf", metadata=fields), r"conformer\.d_model")
