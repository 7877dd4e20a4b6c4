"""How a bad source must be refused: with a typed error, soon, in little memory, with nothing left behind.

POSIX: the address space is capped 200 MB above what the process has when a case starts, so an allocation by
a number in a file fails the test.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rustasr.convert import convert
from rustasr.errors import ModelError

SECONDS, MEGABYTES = 2.0, 200


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Caps what the block may allocate; skips the test where that cannot be done."""
    resource = pytest.importorskip("resource", reason="address-space limits are POSIX")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc/self/statm to read the present size from")
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (MEGABYTES << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def assert_refused(source: Path, tmp_path: Path, tokenizer: Path | None = None) -> str:
    """Converting `source` is refused; returns the message."""
    target = tmp_path / "out.gguf"
    began = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        convert(source, target, tokenizer=tokenizer)
    assert time.perf_counter() - began < SECONDS
    assert len(str(caught.value)) > 20
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))
    return str(caught.value)


def ids(cases: dict[str, Any]) -> list[Any]:
    """Parameters of a test, named by their keys."""
    return [pytest.param(value, id=name) for name, value in cases.items()]
