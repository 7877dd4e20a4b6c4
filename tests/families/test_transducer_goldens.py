"""Decoding the small trained checkpoints: tokens, frames and probabilities as the official code has them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rustasr import _core
from rustasr.audio import load_audio

MODELS = ("gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt")
TRANSDUCERS = MODELS[1:]
THREADS = int(os.environ.get("RUSTASR_TEST_THREADS", "2"))
TOLERANCE = 1e-3
BATCH = 7  # of clips with different lengths


class Checkpoint:
    """A checkpoint's session beside what the official code makes of its clips."""

    def __init__(self, folder: Path, gguf: Path) -> None:
        self.folder = folder
        self.model = _core.Model(str(gguf), "cpu", THREADS)
        self.session = self.model.session()
        self.goldens: dict[str, Any] = json.loads((folder / "goldens.json").read_text(encoding="utf-8"))
        # Some clips of the goldens are kept elsewhere.
        self.clips = [clip for clip in self.goldens["clips"] if (folder / clip["file"]).exists()]
        assert len(self.clips) > 20

    def features(self, path: Path) -> NDArray[np.float32]:
        raw = self.session.features(np.asarray(load_audio(path), np.float32))
        per_feature = self.model.metadata["frontend.normalize"] == "per_feature"
        return _core.normalize_per_feature(raw) if per_feature else raw

    def encode(self, clips: list[dict[str, Any]]) -> _core.Encoded:
        return self.session.encode([self.features(self.folder / clip["file"]) for clip in clips])

    def recognize(self, clips: list[dict[str, Any]], **options: Any) -> list[_core.Recognized]:
        search = _core.SearchOptions(**options)
        return self.session.recognize(self.encode(clips), range(len(clips)), search)

    def read(self, tensor: str) -> NDArray[np.float32]:
        file: Any = _core.GgufFile(self.model.path)
        values: NDArray[np.float32] = file.read(tensor)
        return values


@pytest.fixture(scope="session")
def checkpoint(shared_micro: Path, micro_gguf: Callable[..., Path]) -> Callable[..., Checkpoint]:
    loaded: dict[tuple[str, str], Checkpoint] = {}

    def load(name: str, qtype: str = "f32") -> Checkpoint:
        if (name, qtype) not in loaded:
            loaded[name, qtype] = Checkpoint(shared_micro / name, micro_gguf(name, qtype))
        return loaded[name, qtype]

    return load


def assert_golden(found: _core.Recognized, golden: dict[str, Any], tolerance: float = TOLERANCE) -> None:
    assert found.tokens == golden["token_ids"]
    assert found.frames == golden["token_frames"]
    assert found.durations == golden.get("token_durations", [1] * len(found.tokens))
    np.testing.assert_allclose(found.logprobs, golden["token_logprobs"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_every_clip_gives_the_golden_tokens(name: str, checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint(name)
    for clip in micro.clips:
        encoded = micro.encode([clip])
        assert encoded.lengths == [clip["encoder_frames"]]
        assert_golden(micro.session.recognize(encoded, [0], _core.SearchOptions())[0], clip)


@pytest.mark.parametrize("name", MODELS)
def test_clips_of_a_batch_give_the_golden_tokens(name: str, checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint(name)
    for start in range(0, len(micro.clips), BATCH):
        clips = micro.clips[start : start + BATCH]
        for found, clip in zip(micro.recognize(clips), clips, strict=True):
            assert_golden(found, clip)


@pytest.mark.parametrize("name", TRANSDUCERS)
def test_weights_kept_in_f16_give_the_golden_tokens(name: str, checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint(name, "f16")
    for clip in micro.clips:
        found = micro.recognize([clip])[0]
        assert found.tokens == clip["token_ids"]


def test_long_clip_gives_the_golden_tokens(checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint("parakeet-micro-tdt")
    golden = micro.goldens["long"]
    encoded = micro.session.encode([micro.features(micro.folder / golden["file"])])
    assert encoded.lengths == [golden["encoder_frames"]]
    found = micro.session.recognize(encoded, [0], _core.SearchOptions())[0]
    assert (found.tokens, found.frames) == (golden["token_ids"], golden["token_frames"])


@pytest.mark.parametrize("name", MODELS)
def test_beam_search_gives_the_golden_text(name: str, checkpoint: Callable[..., Checkpoint]) -> None:
    """Not always the same tokens: the sum over alignments may like a leading "▁" of its own better."""
    micro = checkpoint(name)
    pieces: Any = micro.model.metadata["tokenizer.pieces"]

    def text(tokens: list[int]) -> str:
        return "".join(pieces[i] for i in tokens).replace("▁", " ").strip()

    for start in range(0, len(micro.clips), BATCH):
        clips = micro.clips[start : start + BATCH]
        greedy = micro.recognize(clips)
        for found, best_path, clip in zip(micro.recognize(clips, beam_size=4), greedy, clips, strict=True):
            assert text(found.tokens) == text(clip["token_ids"])
            assert found.score >= best_path.score - TOLERANCE
            assert found.frames == sorted(found.frames)
            assert len(found.tokens) == len(found.frames) == len(found.durations) == len(found.logprobs)


@pytest.mark.parametrize("name", TRANSDUCERS)
def test_networks_equal_the_official_ones(name: str, checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint(name)
    golden = np.load(micro.folder / "tensors.npz")
    for clip in micro.clips:
        stem = Path(clip["file"]).stem
        if f"{stem}/encoder" not in golden.files:
            continue
        encoded = micro.encode([clip])
        taps = micro.session.decode_taps(encoded, 0, clip["token_ids"][:2], ["prediction", "joint"])
        if f"{stem}/pred_start_projected" in golden.files:
            start = golden[f"{stem}/pred_start_projected"]
        else:  # GigaAM's is the LSTM's output
            weight, bias = micro.read("joint.pred.weight"), micro.read("joint.pred.bias")
            start = weight @ golden[f"{stem}/pred_start"] + bias
        assert taps["prediction"].shape == (3, len(start))
        np.testing.assert_allclose(taps["prediction"][0], start, rtol=0, atol=1e-5)
        logits = golden[f"{stem}/joint_logits_start_frames0_2"]
        assert taps["joint"].shape == (clip["encoder_frames"], logits.shape[1])
        np.testing.assert_allclose(taps["joint"][:3], logits, rtol=0, atol=TOLERANCE)


def test_projected_frames_equal_the_official_ones(checkpoint: Callable[..., Checkpoint]) -> None:
    micro = checkpoint("parakeet-micro-tdt")
    golden = np.load(micro.folder / "tensors.npz")
    clip = next(c for c in micro.clips if f"{Path(c['file']).stem}/encoder" in golden.files)
    found = micro.session.encode_taps([micro.features(micro.folder / clip["file"])], ["projected"])
    wanted = golden[f"{Path(clip['file']).stem}/encoder_projected"]
    np.testing.assert_allclose(found["projected"], wanted, rtol=0, atol=TOLERANCE)
