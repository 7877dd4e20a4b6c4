"""Parakeet checkpoints -> GGUF: `.nemo` and Hugging Face folders, every head, what the file then holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformer_checkpoints import (
    CHANNELS,
    HEADS,
    LAYERS,
    PIECES,
    PRED,
    D,
    TinyModel,
    make_parakeet,
    sentencepiece_bytes,
    write_nemo,
    write_parakeet_hf,
)
from gguf_contents import PROVENANCE, assert_same_tensors, contents, converted, differing_keys, tensor_types
from rustasr.convert import convert
from rustasr.convert.mel import slaney_filterbank, symmetric_hann_window
from rustasr.errors import ModelFileError, UnsupportedModelError

HEAD_TYPES = ("tdt", "rnnt", "ctc")
TABLES = ("frontend.window", "frontend.mel_filters")


def gguf_of(made: TinyModel, folder: Path, **options: Any) -> Any:
    return converted(write_nemo(folder / "model.nemo", made), folder, **options)


# --- forms ---


@pytest.mark.parametrize("head", HEAD_TYPES)
@pytest.mark.parametrize("use_bias", [False, True])
def test_all_forms_give_identical_files(tmp_path: Path, head: str, use_bias: bool) -> None:
    made = make_parakeet(head, use_bias=use_bias, xscaling=use_bias, n_mels=80, joint=PRED)
    made.tensors["preprocessor.featurizer.fb"] = slaney_filterbank(80, 512)[None]
    made.tensors["preprocessor.featurizer.window"] = symmetric_hann_window(400)
    one = gguf_of(made, tmp_path)
    others = (
        write_nemo(tmp_path / "zipped.nemo", made, gzipped=True),
        write_parakeet_hf(tmp_path / "hf", made),
        write_parakeet_hf(tmp_path / "sharded", made, shards=3),
    )
    for path in others:
        other = converted(path, tmp_path)
        assert_same_tensors(one, other)
        assert differing_keys(one, other) <= PROVENANCE
    assert one[1]["conformer.use_bias"] is use_bias
    assert one[1]["conformer.xscaling"] is use_bias


def test_the_trained_checkpoint_in_both_forms(micro_gguf: Callable[..., Path]) -> None:
    """Only the window differs: the folder does not hold it, and torch rounds its cosines otherwise."""
    one, other = (contents(micro_gguf("parakeet-micro-tdt", layout=layout)) for layout in ("nemo", "hf"))
    assert_same_tensors(one, other, but=("frontend.window",))
    assert np.abs(one[0]["frontend.window"] - other[0]["frontend.window"]).max() <= 6e-8
    assert differing_keys(one, other) <= PROVENANCE
    assert one[1]["tokenizer.piece_types"][:14] == [2, *[4] * 12, 1]
    weights = sum(data.size for name, data in one[0].items() if not name.startswith("frontend"))
    # The README's count, less the norms' weights and biases, plus the biases that folding them makes; the
    # LSTM's two biases are one here.
    assert weights == 4_936_582 - 4 * 256 - 2 * 512


def test_a_tokenizer_model_serves_where_tokenizer_json_is_missing(tmp_path: Path) -> None:
    made = make_parakeet("ctc")
    folder = write_parakeet_hf(tmp_path / "hf", made)
    reference = converted(folder, tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is missing .*--tokenizer"):
        convert(folder, tmp_path / "out.gguf")
    given = tmp_path / "given.model"
    given.write_bytes(sentencepiece_bytes())
    assert differing_keys(reference, converted(folder, tmp_path, tokenizer=given)) == set()
    given.rename(folder / "tokenizer.model")
    assert differing_keys(reference, converted(folder, tmp_path)) == set()


def test_the_processors_older_file_is_read(tmp_path: Path) -> None:
    folder = write_parakeet_hf(tmp_path / "hf", make_parakeet("ctc"))
    reference = converted(folder, tmp_path)
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(processor["feature_extractor"]))
    assert differing_keys(reference, converted(folder, tmp_path)) == set()


# --- contents ---


def test_metadata_follows_the_schema(tmp_path: Path) -> None:
    _, keys = gguf_of(make_parakeet(), tmp_path)
    expected = {
        "general.architecture": "parakeet", "general.name": "model.nemo", "general.license": "unknown",
        "frontend.sample_rate": 16000, "frontend.n_fft": 512, "frontend.hop_length": 160,
        "frontend.n_mels": 128, "frontend.center": True, "frontend.pad_mode": "zero",
        "frontend.drop_last_frame": True, "frontend.preemphasis": pytest.approx(0.97),
        "frontend.log": "ln", "frontend.floor": 2.0**-24, "frontend.floor_mode": "add",
        "frontend.normalize": "per_feature",
        "conformer.n_layer": LAYERS, "conformer.d_model": D, "conformer.n_head": HEADS,
        "conformer.d_ff": 2 * D, "conformer.conv_kernel": 9, "conformer.use_bias": False,
        "conformer.xscaling": False, "conformer.attention": "rel_pos", "conformer.conv_norm": "none",
        "conformer.subsampling": "dw_striding", "conformer.subsampling_factor": 8,
        "conformer.subsampling_kernel": 3, "conformer.subsampling_channels": CHANNELS,
        "head.type": "tdt", "head.n_vocab": len(PIECES), "head.blank_id": len(PIECES),
        "head.durations": [0, 1, 2, 3, 4], "head.max_symbols": 7, "head.pred_layers": 2,
        "head.pred_hidden": PRED, "head.joint_hidden": 48,
        "tokenizer.kind": "sentencepiece", "tokenizer.pieces": [text for text, _ in PIECES],
        "tokenizer.piece_types": [kind for _, kind in PIECES],
        "parakeet.languages": [], "parakeet.max_seconds": 0.0,
    }  # fmt: skip
    assert {key: keys[key] for key in expected} == expected
    assert "conformer.rope_base" not in keys


@pytest.mark.parametrize("head", ["rnnt", "ctc"])
def test_other_heads(tmp_path: Path, head: str) -> None:
    tensors, keys = gguf_of(make_parakeet(head), tmp_path)
    assert keys["head.type"] == head
    assert "head.durations" not in keys
    if head == "ctc":
        assert "head.max_symbols" not in keys
        assert tensors["head.weight"].shape == (len(PIECES) + 1, D)
    else:
        assert tensors["joint.out.weight"].shape == (len(PIECES) + 1, 48)


def test_keys_that_are_left_out_have_the_defaults_of_the_classes(tmp_path: Path) -> None:
    """NeMo's ConformerEncoder and RNNT decoding: biases and scaled inputs, ten symbols."""
    made = make_parakeet("rnnt", use_bias=True, xscaling=True)
    full = gguf_of(made.configured("decoding.greedy.max_symbols", 10), tmp_path)
    for path in ("encoder.use_bias", "encoder.xscaling", "encoder.untie_biases", "encoder.att_context_size",
                 "encoder.conv_norm_type", "decoding.greedy", "preprocessor.log"):  # fmt: skip
        made = made.configured(path, ...)
    assert differing_keys(full, gguf_of(made, tmp_path)) <= PROVENANCE


