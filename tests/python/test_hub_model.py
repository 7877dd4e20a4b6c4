"""`load_model`: from an argument to the family's object."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rustasr import model as model_module
from rustasr.convert import convert
from rustasr.errors import ModelFileError, ModelNotFoundError, OptionError, UnsupportedModelError
from rustasr.model import FAMILIES, AsrModel, load_model
from tiny_whisper import make_checkpoint, write_hugging_face

HAS_CORE = (
    importlib.util.find_spec("_core") is not None or importlib.util.find_spec("rustasr._core") is not None
)
pytestmark = pytest.mark.skipif(not HAS_CORE, reason="the compiled core is not built")


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("multilingual", [True, False])
def test_a_folder_becomes_a_model(tmp_path: Path, multilingual: bool) -> None:
    folder = write_hugging_face(tmp_path / "my-whisper", make_checkpoint(multilingual=multilingual))
    steps: list[str] = []
    model = load_model(folder, device="cpu", threads=1, progress=lambda done, total, what: steps.append(what))
    assert isinstance(model, AsrModel)
    assert (model.name, model.model_type, model.sample_rate) == ("my-whisper", "whisper", 16000)
    assert model.model_info is None
    assert model.supported_languages == (("en", "zh", "de") if multilingual else ("en",))
    assert steps
    steps.clear()
    load_model(folder, device="cpu", threads=1, progress=lambda done, total, what: steps.append(what))
    assert not steps, "converted twice"


def test_a_registry_model_brings_its_row(tmp_path: Path) -> None:
    root = tmp_path / "home" / "models"
    root.mkdir(parents=True)
    convert(write_hugging_face(tmp_path / "hf", make_checkpoint()), root / "whisper-tiny-f16.gguf")
    model = load_model("whisper-tiny", device="cpu", threads=1)
    assert model.name == "whisper-tiny"
    assert model.model_info is not None
    assert model.model_info.repository == "openai/whisper-tiny"


def test_every_family_of_the_table_exists() -> None:
    for architecture in FAMILIES:
        assert callable(model_module._family(architecture, Path("model.gguf")))
    with pytest.raises(
        UnsupportedModelError, match="general.architecture is 'llama', expected one of whisper"
    ):
        model_module._family("llama", Path("model.gguf"))


def test_what_cannot_be_loaded_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_model("whisper-huge")
    with pytest.raises(OptionError):
        load_model("whisper-tiny", weights="onnx")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises((ModelFileError, UnsupportedModelError), match=r"broken\.gguf"):
        load_model(broken, device="cpu")
