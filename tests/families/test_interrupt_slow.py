"""Ctrl-C pressed twice while the core computes (opt-in, `--run-slow`: half a minute)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
from rustasr.cli import main
main(prog_name="rustasr")
"""
TRIES = 12  # without what is tested here a third of them aborted


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")
def test_a_second_ctrl_c_ends_the_process_and_aborts_nothing(
    tiny_en_gguf: Callable[[str], Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 480 * 16000)
    soundfile.write(tmp_path / "noise.flac", noise, 16000)
    arguments = [tmp_path / "noise.flac", "-m", tiny_en_gguf("q8_0"), "-o", tmp_path / "noise.srt"]
    command = [sys.executable, "-c", COMMAND, "transcribe", *map(str, arguments)]
    for number in range(TRIES):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2.0 + 0.1 * number)
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        # The signal itself where the second one came when all was written and the interpreter was ending.
        assert process.returncode in (130, -signal.SIGINT), said
        assert "interrupted" in said or process.returncode == -signal.SIGINT