def test_layout(tmp_path: Path) -> None:
    made = make_parakeet()
    tensors, _ = gguf_of(made, tmp_path)
    source, pre = made.tensors, "encoder.pre_encode"
    for index in (0, 2, 5):
        kernel, stored = tensors[f"{pre}.conv.{index}.kernel"], source[f"{pre}.conv.{index}.weight"]
        assert kernel.shape == (3, 3, CHANNELS)
        for time in range(3):
            for mel in range(3):
                assert np.array_equal(kernel[time, mel], stored[:, 0, time, mel])
    assert np.array_equal(tensors[f"{pre}.conv.3.weight"], source[f"{pre}.conv.3.weight"][:, :, 0, 0])
    out, stored = tensors[f"{pre}.out.weight"], source[f"{pre}.out.weight"]
    for channel, bin_ in ((0, 0), (3, 7), (CHANNELS - 1, 15)):
        assert np.array_equal(out[:, bin_ * CHANNELS + channel], stored[:, channel * 16 + bin_])
    layer = "encoder.layers.1.self_attn"
    for index, part in enumerate("qkv"):
        rows = tensors[f"{layer}.qkv.weight"][index * D : (index + 1) * D]
        assert np.array_equal(rows, source[f"{layer}.linear_{part}.weight"])
    assert np.array_equal(tensors[f"{layer}.pos.weight"], source[f"{layer}.linear_pos.weight"])
    assert np.array_equal(tensors[f"{layer}.pos_bias_v"], source[f"{layer}.pos_bias_v"])
    for index in range(2):
        lstm = tensors[f"prediction.lstm.{index}.weight"]
        assert np.array_equal(lstm[:, :PRED], source[f"decoder.prediction.dec_rnn.lstm.weight_ih_l{index}"])
        assert np.array_equal(lstm[:, PRED:], source[f"decoder.prediction.dec_rnn.lstm.weight_hh_l{index}"])
    assert np.array_equal(tensors["joint.out.weight"], source["joint.joint_net.2.weight"])


