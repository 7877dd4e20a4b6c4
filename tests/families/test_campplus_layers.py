"""CAM++ with random weights, from the checkpoint to the vectors, against NumPy; files that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_edit import edited
from tiny_campplus import DIMS, MELS, TinyCampplus

from rustasr import _core, load_speaker_encoder
from rustasr.convert import convert
from rustasr.errors import ModelError, ModelFileError, OptionError, UnsupportedModelError

Array = np.ndarray[Any, Any]


def made(folder: Path, model: TinyCampplus, qtype: str = "f32") -> Path:
    source = model.write(folder / "model.pt")
    return convert(source, folder / "model.gguf", qtype=qtype).output


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("campplus"), TinyCampplus())


@pytest.mark.parametrize("head", [16, 8])  # 8: no whole vectors, for which ggml's operations are used
@pytest.mark.parametrize("n_frames", [150, 423])
def test_every_stage_against_numpy(tmp_path: Path, head: int, n_frames: int) -> None:
    model = TinyCampplus(head)
    session = _core.Model(str(made(tmp_path, model)), "cpu", 2).session()
    batch = [np.random.default_rng(i).normal(size=(n_frames, MELS)).astype(np.float32) for i in range(3)]
    for features in batch:
        wanted = model.stages(features)
        taps = session.encode_taps([features], list(wanted))
        for stage, expected in wanted.items():
            found = taps[stage].T
            if stage == "head":  # mels of a channel are neighbours there, channels of a mel here
                found = found.reshape(-1, head, found.shape[1]).swapaxes(0, 1).reshape(found.shape)
            found = found[:, 0] if expected.ndim == 1 else found
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=2e-6 * scale, rtol=1e-4, err_msg=stage)
    together = session.encode_taps(batch, ["output"])["output"]
    apart = [session.encode_taps([features], ["output"])["output"][0] for features in batch]
    np.testing.assert_allclose(together, apart, atol=2e-5 * np.abs(together).max())


def test_vectors_have_length_one(gguf: Path) -> None:
    encoder = load_speaker_encoder(gguf)
    noise = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    vectors = encoder.embed([noise, noise[:700], noise[:24_000]])
    assert vectors.shape == (3, DIMS) and encoder.n_dims == DIMS
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    again = np.resize(noise[:700], 24_000)  # what repetition is
    np.testing.assert_allclose(encoder.embed([again])[0], vectors[1], atol=1e-6)


# --- checkpoints with something wrong


def _without(name: str) -> Callable[[TinyCampplus], Any]:
    return lambda model: model.tensors.pop(name)


def _shaped(name: str, *shape: int) -> Callable[[TinyCampplus], Any]:
    return lambda model: model.tensors.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("head.bn1.running_var"), "head.bn1.running_var"),
        (_without("xvector.block2.tdnnd2.linear1.weight"), "unexpected|missing"),
        (_without("xvector.dense.linear.weight"), "xvector.dense.linear.weight.* missing"),
        (_shaped("head.layer1.0.conv1.weight", 16, 16, 3, 5), r"shape \[16, 16, 3, 5\], expected"),
        (_shaped("xvector.tdnn.linear.weight", 48), r"shape \[48\], expected 2 extents"),
        (_shaped("xvector.tdnn.linear.weight", 48, 56, 5), "expected 16 channels of an eighth of the mels"),
        (_shaped("xvector.block4.tdnnd1.linear1.weight", 32, 60, 1), "expected 3 dense blocks, found more"),
        (_shaped("head.extra", 3), "1 unexpected tensor.*head.extra"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(
    tmp_path: Path, change: Callable[[TinyCampplus], Any], message: str
) -> None:
    model = TinyCampplus()
    change(model)
    with pytest.raises(ModelError, match=message):
        made(tmp_path, model)
    assert not list(tmp_path.glob("*.gguf"))


def test_values_that_no_training_gives_are_refused(tmp_path: Path) -> None:
    model = TinyCampplus()
    model.tensors["head.bn1.running_var"][3] = -1.0
    with pytest.raises(ModelFileError, match=r"head\.bn1\.running_var.*variance of -1"):
        made(tmp_path, model)
    model = TinyCampplus()
    model.tensors["xvector.dense.linear.weight"][0] = np.nan
    with pytest.raises(ModelFileError, match="NaN"):
        made(tmp_path, model)


def test_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = TinyCampplus().write(tmp_path / "model.pt")
    with pytest.raises(OptionError, match="a speaker encoder has none"):
        convert(source, tmp_path / "model.gguf", tokenizer=tmp_path / "tokenizer.json")


# --- files with something wrong


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("speaker.n_dims", 21, "dense"),
        ("speaker.n_dims", ..., "speaker.n_dims"),
        ("speaker.min_samples", 500, "expected samples for 3 frames, 720 or more"),
        ("speaker.min_samples", 100, "samples for 3 frames"),
        ("campplus.layers", [2, 3], "campplus.dilations"),
        ("campplus.layers", [2, 3, 2], "transit3"),
        ("campplus.layers", [2, 3, 0], "1 to 256 layers, found 0"),
        ("campplus.dilations", [1, 2, -2], "1 to 64 frames, found -2"),
        ("campplus.bottleneck", 1, "campplus.bottleneck"),
        ("campplus.segment_frames", 0, "campplus.segment_frames"),
        ("frontend.framing", "other", "signal, kaldi"),
        ("frontend.win_length", 513, "frontend.win_length"),
        ("frontend.n_mels", 23, "frontend"),
        ("frontend.normalize", "other", "mean"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(
    gguf: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    path = edited(gguf, tmp_path / "edited.gguf", fields={key: value})
    with pytest.raises(ModelError, match=message):
        _core.Model(str(path), "cpu", 1)


def test_a_missing_or_foreign_tensor_is_refused(gguf: Path, tmp_path: Path) -> None:
    path = edited(gguf, tmp_path / "edited.gguf", tensors={"block2.1.norm.scale": None})
    with pytest.raises(ModelFileError, match=r"block2\.1\.norm\.scale.*missing"):
        _core.Model(str(path), "cpu", 1)
    path = edited(gguf, tmp_path / "edited.gguf", rename={"dense.bias": "dense.other"})
    with pytest.raises(ModelFileError, match=r"dense\.bias"):
        _core.Model(str(path), "cpu", 1)


def test_the_encoder_wants_its_thresholds(gguf: Path, tmp_path: Path) -> None:
    path = edited(gguf, tmp_path / "edited.gguf", fields={"speaker.cut_distance": ...})
    with pytest.raises(ModelFileError, match=r"speaker\.cut_distance"):
        load_speaker_encoder(path)
    with pytest.raises(UnsupportedModelError, match="no encoder"):
        _core.Model(str(gguf), "cpu", 1).session().encode([np.zeros((150, MELS), np.float32)])
