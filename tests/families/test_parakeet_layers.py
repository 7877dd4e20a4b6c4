"""Parakeet's stages on the small trained checkpoint against NeMo's own modules in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro_goldens as goldens
import numpy as np
import pytest

pytestmark = pytest.mark.shared
NAME = "parakeet-micro-tdt"
TOLERANCE = 1e-4  # the subsampling's values reach 13 (measured with F32 weights: 7e-6)
HALF_TOLERANCE = 5e-2  # F16 weights: the products round activations to F16 (measured: 8e-3)

Load = Callable[..., goldens.Checkpoint]


def test_encoder_stages_equal_nemo(micro: Load) -> None:
    """On the goldens' own features, whose quietest band carries float32 noise of the transform."""
    checkpoint = micro(NAME)
    for clip, golden in checkpoint.tensors.items():
        features = np.ascontiguousarray(golden["features"].T)
        found = checkpoint.session.encode_taps([features], [*goldens.STAGES, "projected"])
        for stage, its_name in [*goldens.STAGES.items(), ("projected", "encoder_projected")]:
            np.testing.assert_allclose(
                found[stage], golden[its_name], rtol=0, atol=TOLERANCE, err_msg=f"{clip} {stage}"
            )


def test_from_samples_to_the_encoders_output(micro: Load) -> None:
    checkpoint = micro(NAME)
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.session.encode_taps([checkpoint.features(clip)], ["output"])["output"]
        np.testing.assert_allclose(found, golden["encoder"], rtol=0, atol=TOLERANCE)


def test_half_precision_weights_stay_close(micro: Load) -> None:
    checkpoint = micro(NAME, "f16")
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.session.encode_taps([checkpoint.features(clip)], ["output"])["output"]
        np.testing.assert_allclose(found, golden["encoder"], rtol=0, atol=HALF_TOLERANCE)


def test_both_releases_give_the_same_encoder(micro: Load, micro_gguf: Any, shared_micro: Path) -> None:
    """The .nemo archive and the Hugging Face folder: not a bit apart on the same features."""
    first = micro(NAME)
    second = goldens.Checkpoint(shared_micro / NAME, micro_gguf(NAME, "f32", "hf"))
    features = first.features(next(iter(first.tensors)))
    outputs = [c.session.encode_taps([features], ["output"])["output"] for c in (first, second)]
    np.testing.assert_array_equal(*outputs)
