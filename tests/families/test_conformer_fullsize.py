"""GigaAM v3 and Parakeet TDT v3 at their full published sizes, random weights, against the official encoders.

Opt-in (--run-slow). benchmarks/conformer_checkpoint.py makes the checkpoints in a temporary folder, or in the
one that RUSTASR_TEST_CONFORMER names, where they are kept (3 GB as released, 3.4 GB as F32 models). Needs
torch, transformers and 8 GB of memory; for GigaAM also omegaconf, hydra, sentencepiece and a checkout of
github.com/salute-developers/GigaAM that RUSTASR_TEST_GIGAAM names.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro_goldens import THREADS
from numpy.typing import NDArray

pytestmark = pytest.mark.slow
TOLERANCE = 2e-3  # of values around 1 (measured: 1e-5)
PARAMETERS = {"gigaam": 220_879_361, "parakeet": 627_008_134}  # of v3-e2e-ctc and tdt-0.6b-v3
BATCH_SECONDS = (3.1, 9.7, 6.4)
Floats = NDArray[np.float32]
Encode = Callable[[list[Floats]], list[Floats]]


def speech(jfk_path: Path, seconds: float, start: float = 0.0) -> Floats:
    """Speech without a pause: jfk.flac again and again."""
    from rustasr.audio import load_audio

    pcm = np.resize(np.asarray(load_audio(jfk_path), np.float32), int((start + seconds) * 16000))
    return np.ascontiguousarray(pcm[int(start * 16000) :])


class Official:
    """A checkpoint at full size and its publisher's encoder."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family = family
        torch = pytest.importorskip("torch")
        import conformer_checkpoint as make

        folder.mkdir(parents=True, exist_ok=True)
        if family == "parakeet":
            pytest.importorskip("transformers")
            model, self.path, self.encode = make.parakeet(folder), folder, self.parakeet
        else:
            for needed in ("omegaconf", "hydra", "sentencepiece"):
                pytest.importorskip(needed)
            source = os.environ.get("RUSTASR_TEST_GIGAAM")
            if not source:
                pytest.skip("RUSTASR_TEST_GIGAAM names no checkout of GigaAM")
            model, self.path = make.gigaam(folder, Path(source)), folder / "v3_e2e_ctc.ckpt"
            for stand_in in ("torchaudio", "torchaudio.transforms"):  # transformers would take it for real
                sys.modules.pop(stand_in)
            with torch.no_grad():  # the values that the release stores
                for parameter in model.encoder.parameters():
                    parameter.copy_(parameter.half())
            self.encode = self.gigaam
        self.torch, self.encoder = torch, model.encoder
        self.n_parameters = sum(p.numel() for p in model.parameters())

    def padded(self, features: list[Floats]) -> tuple[Any, Any]:
        """[B, T, n_mels] with zeros behind the shorter ones, and the lengths [B]."""
        longest = max(map(len, features))
        stacked = np.stack([np.pad(f, ((0, longest - len(f)), (0, 0))) for f in features])
        return self.torch.from_numpy(stacked), self.torch.tensor([len(f) for f in features])

    def parakeet(self, features: list[Floats]) -> list[Floats]:
        values, lengths = self.padded(features)
        mask = self.torch.arange(values.shape[1])[None] < lengths[:, None]
        with self.torch.inference_mode():
            out = self.encoder(input_features=values, attention_mask=mask).last_hidden_state.numpy()
        return [rows[: math.ceil(len(f) / 8)] for rows, f in zip(out, features, strict=True)]

    def gigaam(self, features: list[Floats]) -> list[Floats]:
        values, lengths = self.padded(features)
        with self.torch.inference_mode():
            out, counts = self.encoder(values.transpose(1, 2), lengths)
        return [rows.T[:n].numpy() for rows, n in zip(out, counts.tolist(), strict=True)]


@pytest.fixture(scope="module", params=["gigaam", "parakeet"])
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Official:
    kept = os.environ.get("RUSTASR_TEST_CONFORMER")
    return Official(request.param, (Path(kept) if kept else tmp_path_factory.mktemp("full")) / request.param)


@pytest.fixture(scope="module")
def session(official: Official) -> Any:
    """Ours, in F32."""
    from rustasr import _core
    from rustasr.convert import convert

    path = official.path.parent / f"{official.path.stem}-f32.gguf"
    if not path.exists():
        convert(official.path, path, qtype="f32")
    return _core.Model(str(path), "cpu", THREADS).session()


def features(official: Official, session: Any, pcm: Floats) -> Floats:
    from rustasr import _core

    raw = session.features(pcm)
    return _core.normalize_per_feature(raw) if official.family == "parakeet" else raw


def test_the_number_of_parameters_is_the_published_one(official: Official) -> None:
    assert official.n_parameters == PARAMETERS[official.family]


@pytest.mark.parametrize("seconds", [5, 20])
def test_encoder_output_equals_the_official_one(
    official: Official, session: Any, jfk_path: Path, seconds: float
) -> None:
    window = features(official, session, speech(jfk_path, seconds))
    (wanted,) = official.encode([window])
    found = session.encode_taps([window], ["output"])["output"]
    assert found.shape == wanted.shape
    assert 0.3 < wanted.std() < 3
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def test_a_batch_of_three_lengths_equals_the_official_one(
    official: Official, session: Any, jfk_path: Path
) -> None:
    windows = [features(official, session, speech(jfk_path, s, start=s / 2)) for s in BATCH_SECONDS]
    found = session.encode_taps(windows, ["output"])["output"]
    wanted = official.encode(windows)
    assert session.encode(windows).lengths == [len(rows) for rows in wanted]
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=0, atol=TOLERANCE)
