"""A clip's output does not depend on what else is in the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro_goldens as goldens
import numpy as np
import pytest
import tiny_conformer as tiny

from rustasr import _core

TOLERANCE = 1e-4
LENGTHS = (137, 200, 7, 1, 61)  # mel frames


def rows_of(stacked: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """The windows of a batch, one by one."""
    assert len(stacked) == sum(lengths)
    return np.split(stacked, np.cumsum(lengths)[:-1])


def worst_difference(variant: str, qtype: str, folder: Path) -> float:
    """Between windows encoded together and each by itself."""
    model = tiny.make(variant)
    session = model.session(folder, qtype)
    windows = [model.mel(n, seed=n) for n in LENGTHS]
    lengths = [-(-n // model.encoder.subsampling_factor) for n in LENGTHS]
    together = session.encode_taps(windows, ["output", "logits"])
    differences = []
    for name, stacked in together.items():
        for window, rows in zip(windows, rows_of(stacked, lengths), strict=True):
            differences.append(np.abs(rows - session.encode_taps([window], [name])[name]).max())
    return float(max(differences))


@pytest.mark.parametrize("qtype", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_batched_output_equals_single(variant: str, qtype: str, tmp_path: Path) -> None:
    assert worst_difference(variant, qtype, tmp_path) <= TOLERANCE


def test_batched_output_equals_single_with_ggmls_operations(tmp_path: Path) -> None:
    """Without our kernels, as a GPU computes: another process, because the choice is made once."""
    program = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2:]; import test_conformer_batch as t, tiny_conformer\n"
        "for variant in tiny_conformer.VARIANTS:\n"
        "    print(t.worst_difference(variant, 'f32', pathlib.Path(sys.argv[1])))\n"
    )
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(here), str(here.parent / "helpers")],
        env={**os.environ, "RUSTASR_KERNELS": "off"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    differences = [float(line) for line in run.stdout.split()]
    assert len(differences) == len(tiny.VARIANTS)
    assert max(differences) <= TOLERANCE


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_neighbours_change_nothing(variant: str, tmp_path: Path) -> None:
    """Whatever they hold, to the last bit."""
    model = tiny.make(variant)
    session = model.session(tmp_path)
    windows = [model.mel(n, seed=n) for n in LENGTHS]
    lengths = [-(-n // model.encoder.subsampling_factor) for n in LENGTHS]
    first = rows_of(session.encode_taps(windows, ["output"])["output"], lengths)
    for i in range(len(windows)):
        louder = [w if j == i else w * 1e4 for j, w in enumerate(windows)]
        again = rows_of(session.encode_taps(louder, ["output"])["output"], lengths)
        np.testing.assert_array_equal(again[i], first[i])


@pytest.mark.parametrize("variant", ["gigaam-v3", "parakeet"])
def test_threads_change_nothing(variant: str, tmp_path: Path) -> None:
    model = tiny.make(variant)
    path = model.write(tmp_path / "tiny.gguf")
    windows = [model.mel(n, seed=n) for n in LENGTHS]
    outputs = [
        _core.Model(str(path), "cpu", n).session().encode_taps(windows, ["output"])["output"]
        for n in (1, 2, 3)
    ]
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=0, atol=1e-6)


# --- trained weights ---


@pytest.mark.shared
@pytest.mark.parametrize("qtype", ["f32", "f16", "q8_0", "q6_k", "q4_0"])
@pytest.mark.parametrize("name", ["gigaam-micro-ctc", "parakeet-micro-tdt"])
def test_batched_clips_equal_single_ones(
    name: str, qtype: str, micro: Callable[..., goldens.Checkpoint]
) -> None:
    checkpoint = micro(name, qtype)
    windows = [checkpoint.features(clip) for clip in checkpoint.clips()[:5]]
    encoded = checkpoint.session.encode(windows)
    assert len(set(encoded.lengths)) > 1
    together = checkpoint.session.encode_taps(windows, ["output"])["output"]
    for window, rows in zip(windows, rows_of(together, encoded.lengths), strict=True):
        alone = checkpoint.session.encode_taps([window], ["output"])["output"]
        np.testing.assert_allclose(rows, alone, rtol=0, atol=TOLERANCE)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt"])
def test_many_clips_come_back_in_order(name: str, micro: Callable[..., goldens.Checkpoint]) -> None:
    """More than one pass takes, of any length: the encoder sorts them, the caller does not see it."""
    checkpoint = micro(name)
    windows = [checkpoint.features(clip) for clip in checkpoint.clips()]
    options: Any = _core.SearchOptions()
    encoded = checkpoint.session.encode(windows)
    together = checkpoint.session.recognize(encoded, range(len(windows)), options)
    assert encoded.batch == len(windows) > 20
    for i, window in enumerate(windows):
        single = checkpoint.session.encode([window])
        (alone,) = checkpoint.session.recognize(single, [0], options)
        assert single.lengths == encoded.lengths[i : i + 1]
        assert together[i].tokens == alone.tokens
        np.testing.assert_allclose(together[i].logprobs, alone.logprobs, rtol=0, atol=TOLERANCE)
