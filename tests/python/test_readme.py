"""What README.md shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from rustasr.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.weights
def test_the_python_example_prints_what_is_shown(
    base_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = re.search(r"```python\n(.*?)```\s*```\n(.*?)```", README, re.DOTALL)
    assert example is not None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "whisper-base-q8_0.gguf").symlink_to(base_gguf("q8_0"))
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", example[1]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == example[2]


def test_every_command_shown_has_options_that_exist() -> None:
    shown = [
        line.split("#")[0].strip()
        for line in re.findall(r"^(?!\|)(?:.*\| )?(rustasr .*)$", README, re.MULTILINE)
    ]
    assert len(shown) >= 12
    for line in shown:
        words = shlex.split(line)[1:]
        result = CliRunner().invoke(main, [*words, "--help"])
        assert result.exit_code == 0, line
        for option in (word for word in words if word.startswith("-") and word != "-"):
            assert re.search(rf"(^|[\s,/]){re.escape(option)}\b", result.output), f"{line}: no {option}"


def test_files_and_links_named_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
