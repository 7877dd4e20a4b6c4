"""GigaAM checkpoints -> GGUF: both published forms, every version, what the file then holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformer_checkpoints import (
    HEADS,
    JOINT,
    LAYERS,
    PIECES,
    PRED,
    RUSSIAN,
    D,
    TinyModel,
    make_gigaam,
    sentencepiece_bytes,
    write_gigaam_ckpt,
    write_gigaam_hf,
)
from gguf_contents import PROVENANCE, assert_same_tensors, contents, converted, differing_keys, tensor_types
from rustasr.convert import convert
from rustasr.errors import ModelFileError, UnsupportedModelError

VARIANTS = [
    ("v3", "ctc", True), ("v3", "ctc", False), ("v3", "rnnt", True), ("v3", "rnnt", False),
    ("v2", "ctc", True), ("v2", "rnnt", True), ("v1", "ctc", True),
]  # fmt: skip


def gguf_of(made: TinyModel, folder: Path) -> Any:
    return converted(write_gigaam_ckpt(folder / "model.ckpt", made), folder)


@pytest.mark.parametrize(("version", "head", "characters"), VARIANTS)
def test_both_forms_give_identical_files(tmp_path: Path, version: str, head: str, characters: bool) -> None:
    made = make_gigaam(version, head, characters=characters)
    one = gguf_of(made, tmp_path)
    other = converted(write_gigaam_hf(tmp_path / "hf", made), tmp_path)
    assert_same_tensors(one, other)
    assert differing_keys(one, other) <= PROVENANCE
    assert one[1]["general.architecture"] == "gigaam"


def test_the_trained_checkpoint_in_both_forms(micro_gguf: Callable[..., Path]) -> None:
    """The `.ckpt` was pickled by OmegaConf itself."""
    one, other = (contents(micro_gguf("gigaam-micro-ctc", layout=layout)) for layout in ("ckpt", "hf"))
    assert_same_tensors(one, other)
    assert differing_keys(one, other) <= PROVENANCE
    assert one[1]["conformer.n_layer"] == 4
    assert one[1]["tokenizer.pieces"] == RUSSIAN


def test_the_trained_transducer(micro_gguf: Callable[..., Path]) -> None:
    tensors, keys = contents(micro_gguf("gigaam-micro-e2e-rnnt"))
    assert (keys["head.type"], keys["head.blank_id"], keys["head.max_symbols"]) == ("rnnt", 256, 10)
    assert keys["tokenizer.pieces"][:4] == ["<unk>", "▁", ",", "о"]
    assert tensors["joint.out.weight"].shape == (257, 320)
    weights = sum(data.size for name, data in tensors.items() if not name.startswith("frontend"))
    assert weights == 7_646_721 - 1280  # the README's count; the LSTM's two biases are one here


def test_metadata_follows_the_schema(tmp_path: Path) -> None:
    _, keys = gguf_of(make_gigaam("v3", "rnnt", characters=False), tmp_path)
    expected = {
        "general.architecture": "gigaam", "general.name": "model.ckpt", "general.license": "unknown",
        "frontend.sample_rate": 16000, "frontend.n_fft": 320, "frontend.hop_length": 160,
        "frontend.n_mels": 64, "frontend.center": False, "frontend.pad_mode": "none",
        "frontend.drop_last_frame": False, "frontend.preemphasis": 0.0, "frontend.log": "ln",
        "frontend.floor": pytest.approx(1e-9), "frontend.floor_mode": "clamp",
        "frontend.normalize": "none",
        "conformer.n_layer": LAYERS, "conformer.d_model": D, "conformer.n_head": HEADS,
        "conformer.d_ff": 2 * D, "conformer.conv_kernel": 5, "conformer.use_bias": True,
        "conformer.xscaling": False, "conformer.attention": "rotary", "conformer.rope_base": 5000.0,
        "conformer.conv_norm": "layer_norm", "conformer.subsampling": "conv1d",
        "conformer.subsampling_factor": 4, "conformer.subsampling_kernel": 5,
        "conformer.subsampling_channels": D,
        "head.type": "rnnt", "head.n_vocab": len(PIECES), "head.blank_id": len(PIECES),
        "head.max_symbols": 10, "head.pred_layers": 1, "head.pred_hidden": PRED, "head.joint_hidden": JOINT,
        "tokenizer.kind": "sentencepiece", "tokenizer.pieces": [text for text, _ in PIECES],
        "tokenizer.piece_types": [kind for _, kind in PIECES],
        "gigaam.languages": ["ru"], "gigaam.max_seconds": 25.0,
    }  # fmt: skip
    assert {key: keys[key] for key in expected} == expected
    assert "head.durations" not in keys


def test_version_2_is_told_by_its_configuration(tmp_path: Path) -> None:
    _, keys = gguf_of(make_gigaam("v2"), tmp_path)
    expected = {
        "frontend.n_fft": 400, "frontend.center": True, "frontend.pad_mode": "reflect",
        "frontend.drop_last_frame": False, "conformer.conv_kernel": 31, "conformer.conv_norm": "none",
        "conformer.subsampling": "conv2d", "conformer.subsampling_kernel": 3, "head.type": "ctc",
        "tokenizer.kind": "characters", "tokenizer.pieces": RUSSIAN, "tokenizer.piece_types": [1] * 33,
    }  # fmt: skip
    assert {key: keys[key] for key in expected} == expected
    assert "head.max_symbols" not in keys


def test_keys_that_are_left_out_have_the_defaults_of_the_classes(tmp_path: Path) -> None:
    """gigaam/preprocess.py and encoder.py: what a configuration of version 2 need not say."""
    made = make_gigaam("v2", "rnnt", characters=True)
    full = gguf_of(made, tmp_path)
    for key in ("win_length", "hop_length", "n_fft", "center", "mel_scale", "mel_norm"):
        made = made.configured(f"preprocessor.{key}", ...)
    for key in ("subsampling_factor", "subsampling", "subs_kernel_size", "self_attention_model",
                "conv_norm_type", "conv_kernel_size", "pos_emb_max_len"):  # fmt: skip
        made = made.configured(f"encoder.{key}", ...)
    assert differing_keys(full, gguf_of(made, tmp_path)) <= PROVENANCE
    wider = make_gigaam("v3", "rnnt").configured("decoding.max_symbols_per_step", 3)
    assert gguf_of(wider, tmp_path)[1]["head.max_symbols"] == 3


def test_layout_of_version_3(tmp_path: Path) -> None:
    made = make_gigaam("v3", "rnnt", characters=True)
    tensors, _ = gguf_of(made, tmp_path)
    source = {name: data.astype("f4") for name, data in made.tensors.items()}
    conv = source["encoder.pre_encode.conv.2.weight"]
    for tap in range(5):
        rows = tensors["encoder.pre_encode.conv.2.weight"][:, tap * D : (tap + 1) * D]
        assert np.array_equal(rows, conv[:, :, tap])
    layer = "encoder.layers.1"
    for index, part in enumerate("qk"):
        rows = slice(index * D, (index + 1) * D)
        for kind in ("weight", "bias"):
            fused, single = (
                tensors[f"{layer}.self_attn.qk.{kind}"],
                source[f"{layer}.self_attn.linear_{part}.{kind}"],
            )
            assert np.array_equal(fused[rows], single)
    assert np.array_equal(tensors[f"{layer}.self_attn.v.bias"], source[f"{layer}.self_attn.linear_v.bias"])
    depthwise = source[f"{layer}.conv.depthwise_conv.weight"]
    kernel = tensors[f"{layer}.conv.depthwise_conv.kernel"]
    assert kernel.shape == (5, 1, D)
    assert np.array_equal(kernel[:, 0].T, depthwise[:, 0])
    assert np.array_equal(
        tensors[f"{layer}.conv.depthwise_conv.bias"], source[f"{layer}.conv.depthwise_conv.bias"]
    )
    assert np.array_equal(tensors[f"{layer}.conv.norm.weight"], source[f"{layer}.conv.batch_norm.weight"])
    lstm = tensors["prediction.lstm.0.weight"]
    assert np.array_equal(lstm[:, :PRED], source["head.decoder.lstm.weight_ih_l0"])
    assert np.array_equal(lstm[:, PRED:], source["head.decoder.lstm.weight_hh_l0"])
    summed = source["head.decoder.lstm.bias_ih_l0"] + source["head.decoder.lstm.bias_hh_l0"]
    assert np.array_equal(tensors["prediction.lstm.0.bias"], summed)
    assert np.array_equal(tensors["joint.out.weight"], source["head.joint.joint_net.1.weight"])
    assert not tensors["prediction.embed.weight"][-1].any()


def test_layout_of_version_2(tmp_path: Path) -> None:
    made = make_gigaam("v2")
    tensors, _ = gguf_of(made, tmp_path)
    source = {name: data.astype("f4") for name, data in made.tensors.items()}
    first = tensors["encoder.pre_encode.conv.0.kernel"]
    assert first.shape == (3, 3, D)
    assert np.array_equal(first, source["encoder.pre_encode.conv.0.weight"][:, 0].transpose(1, 2, 0))
    second = tensors["encoder.pre_encode.conv.2.weight"]
    for time in range(3):
        for mel in range(3):
            at = (3 * time + mel) * D
            assert np.array_equal(
                second[:, at : at + D], source["encoder.pre_encode.conv.2.weight"][:, :, time, mel]
            )
    out, stored = tensors["encoder.pre_encode.out.weight"], source["encoder.pre_encode.out.weight"]
    for channel, bin_ in ((0, 0), (5, 3), (D - 1, 15)):
        assert np.array_equal(out[:, bin_ * D + channel], stored[:, channel * 16 + bin_])
    assert not any("conv.norm" in name for name in tensors)


def test_batch_norm_is_folded(tmp_path: Path) -> None:
    made = make_gigaam("v2")
    tensors, _ = gguf_of(made, tmp_path)
    x = np.random.default_rng(0).standard_normal((D, 31))
    module = "encoder.layers.0.conv."
    conv = {
        name.removeprefix(module): data.astype("f8")
        for name, data in made.tensors.items()
        if name.startswith(module)
    }
    raw = (x * conv["depthwise_conv.weight"][:, 0]).sum(axis=1) + conv["depthwise_conv.bias"]
    normal = (raw - conv["batch_norm.running_mean"]) / np.sqrt(conv["batch_norm.running_var"] + 1e-5)
    expected = normal * conv["batch_norm.weight"] + conv["batch_norm.bias"]
    kernel, bias = tensors[f"{module}depthwise_conv.kernel"], tensors[f"{module}depthwise_conv.bias"]
    found = (x * kernel[:, 0].T).sum(axis=1) + bias
    assert np.abs(found - expected).max() < 1e-5


def test_window_and_filterbank_are_the_files_own(tmp_path: Path) -> None:
    made = make_gigaam()
    tensors, _ = gguf_of(made, tmp_path)
    assert np.array_equal(
        tensors["frontend.window"], made.tensors["preprocessor.featurizer.0.spectrogram.window"]
    )
    filters = made.tensors["preprocessor.featurizer.0.mel_scale.fb"]
    assert np.array_equal(tensors["frontend.mel_filters"], filters.T)


def test_relative_positions_of_version_1(tmp_path: Path) -> None:
    made = make_gigaam("v1")
    tensors, keys = gguf_of(made, tmp_path)
    assert keys["conformer.attention"] == "rel_pos"
    assert "conformer.rope_base" not in keys
    prefix = "encoder.layers.0.self_attn"
    assert tensors[f"{prefix}.qkv.weight"].shape == (3 * D, D)
    assert np.array_equal(
        tensors[f"{prefix}.pos.weight"], made.tensors[f"{prefix}.linear_pos.weight"].astype("f4")
    )
    assert tensors[f"{prefix}.pos_bias_u"].shape == (HEADS, D // HEADS)


# --- tokenizers ---


def test_the_tokenizer_is_found_beside_or_given(tmp_path: Path) -> None:
    made = make_gigaam("v3", "rnnt")
    path = write_gigaam_ckpt(tmp_path / "v3_e2e_rnnt.ckpt", made)
    beside = tmp_path / "v3_e2e_rnnt_tokenizer.model"
    reference = converted(path, tmp_path)
    beside.rename(tmp_path / "tokenizer.model")
    assert differing_keys(reference, converted(path, tmp_path)) == set()
    elsewhere = tmp_path / "elsewhere.model"
    (tmp_path / "tokenizer.model").rename(elsewhere)
    with pytest.raises(ModelFileError, match=r"v3_e2e_rnnt_tokenizer\.model or .*--tokenizer"):
        convert(path, tmp_path / "out.gguf")
    assert differing_keys(reference, converted(path, tmp_path, tokenizer=elsewhere)) == set()
    with pytest.raises(ModelFileError, match=r"absent\.model"):
        convert(path, tmp_path / "out.gguf", tokenizer=tmp_path / "absent.model")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = write_gigaam_ckpt(tmp_path / "model.ckpt", make_gigaam("v3", "rnnt"))
    other = tmp_path / "other.model"
    other.write_bytes(sentencepiece_bytes(tuple(PIECES[:-1])))
    with pytest.raises(ModelFileError, match=f"{len(PIECES) - 1} pieces, but .* has {len(PIECES)} tokens"):
        convert(path, tmp_path / "out.gguf", tokenizer=other)


# --- names, types, refusals ---


@pytest.mark.parametrize(
    ("config_name", "file_name", "parameters", "name"),
    [
        ("v3_ctc", "model.ckpt", 220_707_874, "gigaam-v3-ctc"),
        ("v3_e2e_rnnt", "model.ckpt", 222_509_313, "gigaam-v3-e2e-rnnt"),
        (None, "v3_rnnt.ckpt", 221_874_082, "gigaam-v3-rnnt"),
        ("v3_ctc", "model.ckpt", 6_484_002, None),
        (None, "model.ckpt", 220_707_874, None),
        ("v9_ctc", "model.ckpt", 220_707_874, None),
    ],
)
def test_a_release_is_known_by_its_name_and_size(
    tmp_path: Path, config_name: str | None, file_name: str, parameters: int, name: str | None
) -> None:
    from rustasr.convert import gigaam
    from rustasr.convert.config import Config
    from rustasr.convert.sources import Detected, Source

    path = tmp_path / file_name
    source = Source(Detected("torch", path, (path,)), "gigaam", str(path))
    assert gigaam._release(Config({"model_name": config_name}, "here"), source, parameters) == name


@pytest.mark.parametrize("qtype", ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_0"])
def test_types_per_tensor(tmp_path: Path, qtype: str) -> None:
    source = write_gigaam_ckpt(tmp_path / "model.ckpt", make_gigaam("v3", "rnnt"))
    report = convert(source, tmp_path / "out.gguf", qtype=qtype)
    types = tensor_types(report.output)
    block = qtype in ("q8_0", "q6_k", "q4_0")
    fitting = {"q6_k": "q8_0"}.get(qtype, qtype)  # rows of 64 hold no block of 256
    assert types["encoder.layers.0.feed_forward1.linear1.weight"] == fitting
    assert types["encoder.pre_encode.conv.0.weight"] == ("q8_0" if qtype == "q6_k" else qtype)
    assert types["joint.enc.weight"] == fitting
    for name in ("prediction.embed", "prediction.lstm.0", "joint.pred", "joint.out"):
        assert types[f"{name}.weight"] == ("f16" if block else qtype), name
    stays = ("frontend.window", "frontend.mel_filters", "encoder.layers.0.norm_out.weight",
             "encoder.layers.0.conv.depthwise_conv.kernel", "prediction.lstm.0.bias")  # fmt: skip
    assert {types[name] for name in stays} == {"f32"}
    assert ("prediction.embed.weight: f16" in report.fallbacks) is block


def test_an_f16_source_keeps_its_values_in_an_f16_file(tmp_path: Path) -> None:
    made = make_gigaam()
    tensors, _ = converted(write_gigaam_ckpt(tmp_path / "model.ckpt", made), tmp_path, qtype="f16")
    name = "encoder.layers.0.feed_forward1.linear1.weight"
    assert tensors[name].dtype == np.float16
    assert np.array_equal(tensors[name], made.tensors[name])


def test_the_blanks_embedding_must_be_zero(tmp_path: Path) -> None:
    made = make_gigaam("v3", "rnnt")
    made.tensors["head.decoder.embed.weight"][-1, 3] = 0.25
    with pytest.raises(UnsupportedModelError, match=r"head\.decoder\.embed\.weight.* row 12 .*0\.25"):
        gguf_of(made, tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder.self_attention_model", "abs_pos", r"self_attention_model.*abs_pos.*'rotary' or 'rel_pos'"),
        ("encoder.subsampling", "vggnet", r"encoder\.subsampling"),
        ("encoder.conv_norm_type", "group_norm", r"conv_norm_type"),
        ("preprocessor.mel_scale", "slaney", r"mel_scale.*'slaney'.*'htk'"),
        ("preprocessor.mel_norm", "slaney", r"mel_norm"),
        ("head._target_", "gigaam.decoder.EmoHead", r"EmoHead.*CTCHead or RNNTHead"),
    ],
)
def test_what_is_not_implemented_is_said(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        gguf_of(make_gigaam().configured(path, value), tmp_path)


def test_a_fine_tuning_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    from whisper_writers import Pickle, write_torch_zip

    path = write_torch_zip(
        tmp_path / "model.ckpt", Pickle().add({"hyper_parameters": {}, "state_dict": {}}).done(), []
    )
    with pytest.raises(UnsupportedModelError, match=r"hyper_parameters.*GigaAM's 'cfg' and 'state_dict'"):
        convert(path, tmp_path / "out.gguf")


def test_a_plain_configuration_is_as_good_as_omegaconfs(tmp_path: Path) -> None:
    made = make_gigaam()
    one = gguf_of(made, tmp_path)
    plain = write_gigaam_ckpt(tmp_path / "plain" / "model.ckpt", made, cfg=made.config)
    assert differing_keys(one, converted(plain, tmp_path)) == {"rustasr.source_sha256"}
