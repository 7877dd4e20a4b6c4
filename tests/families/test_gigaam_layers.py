"""GigaAM's stages on the small trained checkpoints against GigaAM's own code in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro_goldens as goldens
import numpy as np
import pytest

pytestmark = pytest.mark.shared
MODELS = ("gigaam-micro-ctc", "gigaam-micro-e2e-rnnt")
TOLERANCE = 1e-4  # the subsampling's values reach 40 (measured with F32 weights: 8e-6)
LOGITS_TOLERANCE = 1e-4  # of log-probabilities down to -40 (measured: 2e-5)
HALF_TOLERANCE = 5e-2  # F16 weights: the products round activations to F16 (measured: 6e-3)

Load = Callable[..., goldens.Checkpoint]


@pytest.mark.parametrize("name", MODELS)
def test_encoder_stages_equal_gigaam(name: str, micro: Load) -> None:
    checkpoint = micro(name)
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.session.encode_taps([checkpoint.features(clip)], list(goldens.STAGES))
        for stage, its_name in goldens.STAGES.items():
            np.testing.assert_allclose(
                found[stage], golden[its_name], rtol=0, atol=TOLERANCE, err_msg=f"{clip} {stage}"
            )


def test_log_probabilities_equal_gigaam(micro: Load) -> None:
    checkpoint = micro("gigaam-micro-ctc")
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.session.encode_taps([checkpoint.features(clip)], ["logits"])["logits"]
        np.testing.assert_allclose(found, golden["ctc_log_probs"], rtol=0, atol=LOGITS_TOLERANCE)
        np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(axis=1), 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_weights_stay_close(name: str, micro: Load) -> None:
    checkpoint = micro(name, "f16")
    for clip, golden in checkpoint.tensors.items():
        found = checkpoint.session.encode_taps([checkpoint.features(clip)], ["output"])["output"]
        np.testing.assert_allclose(found, golden["encoder"], rtol=0, atol=HALF_TOLERANCE)


def test_both_releases_give_the_same_encoder(micro: Load, micro_gguf: Any, shared_micro: Path) -> None:
    """The gigaam package's checkpoint and the Hugging Face folder: not a bit apart."""
    name = "gigaam-micro-ctc"
    first, second = micro(name), goldens.Checkpoint(shared_micro / name, micro_gguf(name, "f32", "hf"))
    clip = next(iter(first.tensors))
    outputs = [c.session.encode_taps([c.features(clip)], ["logits"])["logits"] for c in (first, second)]
    np.testing.assert_array_equal(*outputs)
