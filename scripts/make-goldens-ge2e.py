#!/usr/bin/env python3
"""Make tests/data/goldens/speakers/ge2e.npz: what Resemblyzer makes of pieces of tests/data/jfk.flac, with
the published weights and with random ones (tests/helpers/random_ge2e.py).

    python scripts/make-goldens-ge2e.py RESEMBLYZER_FOLDER [SHARED_AUDIO]

Needs torch, librosa, scipy, soundfile, and in RESEMBLYZER_FOLDER the unpacked wheel of Resemblyzer==0.1.4.
Kept are the mel powers that resemblyzer/audio.py takes (librosa's, in F32, and the same in double precision),
the last hidden states of the LSTM's layers for the first part and the last, and the vectors. With
SHARED_AUDIO also the vectors of some of its recordings, after the volume step and as they are. Silence is
never trimmed: diarization does without.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/helpers"), str(ROOT / "tests/python")]
from random_ge2e import random_ge2e  # noqa: E402

PIECES = {
    "window": slice(16_000, 40_000),  # one part, filled up with zeros
    "short": slice(52_000, 61_600),
    "dropped": slice(60_000, 91_000),  # of whose second part less than 75 % would be there
    "whole": slice(None),
}  # of jfk.flac
SHARED = ("en/LJ001-0002", "en/LDC93S1", "en_libri_spk/libri_367-130732-0004", "ru_ivr/*")


def mel_powers(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """librosa.feature.melspectrogram with the settings of audio.py, in double precision: [T, 40]."""
    import librosa

    padded = np.pad(samples.astype(np.float64), 200)
    frames = padded[np.arange(400) + 160 * np.arange(1 + len(samples) // 160)[:, None]]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    powers: np.ndarray[Any, Any] = (
        power @ librosa.filters.mel(sr=16000, n_fft=400, n_mels=40, dtype=np.float64).T
    )
    return powers.astype(np.float32)


def encoder(folder: Path, tensors: dict[str, Any] | None = None) -> Any:
    """The official class with the published weights, or with these."""
    sys.path.insert(0, str(folder))
    sys.modules.setdefault("webrtcvad", types.ModuleType("webrtcvad"))  # of the trimming alone
    from resemblyzer import VoiceEncoder

    network = VoiceEncoder("cpu", verbose=False)
    if tensors is not None:
        state = {name: torch.from_numpy(value) for name, value in tensors.items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
        assert not missing and all(name.startswith("similarity") for name in unexpected), (
            missing,
            unexpected,
        )
    return network.eval()


def at_level(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from resemblyzer.audio import normalize_volume

    louder: np.ndarray[Any, Any] = normalize_volume(samples, -30, increase_only=True)
    return louder


def main() -> None:
    folder = Path(sys.argv[1])
    samples, _ = soundfile.read(ROOT / "tests/data/jfk.flac", dtype="float32")
    kept: dict[str, np.ndarray[Any, Any]] = {}
    for kind, tensors in (("published", None), ("random", random_ge2e())):
        network = encoder(folder, tensors)
        hidden: list[np.ndarray[Any, Any]] = []  # [layers, parts, 256]
        network.lstm.register_forward_hook(lambda _m, _i, out, kept=hidden: kept.append(out[1][0].numpy()))
        rows = []
        for name, cut in PIECES.items():
            vector, parts, _ = network.embed_utterance(samples[cut], return_partials=True)
            rows.append(vector)
            states = hidden.pop()
            step = max(1, len(parts) - 1)  # the first part and the last one
            kept[f"{kind}.{name}.hidden"] = states[:, ::step, ::4]
            kept[f"{kind}.{name}.parts"] = np.array(len(parts))
        kept[f"{kind}.vectors"] = np.stack(rows)
    from resemblyzer.audio import wav_to_mel_spectrogram

    for name, cut in PIECES.items():
        powers, exact = wav_to_mel_spectrogram(samples[cut]), mel_powers(samples[cut])
        print(name, powers.shape, "ours less librosa's:", np.abs(powers - exact).max(), "of", exact.max())
        step = max(1, len(powers) // 25)
        kept[f"{name}.powers"], kept[f"{name}.exact"] = powers[::step], exact[::step]
    if len(sys.argv) > 2:
        network = encoder(folder)
        for pattern in SHARED:
            path = sorted(Path(sys.argv[2]).glob(f"{pattern}.flac"))[0]
            samples, rate = soundfile.read(path, dtype="float32")
            assert rate == 16000 and samples.ndim == 1, path
            name = path.relative_to(sys.argv[2]).with_suffix("").as_posix()
            rows = [network.embed_utterance(x) for x in (at_level(samples), samples)]
            kept[f"shared:{name}"] = np.stack(rows)
    print({name: (v.shape, float(np.abs(v).max())) for name, v in kept.items()})
    np.savez_compressed(ROOT / "tests/data/goldens/speakers/ge2e.npz", **kept)


if __name__ == "__main__":
    main()
