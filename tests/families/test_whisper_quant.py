"""Every weight type transcribes, near the text of the released F16 weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wer
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
Asr = Callable[[str, str], Any]
SENTENCE = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)
# Allowed rise of the error rate over the F16 file, absolute (the whole table: benchmarks/wer_table.py).
ALLOWED = {"bf16": 0.005, "q8_0": 0.003, "q6_k": 0.005, "q4_0": 0.02}


@pytest.mark.parametrize("name", goldens.MODELS)
@pytest.mark.parametrize("qtype", ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_0"])
def test_every_type_hears_the_sentence(name: str, qtype: str, asr: Asr, jfk_path: Path) -> None:
    result = asr(name, qtype).transcribe(jfk_path, language="en")
    assert wer.normalize(result.text) == SENTENCE.split()


@pytest.mark.parametrize("qtype", ["q8_0", "q6_k", "q4_0"])
def test_files_shrink_and_name_their_fallbacks(
    qtype: str, tiny_en_gguf: Callable[[str], Path], core_model: Asr
) -> None:
    half, small = tiny_en_gguf("f16").stat().st_size, tiny_en_gguf(qtype).stat().st_size
    assert small < {"q8_0": 0.62, "q6_k": 0.62, "q4_0": 0.55}[qtype] * half
    metadata = core_model("tiny.en", qtype).metadata
    assert metadata["rustasr.qtype"] == qtype
    fallbacks = metadata.get("rustasr.fallbacks", [])
    if qtype == "q4_0":  # the decoder of a small model
        assert all(line.startswith(("decoder.", "encoder.conv1")) for line in fallbacks)
        assert any("token_embedding" in line for line in fallbacks)
    elif qtype == "q6_k":  # rows of 384 are no multiple of 256
        assert any("q8_0" in line for line in fallbacks)
    else:
        assert not [line for line in fallbacks if "conv1" not in line]


@pytest.mark.parametrize(("qtype", "distance"), [("q8_0", 0.04), ("q6_k", 0.09), ("q4_0", 0.25)])
def test_encoder_of_quantised_weights_stays_close(
    qtype: str, distance: float, core_model: Asr, jfk_path: Path
) -> None:
    """Relative distance of base's encoder output to that of F32 weights: 0.031, 0.074, 0.202 measured."""
    import rustasr

    pcm = np.concatenate([goldens.samples(jfk_path), np.zeros(480000, np.float32)])
    raw = core_model("base", "f32").session().features(pcm)
    window = np.ascontiguousarray(rustasr._core.normalize_log_mel(raw, float(raw.max()))[:3000])
    full, small = (
        np.asarray(core_model("base", t).session().encode_taps([window], ["output"])["output"])
        for t in ("f32", qtype)
    )
    assert np.linalg.norm(full - small) / np.linalg.norm(full) < distance


@pytest.mark.parametrize("qtype", ["q8_0", "q6_k", "q4_0"])
def test_the_conv_stem_reads_every_frame(qtype: str, core_model: Asr, jfk_path: Path) -> None:
    """Its rows overlap in memory, four to a tile: each of the four must be as near to F16 as the others."""
    import rustasr

    session = core_model("base", "f16").session()
    raw = session.features(goldens.samples(jfk_path))
    window = np.ascontiguousarray(rustasr._core.normalize_log_mel(raw, float(raw.max()))[:3000])
    full, small = (
        np.asarray(core_model("base", t).session().encode_taps([window], ["conv"])["conv"]).reshape(1500, -1)
        for t in ("f16", qtype)
    )
    for i in range(4):
        assert np.linalg.norm(full[i::4] - small[i::4]) < 0.03 * np.linalg.norm(full[i::4]), i


@pytest.fixture(scope="module")
def base_errors(asr: Asr, shared_audio: Path) -> Callable[[str], wer.Errors]:
    """Errors of base in a weight type over the English and Russian goldens, counted once."""
    table = goldens.manifest(shared_audio)
    clips = [
        clip
        for clip in goldens.rows("base-greedy")
        if clip in table and table[clip]["reference"] and clip.split("/")[0] in ("en", "ru_nsh")
    ]

    @functools.cache
    def errors(qtype: str) -> wer.Errors:
        total = wer.Errors()
        for clip in clips:
            text = asr("base", qtype).transcribe(shared_audio / clip, language=table[clip]["language"]).text
            total = total + wer.word_errors(table[clip]["reference"], text)
        return total

    return errors


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("qtype", list(ALLOWED))
def test_error_rate_stays_near_f16(qtype: str, base_errors: Callable[[str], wer.Errors]) -> None:
    """The words are few, so this is a coarse net."""
    found, half = base_errors(qtype), base_errors("f16")
    assert found.words > 500
    assert found.rate <= half.rate + ALLOWED[qtype]
