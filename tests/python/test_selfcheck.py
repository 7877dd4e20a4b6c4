"""The self-check finds a device that computes wrongly, and only such a one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rustasr import selfcheck
from rustasr.errors import DeviceError, TranscriptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def test_the_cpu_agrees_with_numpy() -> None:
    assert selfcheck.check_device("cpu") < 1e-3


def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selfcheck._linear

    def wrong(x: Any, weights: Any, name: str) -> NDArray[np.float32]:
        return right(x, weights, name) * (1.1 if name.endswith("attn.out") else 1.0)

    monkeypatch.setattr(selfcheck, "_linear", wrong)
    with pytest.raises(TranscriptionError, match="differs from NumPy's"):
        selfcheck.check_device("cpu")


def test_an_unknown_device_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="nonsense"):
        selfcheck.check_device("nonsense")
