"""Every form of conformer that GigaAM and Parakeet were released in, random and tiny, against NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_conformer as tiny

from rustasr.errors import OptionError

TOLERANCE = 2e-5  # of values up to 10 (measured: 4e-6)


def stages(model: tiny.TinyConformer) -> list[str]:
    return ["subsampling", *(f"blocks.{i}" for i in range(model.encoder.n_layer)), "output", "logits"]


@pytest.mark.parametrize("variant", tiny.VARIANTS)
@pytest.mark.parametrize("n_frames", [1, 2, 7, 8, 9, 61, 200])
def test_encoder_stages_equal_numpy(variant: str, n_frames: int, tmp_path: Path) -> None:
    model = tiny.make(variant)
    session = model.session(tmp_path)
    mel = model.mel(n_frames)
    found, wanted = session.encode_taps([mel], stages(model)), tiny.encode(model, mel)
    for stage in stages(model):
        assert found[stage].shape == wanted[stage].shape, stage
        np.testing.assert_allclose(found[stage], wanted[stage], rtol=0, atol=TOLERANCE, err_msg=stage)


@pytest.mark.parametrize("variant", ["gigaam-v3", "parakeet"])
def test_relative_positions_reach_as_far_as_the_window(variant: str, tmp_path: Path) -> None:
    """Longer and shorter windows by turns: tables that grew serve short windows too."""
    model = tiny.make(variant)
    session = model.session(tmp_path)
    for n_frames in (40, 1100, 40, 4200, 1100):  # beyond 512 encoder frames the table is not kept
        mel = model.mel(n_frames, seed=n_frames)
        found = session.encode_taps([mel], ["output"])["output"]
        np.testing.assert_allclose(found, tiny.encode(model, mel)["output"], rtol=0, atol=5e-5)


def test_lengths_are_the_encoder_frames(tmp_path: Path) -> None:
    for variant in tiny.VARIANTS:
        model = tiny.make(variant)
        session = model.session(tmp_path)
        factor = model.encoder.subsampling_factor
        sizes = [1, factor, factor + 1, 5 * factor - 1]
        encoded = session.encode([model.mel(n) for n in sizes])
        assert encoded.batch == 4
        assert encoded.lengths == [-(-n // factor) for n in sizes]


def test_features_of_another_width_are_refused(tmp_path: Path) -> None:
    model = tiny.make("gigaam-v3")
    session = model.session(tmp_path)
    with pytest.raises(OptionError, match=r"expected .* of 12 mels, found 5 of 13"):
        session.encode([np.zeros((5, 13), np.float32)])
    with pytest.raises(OptionError, match="found 0 of 12"):
        session.encode([np.zeros((0, 12), np.float32)])
    with pytest.raises(OptionError, match="at least one window"):
        session.encode([])
    with pytest.raises(OptionError, match=r"blocks\.9"):
        session.encode_taps([model.mel(8)], ["blocks.9"])
