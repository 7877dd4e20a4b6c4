"""Qwen3-ASR and its aligner: both layouts give the same GGUF, laid out as the network reads it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_qwen3 as tiny
from rustasr.convert import convert
from rustasr.convert.encoding import bf16_floats
from rustasr.convert.qwen3_asr import expected_tensors, read_source
from rustasr.convert.qwen3_tokenizer import RELEASED_ADDED, read_tokenizer, tokenizers_json
from rustasr.convert.sources import detect, open_source
from rustasr.tokenizer import ByteLevelBpe

Contents = tuple[dict[str, NDArray[Any]], dict[str, Any]]
Write = Callable[..., Path]
WRITERS: dict[str, Write] = {"original": tiny.write_original, "hf": tiny.write_hf}
OF_THE_SOURCE = {"general.name", "general.source", "rustasr.source_sha256"}


def contents(path: Path) -> Contents:
    """(tensors as row-major arrays, metadata), by the gguf package's own reader."""
    reader = gguf.GGUFReader(path)
    return (
        {tensor.name: np.array(tensor.data) for tensor in reader.tensors},
        {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")},
    )


def converted(source: Path, folder: Path, **options: Any) -> Contents:
    options.setdefault("qtype", "f32")
    return contents(convert(source, folder / "converted.gguf", **options).output)


@pytest.mark.parametrize("aligner", [False, True], ids=["asr", "aligner"])
def test_both_layouts_and_any_shards_give_the_same_file(tmp_path: Path, aligner: bool) -> None:
    made = tiny.make(aligner=aligner)
    reference = converted(tiny.write_original(tmp_path / "reference", made), tmp_path)
    for name, write in WRITERS.items():
        for shards in (1, 3):
            tensors, metadata = converted(write(tmp_path / f"{name}{shards}", made, shards), tmp_path)
            assert list(tensors) == list(reference[0])
            for key, data in tensors.items():
                assert np.array_equal(data, reference[0][key]), key
            differing = {key for key in metadata if metadata[key] != reference[1].get(key)}
            assert differing <= OF_THE_SOURCE
            assert metadata.keys() == reference[1].keys()


def test_layout_of_convolutions_and_fused_matrices(tmp_path: Path) -> None:
    made = tiny.make()
    tensors, _ = converted(tiny.write_original(tmp_path / "source", made), tmp_path)
    source = {name.removeprefix("thinker."): bf16_floats(bits) for name, bits in made.tensors.items()}
    kernel = tensors["audio_tower.conv1.kernel"]  # [time tap, mel tap, channel]
    assert np.array_equal(kernel[2, 0], source["audio_tower.conv2d1.weight"][:, 0, 0, 2])
    rows = tensors["audio_tower.conv2.weight"].reshape(32, 3, 3, 32)  # [out, time tap, mel tap, in]
    assert np.array_equal(rows[:, 2, 0], source["audio_tower.conv2d2.weight"][:, :, 0, 2])
    columns = tensors["audio_tower.conv_out.weight"].reshape(32, 2, 32)  # [out, mel, channel]
    assert np.array_equal(columns[:, 1], source["audio_tower.conv_out.weight"].reshape(32, 32, 2)[:, :, 1])
    for side, block, parts, fused in (
        ("audio_tower", "self_attn", ("q_proj", "k_proj", "v_proj"), "attn.qkv"),
        ("model", "self_attn", ("q_proj", "k_proj", "v_proj"), "attn.qkv"),
        ("model", "mlp", ("gate_proj", "up_proj"), "mlp.gate_up"),
    ):
        ours = {"model": "language_model"}.get(side, side)
        wanted = [source[f"{side}.layers.1.{block}.{part}.weight"] for part in parts]
        assert np.array_equal(tensors[f"{ours}.blocks.1.{fused}.weight"], np.concatenate(wanted))
    assert "head.weight" not in tensors
    assert np.array_equal(
        tensors["language_model.token_embedding.weight"], source["model.embed_tokens.weight"]
    )


def test_positions_are_sines_then_cosines(tmp_path: Path) -> None:
    tensors, _ = converted(tiny.write_hf(tmp_path / "source", tiny.make()), tmp_path)
    found = tensors["audio_tower.positional_embedding"]
    assert found.shape == (2, 32)  # a chunk of 16 frames, halved three times
    rates = [math.exp(-k * math.log(10000) / 15) for k in range(16)]
    wanted = [[math.sin(i * rate) for rate in rates] + [math.cos(i * rate) for rate in rates] for i in (0, 1)]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_metadata_of_recogniser_and_aligner(tmp_path: Path) -> None:
    _, asr = converted(tiny.write_hf(tmp_path / "asr", tiny.make()), tmp_path)
    _, aligner = converted(tiny.write_hf(tmp_path / "aligner", tiny.make(aligner=True)), tmp_path)
    assert asr["general.architecture"] == aligner["general.architecture"] == "qwen3_asr"
    assert (asr["qwen3_asr.task"], aligner["qwen3_asr.task"]) == ("transcribe", "align")
    assert "qwen3_asr.n_classes" not in asr
    assert (aligner["qwen3_asr.n_classes"], aligner["qwen3_asr.segment_ms"]) == (tiny.N_CLASSES, 80)
    assert asr["qwen3_asr.audio.chunk_frames"] == 16
    assert asr["qwen3_asr.audio.window_frames"] == 32
    assert asr["qwen3_asr.text.rope_base"] == 1e6
    assert asr["qwen3_asr.text.n_kv_head"] == 2
    assert asr["qwen3_asr.min_samples"] == 8000
    ids = {text: tiny.N_BASE + i for i, text in enumerate(tiny.ADDED)}
    assert asr["qwen3_asr.stop_tokens"] == [ids["<|im_end|>"], ids["<|endoftext|>"]]
    assert asr["qwen3_asr.token.audio_pad"] == ids["<|audio_pad|>"]
    assert len(asr["qwen3_asr.languages"]) == 30
    assert len(aligner["qwen3_asr.languages"]) == 11
    assert asr["frontend.normalize"] == "whisper"


def test_the_audio_encoder_keeps_eight_bits(tmp_path: Path) -> None:
    source = tiny.write_original(tmp_path / "source", tiny.make())
    report = convert(source, tmp_path / "q4.gguf", qtype="q4_0")
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(report.output).tensors}
    for name in ("audio_tower.blocks.0.attn.qkv", "audio_tower.conv2", "audio_tower.conv_out", "projector.0"):
        assert types[f"{name}.weight"] == "Q8_0", name
    assert types["language_model.blocks.0.mlp.gate_up.weight"] == "Q4_0"
    # 64 values fill no block of Q6_K: the embedding steps down to the next type that fits.
    assert types["language_model.token_embedding.weight"] == "Q8_0"
    assert "audio_tower.conv2.weight: q8_0" in report.fallbacks
    chosen = convert(source, tmp_path / "o.gguf", qtype="q4_0", overrides=[(r"^audio_tower\.", "q4_0")])
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(chosen.output).tensors}
    assert types["audio_tower.conv2.weight"] == "Q4_0"


