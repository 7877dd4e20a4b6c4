"""What the damaged GigaAM and Parakeet checkpoints of the tests share: one thing wrong in a small valid one.

Where a message is given, it is what a user needs to find the fault: the key, tensor, member or file, and what
was expected of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from conformer_checkpoints import (
    TinyModel,
    make_gigaam,
    make_parakeet,
    write_gigaam_ckpt,
    write_nemo,
    write_parakeet_hf,
)
from refusals import little_memory
from rustasr.convert import convert

Change = Callable[[TinyModel], TinyModel]


@pytest.fixture(scope="module", autouse=True)
def imports_are_not_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warm")
    for index, path in enumerate(
        (
            write_gigaam_ckpt(folder / "model.ckpt", make_gigaam()),
            write_nemo(folder / "model.nemo", make_parakeet(), gzipped=True),
            write_parakeet_hf(folder / "hf", make_parakeet("ctc")),
        )
    ):
        convert(path, folder / f"{index}.gguf", qtype="q8_0")


@pytest.fixture(autouse=True)
def in_little_memory() -> Iterator[None]:
    with little_memory():
        yield


def setting(path: str, value: Any, message: str | None = None) -> tuple[Change, str]:
    """One setting replaced (`...`: left out); the message must name it."""
    return lambda made: made.configured(path, value), message or re.escape(path.rpartition(".")[2])


def tensor(name: str, value: Any, message: str | None = None) -> tuple[Change, str]:
    """One tensor replaced (None: left out; a shape: zeros of it); the message must name it."""

    def change(made: TinyModel) -> TinyModel:
        new = np.zeros(value, np.float32) if isinstance(value, tuple) else value
        return made.changed(**{name.replace(".", "__"): new})

    return change, message or re.escape(name)


NOT_NUMBERS = {"text": "64", "true": True, "negative": -1, "zero": 0, "a billion": 10**9, "a list": [4],
               "a fraction": 2.5, "none": None, "2^70": 1 << 70}  # fmt: skip
