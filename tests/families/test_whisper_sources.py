"""Real weights through the converters, held against a reader that shares no code with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import whisper_bin

pytestmark = pytest.mark.weights
Tensors = dict[str, np.ndarray]


def stored(path: Path) -> Tensors:
    """Every tensor of a GGUF of float32 weights, row-major."""
    return {
        t.name: np.array(t.data).reshape(tuple(reversed(t.shape.tolist())))
        for t in gguf.GGUFReader(path).tensors
    }


def expected(folder: Path) -> Tensors:
    """The same tensors, from the CTranslate2 file by the benchmarks' own reader."""
    plain = {
        k: v.astype(np.float32) for k, v in whisper_bin.tensors(whisper_bin.read_ct2(folder / "model.bin"))
    }
    out: Tensors = {}
    for name, value in plain.items():
        block, _, part = name.rpartition("attn.")
        if name.startswith("encoder.conv"):
            out[name] = (
                value.reshape(-1)
                if value.shape[-1] == 1
                else value.transpose(0, 2, 1).reshape(len(value), -1)  # [out, in, tap] to [out, tap, in]
            )
        elif part in ("query.weight", "query.bias") and not block.endswith("cross_"):
            kind = part.partition(".")[2]
            key = plain.get(name.replace("query", "key"), np.zeros_like(value))
            out[f"{block}attn.qkv.{kind}"] = np.concatenate(
                [value, key, plain[name.replace("query", "value")]]
            )
        elif part in ("value.weight", "value.bias") and block.endswith("cross_"):
            kind = part.partition(".")[2]
            key = plain.get(name.replace("value", "key"), np.zeros_like(value))
            out[f"{block}attn.kv.{kind}"] = np.concatenate([key, value])
        elif part.partition(".")[0] not in ("query", "key", "value") or name.endswith(
            ("cross_attn.query.weight", "cross_attn.query.bias")
        ):
            out[name] = value
    return out


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_converted_weights_are_those_of_the_source(
    name: str, gguf: Callable[[str, str], Path], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue({"tiny.en": "tiny_en_ct2", "base": "base_ct2"}[name])
    found, wanted = stored(gguf(name, "f32")), expected(folder)
    assert set(found) - set(wanted) == {"frontend.window", "frontend.mel_filters"}
    assert not set(wanted) - set(found)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    np.testing.assert_allclose(found["frontend.mel_filters"], whisper_bin.mel_filters(80), rtol=0, atol=1e-8)


def test_a_whisper_cpp_file_gives_the_same_model(tiny_en_ct2: Path, tmp_path: Path) -> None:
    from rustasr.convert import convert

    whisper_bin.write_bin(tiny_en_ct2, tmp_path / "ggml-tiny.en.bin")
    for source, out in ((tmp_path / "ggml-tiny.en.bin", "bin"), (tiny_en_ct2, "ct2")):
        convert(source, tmp_path / f"{out}.gguf", qtype="f32")
    first, second = stored(tmp_path / "bin.gguf"), stored(tmp_path / "ct2.gguf")
    assert set(first) == set(second)
    for key, value in second.items():
        np.testing.assert_array_equal(first[key], value, err_msg=key)
