"""Every source format gives the same GGUF; what the GGUF holds follows the schema."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from legacy_torch import write_legacy
from numpy.typing import NDArray

from gguf_contents import PROVENANCE, assert_same_tensors, converted, differing_keys
from rustasr.convert import convert, detect
from rustasr.convert.common import atomic_path
from rustasr.convert.mel import hann_window, slaney_filterbank
from rustasr.convert.sources import open_source
from rustasr.convert.whisper import alignment_heads
from rustasr.convert.whisper_sources import open_whisper, release_name
from rustasr.convert.whisper_tables import LANGUAGES, RELEASES
from rustasr.errors import ModelFileError, OptionError
from tiny_whisper import DIMS, Checkpoint, make_checkpoint, write_hugging_face
from whisper_writers import openai_root, write_ctranslate2, write_openai_pt, write_whispercpp

WRITERS: dict[str, Callable[[Path, Checkpoint], Path]] = {
    "hugging_face": write_hugging_face,
    "hugging_face_sharded": lambda path, made: write_hugging_face(path, made, shards=3),
    "ctranslate2": write_ctranslate2,
    "openai_pt": write_openai_pt,
    "openai_pt_legacy": lambda path, made: write_legacy(
        path, openai_root(made), {str(i): value for i, value in enumerate(made.tensors.values())}
    ),
    "whispercpp": write_whispercpp,
}


@pytest.mark.parametrize("multilingual", [True, False], ids=["multilingual", "english"])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_all_formats_give_identical_tensors(tmp_path: Path, multilingual: bool, dtype: str) -> None:
    made = make_checkpoint(multilingual=multilingual, dtype=dtype)
    tokenizer = write_hugging_face(tmp_path / "tokenizer", made)
    results = {
        name: converted(write(tmp_path / name, made), tmp_path, tokenizer=tokenizer)
        for name, write in WRITERS.items()
    }
    reference = results["hugging_face"]
    for result in results.values():
        assert_same_tensors(reference, result)
        assert differing_keys(reference, result) <= PROVENANCE


def test_real_tiny_en_through_all_formats(tiny_en_ct2: Path, tmp_path: Path) -> None:
    reference = converted(tiny_en_ct2, tmp_path)
    source = open_whisper(open_source(detect(tiny_en_ct2)))
    vocabulary = _vocabulary(tiny_en_ct2, source.dims.n_vocab)
    made = Checkpoint(source.dims, {name: t.read() for name, t in source.tensors.items()}, vocabulary)
    for name, write in WRITERS.items():
        result = converted(write(tmp_path / name, made), tmp_path, tokenizer=tiny_en_ct2)
        assert_same_tensors(reference, result)
    assert reference[1]["general.name"] == "whisper-tiny.en"
    assert reference[1]["general.license"] == "MIT"
    parameters = sum(data.size for name, data in reference[0].items() if not name.startswith("frontend"))
    assert parameters - 37_760_256 == 384 * (4 + 4 + 4)  # the zero biases of the keys


def _vocabulary(folder: Path, n_vocab: int) -> Any:
    from rustasr.convert.whisper_tokenizer import read_tokenizer

    return read_tokenizer(folder, n_vocab)


def test_layout_of_fused_and_convolution_weights(tmp_path: Path) -> None:
    made = make_checkpoint()
    tensors, _ = converted(write_hugging_face(tmp_path / "hf", made), tmp_path)
    d, source = DIMS.n_audio_state, made.tensors
    conv = tensors["encoder.conv1.weight"]
    assert conv.shape == (d, 3 * DIMS.n_mels)
    for tap in range(3):
        rows = conv[:, tap * DIMS.n_mels : (tap + 1) * DIMS.n_mels]
        assert np.array_equal(rows, source["encoder.conv1.weight"][:, :, tap])
    qkv = tensors["decoder.blocks.1.attn.qkv.weight"]
    for index, part in enumerate(("query", "key", "value")):
        assert np.array_equal(
            qkv[index * d : (index + 1) * d], source[f"decoder.blocks.1.attn.{part}.weight"]
        )
    bias = tensors["encoder.blocks.0.attn.qkv.bias"]
    assert np.array_equal(bias[:d], source["encoder.blocks.0.attn.query.bias"])
    assert not bias[d : 2 * d].any()
    assert np.array_equal(bias[2 * d :], source["encoder.blocks.0.attn.value.bias"])
    cross = tensors["decoder.blocks.0.cross_attn.kv.bias"]
    assert not cross[:d].any()
    assert np.array_equal(cross[d:], source["decoder.blocks.0.cross_attn.value.bias"])
    assert np.array_equal(
        tensors["decoder.blocks.0.cross_attn.kv.weight"][:d], source["decoder.blocks.0.cross_attn.key.weight"]
    )


def test_metadata_follows_the_schema(tmp_path: Path) -> None:
    _, keys = converted(write_hugging_face(tmp_path / "hf", make_checkpoint()), tmp_path)
    expected = {
        "general.architecture": "whisper", "rustasr.format_version": 1, "rustasr.qtype": "f32",
        "frontend.sample_rate": 16000, "frontend.n_fft": 400, "frontend.hop_length": 160,
        "frontend.n_mels": 80,
        "frontend.center": True, "frontend.pad_mode": "reflect", "frontend.preemphasis": 0.0,
        "frontend.log": "log10", "frontend.floor": pytest.approx(1e-10), "frontend.floor_mode": "clamp",
        "frontend.normalize": "whisper", "frontend.drop_last_frame": True,
        "whisper.n_audio_state": 128, "whisper.n_text_layer": 2, "whisper.multilingual": True,
        "whisper.languages": ["en", "zh", "de"], "whisper.alignment_heads": [1, 0, 1, 1],
        "whisper.token.endoftext": 317, "whisper.token.startoftranscript": 318,
        "whisper.token.translate": 322, "whisper.token.timestamp_begin": 328, "rustasr.fallbacks": [],
    }  # fmt: skip
    assert {key: keys[key] for key in expected} == expected
    assert keys["whisper.n_vocab"] == keys["whisper.token.timestamp_begin"] + 1501
    assert len(keys["rustasr.source_sha256"]) == 64


def test_english_only_file_has_no_languages(tmp_path: Path) -> None:
    made = make_checkpoint(multilingual=False)
    _, keys = converted(write_hugging_face(tmp_path / "hf", made), tmp_path)
    assert keys["whisper.languages"] == []
    assert keys["whisper.multilingual"] is False


@pytest.mark.parametrize(("quantization", "limit"), [("int8", 4e-3), ("int16", 5e-4)])
def test_quantised_ctranslate2_is_dequantised(tmp_path: Path, quantization: str, limit: float) -> None:
    made = make_checkpoint()
    exact = converted(write_hugging_face(tmp_path / "hf", made), tmp_path)
    rounded = converted(write_ctranslate2(tmp_path / "ct2", made, quantization=quantization), tmp_path)
    for name, data in exact[0].items():
        error = np.abs(rounded[0][name] - data).max()
        assert error <= limit * max(1.0, float(np.abs(data).max())), name
    assert any(not np.array_equal(rounded[0][name], data) for name, data in exact[0].items())


@pytest.mark.parametrize(("qtype", "limit"), [("q8_0", 0.01), ("q5_0", 0.08), ("q5_1", 0.05), ("q4_0", 0.15)])
def test_quantised_whispercpp_is_dequantised(tmp_path: Path, qtype: str, limit: float) -> None:
    made = make_checkpoint()
    exact = converted(write_hugging_face(tmp_path / "hf", made), tmp_path, tokenizer=tmp_path / "hf")
    rounded = converted(write_whispercpp(tmp_path / "ggml.bin", made, qtype), tmp_path)
    weight = "decoder.blocks.0.mlp.0.weight"
    assert 0 < np.abs(rounded[0][weight] - exact[0][weight]).max() < limit * np.abs(exact[0][weight]).max()
    assert np.array_equal(rounded[0]["encoder.conv2.weight"], exact[0]["encoder.conv2.weight"])


def test_bfloat16_and_float64_safetensors(tmp_path: Path) -> None:
    made = make_checkpoint()
    folder = write_hugging_face(tmp_path / "hf", made)
    exact = converted(folder, tmp_path)
    _rewrite_safetensors(folder, "F64", lambda data: data.astype("<f8"))
    assert_same_tensors(exact, converted(folder, tmp_path))
    _rewrite_safetensors(folder, "BF16", _upper_halves)
    halved = converted(folder, tmp_path)
    name = "decoder.token_embedding.weight"
    assert np.array_equal(halved[0][name], (exact[0][name].view("<u4") & 0xFFFF0000).view("<f4"))


def _upper_halves(data: NDArray[Any]) -> NDArray[Any]:
    return (data.astype("<f4").view("<u4") >> 16).astype("<u2")


def _rewrite_safetensors(folder: Path, dtype: str, encode: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    from rustasr.convert.safetensors_files import read_safetensors

    path = folder / "model.safetensors"
    tensors = {name: np.array(tensor.read()) for name, tensor in read_safetensors((path,)).items()}
    header, data = {}, b""
    for name, value in tensors.items():
        raw = encode(value).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": value.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


# --- front-end tables ---


@pytest.mark.parametrize(
    ("n_mels", "points", "total", "moment"),
    [
        (80, {(0, 1): 0.02486259490251541, (40, 43): 0.014735566452145576,
              (79, 199): 0.0004487590049393475},
         1.999024092387117, 119.87237175975315),
        (128, {(0, 1): 0.012373986653983593, (64, 43): 0.018091518431901932,
               (127, 199): 0.0011142801959067583},
         3.1909855409403463, 192.315318460076),
    ],
)  # fmt: skip
def test_filterbank_equals_the_published_table(
    n_mels: int, points: dict[tuple[int, int], float], total: float, moment: float
) -> None:
    """Values of whisper/assets/mel_filters.npz (openai-whisper 20250625)."""
    filters = slaney_filterbank(n_mels)
    assert filters.shape == (n_mels, 201)
    assert filters.dtype == np.float32
    for where, value in points.items():
        assert abs(float(filters[where]) - value) < 1e-7
    assert abs(filters.sum(dtype="f8") - total) < 1e-6
    assert abs((filters * np.arange(201)).sum(dtype="f8") - moment) < 1e-4


def test_window_is_the_periodic_hann() -> None:
    window = hann_window(400)
    assert window[0] == 0
    assert window[200] == 1
    assert np.allclose(window[1:], window[1:][::-1], atol=1e-7)
    assert abs(float(window[100]) - 0.5) < 1e-7


# --- memory, atomicity, values ---


def test_memory_stays_near_the_largest_tensor(tmp_path: Path) -> None:
    dims = dataclasses.replace(DIMS, n_audio_state=256, n_text_state=256, n_audio_head=4, n_text_head=4,
                               n_audio_layer=8, n_text_layer=8)  # fmt: skip
    made = make_checkpoint(dims=dims)
    folder = write_ctranslate2(tmp_path / "ct2", made)
    total = sum(data.nbytes for data in made.tensors.values())
    largest = max(data.nbytes for data in made.tensors.values())
    convert(folder, tmp_path / "warm.gguf")  # imports and caches
    tracemalloc.start()
    convert(folder, tmp_path / "model.gguf", qtype="q8_0")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 40e6
    assert peak < 3 * largest + 8e6 < total / 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_the_tensor(tmp_path: Path, bad: float) -> None:
    made = make_checkpoint()
    made.tensors["decoder.blocks.1.mlp.2.weight"][3, 4] = bad
    folder = write_hugging_face(tmp_path / "hf", made)
    target = tmp_path / "model.gguf"
    target.write_bytes(b"what was there before")
    with pytest.raises(ModelFileError, match=r"decoder\.blocks\.1\.mlp\.2\.weight"):
        convert(folder, target)
    assert target.read_bytes() == b"what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "model.gguf"]


def test_a_value_beyond_f16_asks_for_bf16(tmp_path: Path) -> None:
    made = make_checkpoint()
    made.tensors["encoder.blocks.0.mlp.0.weight"][0, 0] = 1e5
    folder = write_hugging_face(tmp_path / "hf", made)
    with pytest.raises(ModelFileError, match="use bf16"):
        convert(folder, tmp_path / "model.gguf", qtype="f16")
    convert(folder, tmp_path / "model.gguf", qtype="bf16")


def test_output_must_be_a_file_in_a_folder(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    for target in (tmp_path, tmp_path / "nowhere" / "model.gguf"):
        with pytest.raises(OptionError):
            convert(folder, target)
    (tmp_path / "there.gguf").touch()
    with pytest.raises(OptionError, match="exists"):
        convert(folder, tmp_path / "there.gguf", overwrite=False)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    calls: list[tuple[int, int, str]] = []
    report = convert(folder, tmp_path / "m.gguf", progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)
    assert calls[-1][0] == calls[-1][1] > 0
    assert len(calls) == len(report.tensors)


# --- identification ---


def test_alignment_heads_by_dimensions_and_name() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 100
    for row in RELEASES:
        dims = dataclasses.replace(
            DIMS, n_mels=row.n_mels, n_vocab=row.n_vocab, n_audio_state=row.n_audio_state,
            n_text_state=row.n_audio_state, n_audio_layer=row.n_audio_layer, n_text_layer=row.n_text_layer,
            n_audio_head=row.n_audio_state // 64, n_text_head=row.n_audio_state // 64,
        )  # fmt: skip
        source = _source(dims, f"ggml-{row.name.removeprefix('whisper-')}.bin")
        heads, warnings = alignment_heads(source)
        assert (heads, warnings) == (row.alignment_heads, []), row.name
        assert max(layer for layer, _ in heads) < row.n_text_layer


def test_ambiguous_or_unknown_model_uses_the_last_half() -> None:
    large = dataclasses.replace(
        DIMS, n_vocab=51865, n_audio_state=1280, n_text_state=1280, n_audio_layer=32, n_text_layer=32,
        n_text_head=20,
    )  # fmt: skip
    heads, warnings = alignment_heads(_source(large, "model.pt"))
    assert heads == tuple((layer, head) for layer in range(16, 32) for head in range(20))
    assert "alignment heads" in warnings[0]


def _source(dims: Any, label: str) -> Any:
    from rustasr.convert.whisper import WhisperSource

    return WhisperSource("somewhere", dims, {}, None, label)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("tiny.en.pt", "whisper-tiny.en"), ("ggml-base.bin", "whisper-base"),
        ("large-v2.pt", "whisper-large-v2"),
        ("ggml-large-v3-turbo-q8_0.bin", "whisper-large-v3-turbo"), ("openai/whisper-small", "whisper-small"),
        ("Systran/faster-whisper-medium.en", "whisper-medium.en"), ("turbo.pt", "whisper-large-v3-turbo"),
        ("base-ct2", "whisper-base"), ("whisper-small-hindi", None), ("distil-large-v3", None),
        ("model.pt", None),
    ],
)  # fmt: skip
def test_release_name_only_from_the_whole_name(label: str, name: str | None) -> None:
    assert release_name(label) == name


def test_a_fine_tune_keeps_its_own_name_and_no_licence_is_claimed(tmp_path: Path) -> None:
    _, keys = converted(write_hugging_face(tmp_path / "whisper-base-mine", make_checkpoint()), tmp_path)
    assert keys["general.name"] == "whisper-base-mine"
    assert keys["general.license"] == "unknown"
