"""Types that tensors get, what quantisation loses, and that a file is replaced only when it is whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from rustasr.convert import convert, encoding
from rustasr.errors import ModelError, ModelFileError, OptionError, UnsupportedModelError
from rustasr.quantize import quantize
from tiny_whisper import make_checkpoint, write_hugging_face
from whisper_writers import write_whispercpp

HAS_CORE = (
    importlib.util.find_spec("_core") is not None or importlib.util.find_spec("rustasr._core") is not None
)
needs_core = pytest.mark.skipif(not HAS_CORE, reason="the compiled core is not built")
QTYPES = ("f32", "bf16", "f16", "q8_0", "q4_0", pytest.param("q6_k", marks=needs_core))
# Largest error of a value, relative to the largest value of its row.
LIMITS = {"f32": 0.0, "bf16": 2**-8, "f16": 2**-10, "q8_0": 0.005, "q6_k": 0.04, "q4_0": 0.13}


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with F32 weights; rows of 128, 240, 384 and 512 values."""
    folder = tmp_path_factory.mktemp("quantize")
    write_hugging_face(folder / "hf", make_checkpoint())
    return convert(folder / "hf", folder / "f32.gguf", qtype="f32").output


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def types(path: Path) -> dict[str, str]:
    return {name: tensor.tensor_type.name.lower() for name, tensor in tensors(path).items()}


def metadata(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def expected_type(name: str, row: int, qtype: str) -> str:
    if not name.endswith(".weight") or "ln" in name.split(".")[-2]:
        return "f32"
    if qtype == "q4_0" and name.startswith("decoder."):
        qtype = "q6_k"
    if qtype == "q6_k" and row % 256:
        qtype = "q8_0"
    return "f16" if qtype in ("q8_0", "q4_0") and row % 32 else qtype


@pytest.mark.parametrize("qtype", QTYPES)
def test_types_sizes_and_errors(float_model: Path, tmp_path: Path, qtype: str) -> None:
    report = quantize(float_model, tmp_path / "out.gguf", qtype)
    before, after = tensors(float_model), tensors(report.output)
    assert list(before) == list(after) == [change.name for change in report.tensors]
    for change in report.tensors:
        source, result = before[change.name], after[change.name]
        row = change.shape[-1]
        assert change.old == "f32"
        assert change.new == result.tensor_type.name.lower() == expected_type(change.name, row, qtype), change
        assert change.bytes_after == result.n_bytes
        values = gguf.dequantize(result.data, result.tensor_type).reshape(change.shape)
        peak = np.abs(source.data).max(axis=-1, keepdims=True)
        assert (np.abs(values - source.data) <= LIMITS[change.new] * peak + 1e-12).all(), change
    assert report.bytes_before == float_model.stat().st_size
    assert report.bytes_after == report.output.stat().st_size


@pytest.mark.parametrize("qtype", QTYPES)
def test_metadata_stays_and_fallbacks_are_recorded(float_model: Path, tmp_path: Path, qtype: str) -> None:
    report = quantize(float_model, tmp_path / "out.gguf", qtype)
    before, after = metadata(float_model), metadata(report.output)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed <= {"rustasr.qtype", "rustasr.fallbacks"}
    assert after["rustasr.qtype"] == qtype
    fallen = [f"{c.name}: {c.new}" for c in report.tensors if c.new not in ("f32", qtype)]
    assert after["rustasr.fallbacks"] == list(report.fallbacks) == fallen
    if qtype == "q8_0":
        assert fallen == ["encoder.conv1.weight: f16"]


def test_metadata_types_survive(float_model: Path, tmp_path: Path) -> None:
    quantize(float_model, tmp_path / "out.gguf", "f16")
    before, after = (gguf.GGUFReader(path).fields for path in (float_model, tmp_path / "out.gguf"))
    assert {name: field.types for name, field in before.items()} == {
        name: field.types for name, field in after.items()
    }


@needs_core
@pytest.mark.parametrize("qtype", ["q8_0", "q4_0"])
def test_the_core_and_the_gguf_package_write_the_same_bytes(qtype: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((64, 384), dtype=np.float32) * rng.uniform(1e-4, 30, (64, 1)).astype("f4")
    rows[3] = 0
    rows[4, 5] = -1000
    packed = encoding.quantize_rows(rows, qtype)
    assert np.array_equal(packed, gguf.quantize(rows, gguf.GGMLQuantizationType[qtype.upper()]))
    back = encoding.dequantize_rows(packed, qtype, 384)
    assert np.array_equal(back, gguf.dequantize(packed, gguf.GGMLQuantizationType[qtype.upper()]))


@needs_core
def test_q6_k_reads_the_same_in_the_core_and_the_gguf_package() -> None:
    rows = np.random.default_rng(4).standard_normal((16, 512), dtype=np.float32)
    packed = encoding.quantize_rows(rows, "q6_k")
    assert packed.shape == (16, 2 * 210)
    back = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q6_K)
    assert np.array_equal(encoding.dequantize_rows(packed, "q6_k", 512), back)
    assert np.abs(back - rows).max() < 0.1


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -1.0039064, 3.3895314e38], np.float32)
    bits = encoding.bf16_bits(values)
    assert [hex(int(item)) for item in bits] == ["0x3f80", "0x3f80", "0x3f82", "0xbf81", "0x7f7f"]
    assert encoding.bf16_floats(bits)[2] == 1.015625


def test_an_unchanged_type_keeps_its_bytes(float_model: Path, tmp_path: Path) -> None:
    once = quantize(float_model, tmp_path / "once.gguf", "q4_0").output
    twice = quantize(once, tmp_path / "twice.gguf", "q4_0")
    assert twice.warnings == ()
    assert once.read_bytes() == twice.output.read_bytes()


