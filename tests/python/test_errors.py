"""The error tree: what a caller may rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rustasr
from rustasr import errors
from rustasr.types import TranscriptionResult

ROOT = Path(__file__).resolve().parents[2]


def test_every_error_is_a_rustasr_error() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.RustAsrError), name
        assert getattr(rustasr, name) is getattr(errors, name)


def test_model_errors_are_model_errors() -> None:
    for name in ("ModelNotFoundError", "ModelFileError", "UnsupportedModelError", "ChecksumError"):
        assert issubclass(getattr(errors, name), errors.ModelError)
    for name in ("AudioError", "DeviceError", "OptionError", "TranscriptionError", "Cancelled"):
        assert not issubclass(getattr(errors, name), errors.ModelError)


def test_a_bad_option_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        raise errors.OptionError("beam_size: expected 1 to 64, got 0")


def test_cancelled_carries_the_finished_part() -> None:
    part = TranscriptionResult("hello", (), "en", 2.0, 0.1, "tiny.en")
    assert errors.Cancelled("stopped", part).partial is part
    assert errors.Cancelled().partial is None


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = set(re.findall(r"(?:├──|└──)? ?([A-Z]\w+)(?:  |$)", errors.__doc__ or "", re.MULTILINE))
    assert set(errors.__all__) <= drawn


def test_the_core_throws_only_classes_that_exist_here() -> None:
    header = (ROOT / "csrc" / "core" / "error.h").read_text(encoding="utf-8")
    for name in re.findall(r"^class (\w+) : public Error", header, re.MULTILINE):
        assert name in errors.__all__, name


def test_public_names_are_listed_and_unknown_ones_are_attribute_errors() -> None:
    assert {"Segment", "Word", "load_audio", "load_model"} <= set(dir(rustasr))
    assert rustasr.Segment is not None
    with pytest.raises(AttributeError, match="nonsense"):
        rustasr.nonsense  # noqa: B018