def test_the_folded_norm_makes_the_bias_that_the_convolution_lacks(tmp_path: Path) -> None:
    made = make_parakeet()
    tensors, _ = gguf_of(made, tmp_path)
    prefix = "encoder.layers.0.conv"
    norm = {kind: made.tensors[f"{prefix}.batch_norm.{kind}"].astype("f8")
            for kind in ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
    kernel, bias = (tensors[f"{prefix}.depthwise_conv.{part}"] for part in ("kernel", "bias"))
    expected = made.tensors[f"{prefix}.depthwise_conv.weight"][:, 0] * scale[:, None]
    assert np.abs(kernel[:, 0].T - expected).max() < 1e-6
    assert np.abs(bias - (norm["bias"] - norm["running_mean"] * scale)).max() < 1e-6


def test_a_shorter_window_lies_in_the_middle(tmp_path: Path) -> None:
    made = make_parakeet()
    window = gguf_of(made, tmp_path)[0]["frontend.window"]
    assert window.shape == (512,)
    assert not window[:56].any() and not window[456:].any()
    assert np.array_equal(window[56:456], made.tensors["preprocessor.featurizer.window"])


@pytest.mark.parametrize(
    ("n_mels", "sums", "peak"),
    [
        (128, {0: 0.0283775, 64: 0.0306841, 127: 0.0319437}, 0.0423661),
        (80, {0: 0.0311723, 40: 0.0321163, 79: 0.0319305}, 0.0264066),
    ],
)
def test_computed_tables(n_mels: int, sums: dict[int, float], peak: float) -> None:
    """Values of librosa 0.11 and of torch.hann_window(400, periodic=False)."""
    filters, window = slaney_filterbank(n_mels, 512), symmetric_hann_window(400)
    assert filters.shape == (n_mels, 257)
    assert all(abs(float(filters[row].sum()) - value) < 1e-7 for row, value in sums.items())
    assert abs(float(filters.max()) - peak) < 1e-7
    assert window[0] == window[399] == 0
    assert np.abs(window - window[::-1]).max() < 3e-7
    assert abs(float(window[133]) - 0.75) < 1e-6  # a third of the way


def test_a_hybrids_second_head_is_left_out(tmp_path: Path) -> None:
    made = make_parakeet()
    reference = gguf_of(made, tmp_path)
    hybrid = made.changed(ctc_decoder__decoder_layers__0__weight=np.ones((13, D, 1), np.float32))
    assert_same_tensors(reference, gguf_of(hybrid, tmp_path))


@pytest.mark.parametrize("qtype", ["f32", "f16", "q8_0", "q4_0"])
def test_types_per_tensor(tmp_path: Path, qtype: str) -> None:
    source = write_nemo(tmp_path / "model.nemo", make_parakeet())
    types = tensor_types(convert(source, tmp_path / "out.gguf", qtype=qtype).output)
    for name in ("encoder.layers.0.self_attn.qkv", "encoder.layers.1.self_attn.pos", "encoder.pre_encode.out",
                 "joint.enc"):  # fmt: skip
        assert types[f"{name}.weight"] == qtype, name
    assert types["encoder.pre_encode.conv.3.weight"] == (
        "f16" if qtype.startswith("q") else qtype
    )  # rows of 16
    for name in ("prediction.embed", "prediction.lstm.1", "joint.pred", "joint.out"):
        assert types[f"{name}.weight"] == ("f32" if qtype == "f32" else "f16"), name
    for name in ("encoder.pre_encode.conv.2.kernel", "encoder.layers.0.self_attn.pos_bias_u", *TABLES):
        assert types[name] == "f32"


# --- names and refusals ---


@pytest.mark.parametrize(
    ("label", "parameters", "name"),
    [
        ("parakeet-tdt-0.6b-v3.nemo", 627_008_134, "parakeet-tdt-0.6b-v3"),
        ("nvidia/parakeet-ctc-1.1b", 1_062_370_000, "parakeet-ctc-1.1b"),
        ("parakeet-tdt-0.6b-v3.nemo", 4_936_582, None),
        ("parakeet-tdt-0.6b-v3-german.nemo", 627_008_134, None),
    ],
)
def test_a_release_is_known_by_its_name_and_size(
    tmp_path: Path, label: str, parameters: int, name: str | None
) -> None:
    from rustasr.convert import parakeet
    from rustasr.convert.sources import Detected, Source

    hub = tmp_path / f"models--{label.replace('/', '--')}" if "/" in label else tmp_path
    path = hub / (label if hub == tmp_path else "model.safetensors")
    source = Source(Detected("nemo" if hub == tmp_path else "safetensors", path, (path,)), "parakeet", "")
    assert parakeet._release(source, parameters) == name


def test_the_blanks_embedding_must_be_zero(tmp_path: Path) -> None:
    made = make_parakeet()
    made.tensors["decoder.prediction.embed.weight"][-1, 0] = -0.5
    with pytest.raises(UnsupportedModelError, match=r"decoder\.prediction\.embed\.weight.* row 12 .*0\.5"):
        gguf_of(made, tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("encoder._target_", "nemo.collections.asr.modules.SqueezeformerEncoder", "SqueezeformerEncoder"),
        ("encoder.subsampling", "striding", r"encoder\.subsampling.*'striding'.*'dw_striding'"),
        ("encoder.self_attention_model", "rel_pos_local_attn", "rel_pos_local_attn"),
        ("encoder.att_context_size", [128, 128], r"att_context_size"),
        ("encoder.causal_downsampling", True, "causal_downsampling"),
        ("encoder.untie_biases", False, "untie_biases"),
        ("encoder.reduction", "striding", "reduction"),
        ("preprocessor.normalize", "all_features", "normalize.*'all_features'.*'per_feature'"),
        ("preprocessor.window", "hamming", "window.*'hamming'"),
        ("preprocessor.log", False, "log"),
        ("preprocessor.highfreq", 4000, "highfreq"),
        ("preprocessor.log_zero_guard_value", 1e-5, "log_zero_guard_value"),
        ("decoder._target_", "nemo.collections.asr.modules.StatelessTransducerDecoder", "Stateless"),
        ("decoder.blank_as_pad", False, "blank_as_pad"),
        ("joint.jointnet.activation", "tanh", "activation.*'tanh'.*'relu'"),
        ("tokenizer.type", "wpe", "tokenizer.type.*'wpe'"),
    ],
)
def test_what_is_not_implemented_is_said(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        gguf_of(make_parakeet().configured(path, value), tmp_path)


def test_a_blank_that_is_not_last_is_refused(tmp_path: Path) -> None:
    folder = write_parakeet_hf(tmp_path / "hf", make_parakeet())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "blank_token_id": 0}))
    with pytest.raises(UnsupportedModelError, match="blank_token_id.*only the last id, 12"):
        convert(folder, tmp_path / "out.gguf")


def test_durations_must_be_as_many_as_the_outputs(tmp_path: Path) -> None:
    made = make_parakeet().configured("decoding.durations", [0, 1, 2])
    with pytest.raises(ModelFileError, match=r"durations' has 3 values, 'joint\.num_extra_outputs' is 5"):
        gguf_of(made, tmp_path)


def test_the_command_line_converts_an_archive(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from rustasr.cli import main

    source = write_nemo(tmp_path / "model.nemo", make_parakeet())
    result = CliRunner().invoke(
        main, ["convert", str(source), "-o", str(tmp_path / "out.gguf"), "--qtype", "q8_0"]
    )
    assert result.exit_code == 0, result.output
    assert "parakeet, from nemo" in result.output
    assert "kept wider" in result.output and "prediction.embed.weight: f16" in result.output
