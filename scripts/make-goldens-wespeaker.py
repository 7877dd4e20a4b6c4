#!/usr/bin/env python3
"""Make tests/data/goldens/speakers/wespeaker.npz: what WeSpeaker's ResNet34, with random weights at its
published size (tests/helpers/random_wespeaker.py), makes of pieces of tests/data/jfk.flac.

    python scripts/make-goldens-wespeaker.py WESPEAKER_CHECKOUT

Needs torch, torchaudio, soundfile, and a checkout of wenet-e2e/wespeaker (dfa7419 was used), of which nothing
but wespeaker/models/resnet.py and pooling_layers.py is loaded. Kept are the features that
wespeaker/cli/speaker.py takes (torchaudio's fbank of samples as 16-bit numbers, hamming window, no dither,
less their mean) in double precision and as torchaudio computes them, samples of every layer's output, and the
vectors, of length 1.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torchaudio.compliance import kaldi

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/helpers"), str(ROOT / "tests/python")]
from random_wespeaker import random_wespeaker  # noqa: E402

PIECES = {"window": slice(16_000, 40_000), "short": slice(52_000, 61_600), "long": slice(60_000, 110_123)}
WINDOW = 24_000
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def official(checkout: Path) -> Any:
    """ResNet34 of the checkout, without the rest of the package and what that needs."""
    for name in ("wespeaker", "wespeaker.models"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("pooling_layers", "resnet"):
        path = checkout / f"wespeaker/models/{name}.py"
        spec = importlib.util.spec_from_file_location(f"wespeaker.models.{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        setattr(sys.modules["wespeaker.models"], name, module)
        spec.loader.exec_module(module)
    network = sys.modules["wespeaker.models.resnet"].ResNet34(feat_dim=80, embed_dim=256)  # type: ignore[attr-defined]
    state = {name: torch.from_numpy(value) for name, value in random_wespeaker().items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not missing and unexpected == ["projection.weight"], (missing, unexpected)
    return network.eval()


def features(samples: np.ndarray[Any, Any], dtype: torch.dtype) -> np.ndarray[Any, Any]:
    waveform = torch.from_numpy(samples[None]).to(dtype) * 2**15
    options = {"num_mel_bins": 80, "sample_frequency": 16000, "window_type": "hamming", "dither": 0.0}
    found = kaldi.fbank(waveform, frame_length=25, frame_shift=10, **options)
    less: np.ndarray[Any, Any] = (found - found.mean(0)).numpy()
    return less


def main() -> None:
    network = official(Path(sys.argv[1]))
    samples, _ = soundfile.read(ROOT / "tests/data/jfk.flac", dtype="float32")
    taps: dict[str, np.ndarray[Any, Any]] = {}
    for name in LAYERS:
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: taps.update({name: out.numpy()[0]})
        )
    network.pool.register_forward_hook(lambda _m, _i, out: taps.update(stats=out.numpy()[0]))
    kept: dict[str, np.ndarray[Any, Any]] = {}
    rows = []
    for name, cut in PIECES.items():
        piece = samples[cut] if len(samples[cut]) >= WINDOW else np.resize(samples[cut], WINDOW)
        found = features(piece, torch.float32)
        with torch.no_grad():
            rows.append(network(torch.from_numpy(found[None]))[-1].numpy()[0])
        step = len(found) // 37
        kept[f"{name}.features"] = found[::step]
        kept[f"{name}.exact"] = features(piece, torch.float64)[::step].astype(np.float32)
        for layer in LAYERS:  # [channels, mels, frames]
            x = taps[layer]
            kept[f"{name}.{layer}"] = x[:: len(x) // 8, :: x.shape[1] // 5, :: max(1, x.shape[2] // 12)]
        kept[f"{name}.stats"] = taps["stats"][::40]
    vectors = np.stack(rows)
    kept["vectors"] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    print({name: (v.shape, float(np.abs(v).max())) for name, v in kept.items()})
    np.savez_compressed(ROOT / "tests/data/goldens/speakers/wespeaker.npz", **kept)


if __name__ == "__main__":
    main()