def test_requantising_warns(float_model: Path, tmp_path: Path) -> None:
    small = quantize(float_model, tmp_path / "small.gguf", "q4_0").output
    report = quantize(small, tmp_path / "f16.gguf", "f16")
    assert len(report.warnings) == 1
    assert "q4_0" in report.warnings[0]


def test_overrides_by_name(float_model: Path, tmp_path: Path) -> None:
    overrides = [(r"decoder\.token_embedding", "f16"), (r"\.mlp\.", "bf16"), (r"mel_filters|bias", "q8_0")]
    report = quantize(float_model, tmp_path / "out.gguf", "q8_0", overrides=overrides)
    found = types(report.output)
    assert found["decoder.token_embedding.weight"] == "f16"
    assert found["encoder.blocks.1.mlp.2.weight"] == "bf16"
    assert found["encoder.blocks.1.attn.out.weight"] == "q8_0"
    assert found["frontend.mel_filters"] == found["decoder.ln.bias"] == "f32"
    assert not any("token_embedding" in item for item in report.fallbacks)


def test_a_small_decoder_stays_wider_in_a_q4_0_file_unless_told_otherwise() -> None:
    name, patterns = "decoder.blocks.0.mlp.0.weight", encoding.parse_overrides([("mlp", "q4_0")])
    assert encoding.choose_type(name, (2048, 512), "q4_0") == ("q4_0", "q6_k")
    assert encoding.choose_type(name, (1536, 384), "q4_0") == ("q4_0", "q8_0")
    assert encoding.choose_type("decoder.token_embedding.weight", (51865, 512), "q4_0")[1] == "q6_k"
    assert encoding.choose_type(name, (2048, 512), "q4_0", patterns) == ("q4_0", "q4_0")
    assert encoding.choose_type(name, (4096, 1024), "q4_0") == ("q4_0", "q4_0")
    assert encoding.choose_type("encoder.blocks.0.mlp.0.weight", (2048, 512), "q4_0")[1] == "q4_0"


@pytest.mark.parametrize("overrides", [[("(", "f16")], [("mlp", "q3_x")]])
def test_bad_overrides(float_model: Path, tmp_path: Path, overrides: list[tuple[str, str]]) -> None:
    with pytest.raises(OptionError):
        quantize(float_model, tmp_path / "out.gguf", "q8_0", overrides=overrides)
    assert not list(tmp_path.iterdir())


def test_type_names(float_model: Path, tmp_path: Path) -> None:
    assert [encoding.parse_qtype(name) for name in ("Q6K", "q6_k", "Q8-0", "FP16", "bf16")] == [
        "q6_k", "q6_k", "q8_0", "f16", "bf16",
    ]  # fmt: skip
    with pytest.raises(OptionError, match=r"q9_1.*expected one of f32"):
        quantize(float_model, tmp_path / "out.gguf", "q9_1")


def test_overwriting_needs_force(float_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    target.write_bytes(b"precious")
    with pytest.raises(OptionError, match="--force"):
        quantize(float_model, target, "q8_0")
    assert target.read_bytes() == b"precious"
    quantize(float_model, target, "q8_0", force=True)
    assert target.read_bytes()[:4] == b"GGUF"
    with pytest.raises(OptionError, match="input itself"):
        quantize(target, target, "q4_0", force=True)


def test_folders_and_other_sources_are_converted(float_model: Path, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint(dtype="f2"))
    report = quantize(folder, tmp_path / "hf.gguf", "q8_0")
    assert {change.old for change in report.tensors} == {"f16", "f32"}
    ggml = write_whispercpp(tmp_path / "ggml.bin", make_checkpoint(dtype="f2"), "q5_0")
    assert "q5_0" in {change.old for change in quantize(ggml, tmp_path / "ggml.gguf", "q8_0").tensors}
    same = quantize(float_model, tmp_path / "same.gguf", "q8_0")
    # The F16 source and the F32 one differ by F16's rounding only.
    left, right = tensors(tmp_path / "hf.gguf"), tensors(same.output)
    name = "encoder.blocks.0.mlp.0.weight"
    kind = gguf.GGMLQuantizationType.Q8_0
    difference = gguf.dequantize(left[name].data, kind) - gguf.dequantize(right[name].data, kind)
    assert np.abs(difference).max() < 0.01


def test_damaged_and_foreign_gguf(float_model: Path, tmp_path: Path) -> None:
    good = float_model.read_bytes()
    source = tmp_path / "bad.gguf"
    for content in (
        good[:4],
        good[:20],
        good[:3000],
        good[: len(good) // 2],
        good[:-40000],
        b"GGUF" + b"\xff" * 60,
    ):
        source.write_bytes(content)
        with pytest.raises(ModelError):
            quantize(source, tmp_path / "out.gguf", "q8_0")
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises((UnsupportedModelError, ModelFileError)):
        quantize(source, tmp_path / "out.gguf", "q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_progress_counts_bytes(float_model: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    report = quantize(float_model, tmp_path / "out.gguf", "q8_0", progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] == sum(change.bytes_after for change in report.tensors)
    assert [call[2] for call in calls] == [change.name for change in report.tensors]


def test_real_base_in_every_type(base_ct2: Path, tmp_path: Path) -> None:
    source = convert(base_ct2, tmp_path / "f16.gguf").output
    sizes = [quantize(source, tmp_path / f"{qtype}.gguf", qtype).bytes_after for qtype in ("q8_0", "q4_0")]
    assert source.stat().st_size > 1.8 * sizes[0] > 1.8 * 1.1 * sizes[1]
