"""Log-mel features of GigaAM and Parakeet: against NumPy in double precision, anchors and the goldens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro_goldens as goldens
import numpy as np
import pytest
import tiny_conformer as tiny
from numpy.typing import NDArray

from rustasr import _core
from rustasr.convert.conformer import Frontend
from rustasr.convert.mel import hann_window, slaney_filterbank, symmetric_hann_window
from rustasr.errors import ModelFileError, OptionError, UnsupportedModelError

Array = NDArray[Any]
TOLERANCE = 1e-4
GIGAAM_V3 = Frontend(
    sample_rate=16000, n_fft=320, win_length=320, hop_length=160, n_mels=64, center=False, pad_mode="none",
    drop_last_frame=False, preemphasis=0.0, floor=1e-9, floor_mode="clamp", normalize="none",
)  # fmt: skip
GIGAAM_V2 = replace(GIGAAM_V3, n_fft=400, win_length=400, center=True, pad_mode="reflect")
PARAKEET = Frontend(
    sample_rate=16000, n_fft=512, win_length=400, hop_length=160, n_mels=128, center=True, pad_mode="zero",
    drop_last_frame=True, preemphasis=0.97, floor=2.0**-24, floor_mode="add", normalize="per_feature",
)  # fmt: skip
# What nobody released, so that each key is seen to do its part by itself.
MIXED = replace(PARAKEET, pad_mode="reflect", floor_mode="clamp", drop_last_frame=False)
FRONTENDS = {"gigaam-v3": GIGAAM_V3, "gigaam-v2": GIGAAM_V2, "parakeet": PARAKEET, "mixed": MIXED}


def htk_filterbank(n_mels: int, n_fft: int) -> Array:
    """Triangles of height one on the HTK scale up to 8 kHz: torchaudio's MelScale, [n_mels, n_fft/2 + 1]."""
    top = 2595 * np.log10(1 + 8000 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)
    bins = np.linspace(0, 8000, n_fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters: Array = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return filters


def model_with(frontend: Frontend) -> tiny.TinyConformer:
    if frontend.win_length == frontend.n_fft:
        filters = htk_filterbank(frontend.n_mels, frontend.n_fft)
        return tiny.with_frontend("gigaam-v3", frontend, hann_window(frontend.n_fft), filters)
    filters = slaney_filterbank(frontend.n_mels, frontend.n_fft)
    return tiny.with_frontend("parakeet", frontend, symmetric_hann_window(frontend.win_length), filters)


def log_mel(model: tiny.TinyConformer, pcm: Array) -> Array:
    """[T, n_mels] by the definition, in double precision."""
    f = model.frontend
    x = pcm.astype(np.float64)
    x = np.concatenate([x[:1], x[1:] - np.float32(f.preemphasis) * x[:-1]])
    if f.center:
        x = np.pad(x, f.n_fft // 2, mode="reflect" if f.pad_mode == "reflect" else "constant")
    left = (f.n_fft - f.win_length) // 2
    window = np.pad(model.window, (left, f.n_fft - f.win_length - left))
    n_frames = (len(x) - f.n_fft) // f.hop_length + 1 - f.drop_last_frame
    frames = np.stack([x[t * f.hop_length :][: f.n_fft] * window for t in range(n_frames)])
    power = np.abs(np.fft.rfft(frames)) ** 2 @ model.filters.astype(np.float64).T
    floor = np.float32(f.floor)
    return np.log(np.maximum(power, floor) if f.floor_mode == "clamp" else power + floor)


def noise(n_samples: int) -> Array:
    """Louder and softer by turns, as speech is."""
    rng = np.random.default_rng(n_samples)
    return (rng.normal(size=n_samples) * 0.1 * np.sin(np.arange(n_samples) / 3000) ** 2).astype(np.float32)


@pytest.mark.parametrize("name", FRONTENDS)
@pytest.mark.parametrize("n_samples", [512, 1600, 16000, 33333])
def test_features_equal_numpy(name: str, n_samples: int, tmp_path: Path) -> None:
    model, pcm = model_with(FRONTENDS[name]), noise(n_samples)
    found = model.session(tmp_path).features(pcm)
    np.testing.assert_allclose(found, log_mel(model, pcm), rtol=0, atol=TOLERANCE / 10)


@pytest.mark.parametrize("name", ["gigaam-v3", "gigaam-v2", "parakeet"])
def test_blocks_give_the_frames_of_the_whole(name: str, tmp_path: Path) -> None:
    session, pcm = model_with(FRONTENDS[name]).session(tmp_path), noise(33333)
    f = FRONTENDS[name]
    whole = session.features(pcm)
    start = 40 * f.hop_length  # where the first frame of the second block starts
    shift = f.n_fft // 2 if f.center else 0
    block = session.features(np.ascontiguousarray(pcm[start - shift :]), pad_left=False)
    np.testing.assert_array_equal(block, whole[40:])


def test_too_few_samples_name_what_is_needed(tmp_path: Path) -> None:
    session = model_with(GIGAAM_V3).session(tmp_path)
    assert session.features(noise(320)).shape == (1, 64)
    with pytest.raises(OptionError, match="features of 319 samples: expected at least 320"):
        session.features(noise(319))


# --- anchors: computed once with the publishers' code (see the specifications), for two sines ---


def sines() -> Array:
    t = np.arange(16000)
    both = 0.3 * np.sin(2 * np.pi * 440 * t / 16000) + 0.1 * np.sin(2 * np.pi * 1330 * t / 16000)
    return both.astype(np.float32)


def test_gigaam_features_of_two_sines(tmp_path: Path) -> None:
    features = model_with(GIGAAM_V3).session(tmp_path).features(sines())
    assert features.shape == (99, 64)
    assert features[0, 10] == pytest.approx(4.43883, abs=TOLERANCE)
    assert features[50, 10] == pytest.approx(4.43883, abs=TOLERANCE)
    assert features[98, 63] == pytest.approx(-20.72327, abs=TOLERANCE)  # ln 1e-9, the floor


def test_parakeet_features_of_two_sines(tmp_path: Path) -> None:
    raw = model_with(PARAKEET).session(tmp_path).features(sines())
    assert raw.shape == (100, 128)
    assert raw[50, 14] == pytest.approx(-7.48596, abs=TOLERANCE)
    assert raw[50, 127] == pytest.approx(-16.63553, abs=TOLERANCE)  # ln 2^-24
    assert raw[0, 0] == pytest.approx(-9.08066, abs=TOLERANCE)
    normal = _core.normalize_per_feature(raw)
    anchors = {(0, 0): 7.44259, (0, 10): 8.61643, (50, 14): -0.12911, (50, 40): -0.27128, (99, 127): 2.84044}
    for (frame, mel), value in anchors.items():
        assert normal[frame, mel] == pytest.approx(value, abs=2e-3), (frame, mel)


def test_parakeet_with_80_mels(tmp_path: Path) -> None:
    raw = model_with(replace(PARAKEET, n_mels=80)).session(tmp_path).features(sines())
    assert raw[50, 14] == pytest.approx(-8.96939, abs=TOLERANCE)
    assert raw[0, 0] == pytest.approx(-8.87189, abs=TOLERANCE)


def test_each_mel_is_normalised_over_the_window() -> None:
    raw = (np.random.default_rng(0).normal(size=(50, 4)) * [1, 10, 0, 1e-6] - 12).astype(np.float32)
    x = raw.astype(np.float64)
    wanted = (x - x.mean(axis=0)) / (x.std(axis=0, ddof=1) + 1e-5)
    np.testing.assert_allclose(_core.normalize_per_feature(raw), wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(_core.normalize_per_feature(raw[:1]), np.zeros((1, 4)))


# --- the goldens of the trained checkpoints ---


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt"])
def test_features_equal_the_goldens(name: str, micro: Callable[..., goldens.Checkpoint]) -> None:
    checkpoint = micro(name)
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.features(clip)
        assert found.shape == golden["features"].T.shape
        difference = np.abs(found - golden["features"].T)
        # The goldens' float32 transform is off by up to 5e-4 itself in the quietest band (0.1 % of values);
        # test_features_equal_numpy holds ours to 1e-5 of double precision.
        assert np.quantile(difference, 0.998) < TOLERANCE
        assert difference.max() < 1e-3


# --- what a file may say ---


@pytest.mark.parametrize("key", ["pad_mode", "log", "floor_mode", "normalize"])
def test_an_unknown_value_is_named(key: str, tmp_path: Path) -> None:
    model = tiny.make("gigaam-v3")
    fields = model.metadata()
    fields[f"frontend.{key}"] = replace(fields[f"frontend.{key}"], value="odd")
    path = model.write(tmp_path / "odd.gguf", metadata=fields)
    with pytest.raises(
        UnsupportedModelError, match=rf"key frontend\.{key}: expected one of .*, found \"odd\""
    ):
        _core.Model(str(path))


@pytest.mark.parametrize("center", [True, False])
def test_padding_goes_with_centring(center: bool, tmp_path: Path) -> None:
    model = model_with(replace(GIGAAM_V3, center=center, pad_mode="none" if center else "zero"))
    with pytest.raises(ModelFileError, match=r"key frontend\.pad_mode: expected \"none\" if and only if"):
        model.session(tmp_path)