def test_another_split_pattern_is_replaced_with_a_warning(tmp_path: Path) -> None:
    made = tiny.make()
    folder = tiny.write_hf(tmp_path / "source", made)
    reference = read_tokenizer(folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+"
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    report = convert(folder, tmp_path / "out.gguf", qtype="f32")
    assert any("Qwen2" in warning for warning in report.warnings)
    assert contents(report.output)[1]["tokenizer.huggingface.json"] == tokenizers_json(reference)


def test_tokenizer_may_be_given(tmp_path: Path) -> None:
    made = tiny.make()
    folder = tiny.write_hf(tmp_path / "source", made)
    reference = converted(folder, tmp_path)
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    found = converted(folder, tmp_path, tokenizer=tmp_path / "elsewhere.json")
    assert found[1]["tokenizer.huggingface.json"] == reference[1]["tokenizer.huggingface.json"]


# --- small trained checkpoints ---


@pytest.mark.parametrize("name", ["qwen3-asr-micro", "forced-aligner-micro"])
def test_micro_checkpoints_are_the_same_in_both_layouts(name: str, micro_gguf: Callable[..., Path]) -> None:
    left, right = (contents(micro_gguf(name, "f32", layout)) for layout in ("original", "hf"))
    assert {key for key in left[1] if left[1][key] != right[1].get(key)} <= OF_THE_SOURCE
    assert list(left[0]) == list(right[0])
    assert all(np.array_equal(data, right[0][key]) for key, data in left[0].items())


def test_micro_sizes_are_the_documented_ones(shared_micro: Path) -> None:
    for name, wanted in (("qwen3-asr-micro", 6_913_920), ("forced-aligner-micro", 1_004_544)):
        source = read_source(open_source(detect(shared_micro / name / "original")))
        assert sum(math.prod(shape) for shape in expected_tensors(source).values()) == wanted


def test_micro_tokenizer_encodes_as_the_original_does(shared_micro: Path) -> None:
    """Contexts and texts of the goldens, taken apart at the added tokens."""
    folder = shared_micro / "qwen3-asr-micro"
    goldens = json.loads((folder / "goldens.json").read_text(encoding="utf-8"))
    vocabulary = read_tokenizer(folder / "original")
    assert {token.content: token.id for token in vocabulary.added} == goldens["special"]
    assert [t.content for t in vocabulary.added if not t.special] == ["<asr_text>", "<timestamp>"]
    bpe = ByteLevelBpe(tokenizers_json(vocabulary))
    tag, end = vocabulary.need("<asr_text>"), vocabulary.need("<|im_end|>")
    for item in goldens["items"]:
        if item["context"]:
            ids = [vocabulary.need("<|im_start|>"), *bpe.encode("system\n" + item["context"])]
            assert item["prompt_ids"][: len(ids)] == ids
        if item["variant"] == "plain":
            before, _, text = item["raw"].partition("<asr_text>")
            assert item["generated_ids"] == [*bpe.encode(before), tag, *bpe.encode(text), end]


# --- the released vocabulary ---

# Read off the official tokenizer.
CHECKS = {
    "hello world": [14990, 1879],
    "it's a test, isn't it?": [275, 594, 264, 1273, 11, 4436, 944, 432, 30],
    "   trailing   spaces": [256, 27748, 256, 12621],
    "digits: 12345 and 678": [60770, 25, 220, 16, 17, 18, 19, 20, 323, 220, 21, 22, 23],
    "emoji: 😀 🎉": [37523, 25, 90316, 11162, 236, 231],
    "mixed АБВ and 日本語": [56685, 56755, 60332, 16206, 323, 75402, 21894, 102819],
    "language": [11528],
    "language English": [11528, 6364],
    "language Macedonian": [11528, 56452, 75491],
    "language Cantonese": [11528, 72366, 2367],
    "system": [8948],
    "\n": [198],
}


def test_the_released_vocabulary_from_its_ranks() -> None:
    """`resources/qwen.tiktoken` of the package dashscope has the ranks; RUSTASR_TEST_QWEN_RANKS names it."""
    path = os.environ.get("RUSTASR_TEST_QWEN_RANKS")
    if not path:
        pytest.skip("RUSTASR_TEST_QWEN_RANKS names no qwen.tiktoken")
    vocabulary = read_tokenizer(Path(path))
    assert len(vocabulary.tokens) == 151_643
    assert vocabulary.need("<|audio_pad|>") == RELEASED_ADDED["<|audio_pad|>"] == 151_676
    bpe = ByteLevelBpe(tokenizers_json(vocabulary))
    for text, ids in CHECKS.items():
        assert bpe.encode(text) == ids, text
        assert bpe.decode(ids) == text
