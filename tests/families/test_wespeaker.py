"""WeSpeaker's ResNet34 with random weights at its published size against the official network; files that are
wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edit import shaped, without
from gguf_edit import edited
from random_wespeaker import random_wespeaker, write_checkpoint

from rustasr import _core, load_model, load_speaker_encoder, registry
from rustasr.audio import load_audio
from rustasr.convert import convert
from rustasr.errors import ModelError, ModelFileError, OptionError, UnsupportedModelError

GOLDENS = Path(__file__).parent.parent / "data/goldens/speakers/wespeaker.npz"
PIECES = {"window": slice(16_000, 40_000), "short": slice(52_000, 61_600), "long": slice(60_000, 110_123)}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDENS)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published size, 27 MB; the folder is a download of the official one."""
    folder = tmp_path_factory.mktemp("wespeaker")
    write_checkpoint(folder / "avg_model.pt", random_wespeaker())
    (folder / "config.yaml").write_text("model: ResNet34\n")
    return convert(folder, folder.parent / "wespeaker.gguf", qtype="f32").output


@pytest.fixture(scope="module")
def session(gguf: Path) -> _core.Session:
    return _core.Model(str(gguf), "cpu", 2).session()


@pytest.fixture(scope="module")
def pieces(jfk_path: Path) -> dict[str, Array]:
    samples = load_audio(jfk_path)
    return {name: samples[cut] for name, cut in PIECES.items()}


def features_of(session: _core.Session, piece: Array) -> Array:
    """Of a piece that is repeated to 1.5 s."""
    piece = piece if len(piece) >= 24_000 else np.resize(piece, 24_000)
    features: Array = _core.subtract_mean(session.features(piece))
    return features


@pytest.mark.parametrize("name", PIECES)
def test_features_are_wespeakers(
    session: _core.Session, pieces: dict[str, Array], golden: Any, name: str
) -> None:
    features = features_of(session, pieces[name])
    features = features[:: len(features) // 37]
    off = np.abs(features - golden[f"{name}.exact"])
    assert off.max() < 5e-4 and np.median(off) < 1e-5  # the file's tables are in F32
    off = np.abs(features - golden[f"{name}.features"])  # torchaudio computes in F32 throughout
    assert off.max() < 5e-3 and np.median(off) < 1e-5


@pytest.mark.parametrize("name", PIECES)
def test_every_stage_is_the_official_one(
    session: _core.Session, pieces: dict[str, Array], golden: Any, name: str
) -> None:
    taps = session.encode_taps([features_of(session, pieces[name])], [*LAYERS, "stats"])
    n_mels = 80
    for layer in LAYERS:
        wanted, found = golden[f"{name}.{layer}"], taps[layer]  # [T', mels · channels]
        x = found.reshape(len(found), n_mels, -1).transpose(2, 1, 0)  # as there: [channels, mels, T']
        x = x[:: len(x) // 8, :: x.shape[1] // 5, :: max(1, x.shape[2] // 12)]
        np.testing.assert_allclose(x, wanted, atol=1e-3 * np.abs(wanted).max(), err_msg=layer)
        n_mels //= 2
    stats = taps["stats"][0].reshape(2, 10, 256).swapaxes(1, 2).reshape(-1)[::40]
    np.testing.assert_allclose(stats, golden[f"{name}.stats"], atol=1e-3 * np.abs(stats).max())


def test_vectors_are_the_official_ones(gguf: Path, pieces: dict[str, Array], golden: Any) -> None:
    encoder = load_speaker_encoder(gguf)
    vectors = encoder.embed(list(pieces.values()))
    np.testing.assert_allclose(vectors, golden["vectors"], atol=1e-4)
    assert encoder.n_dims == 256
    np.testing.assert_allclose(encoder.embed([4 * pieces["window"]])[0], vectors[0], atol=1e-3)


def test_the_registry_has_its_size() -> None:
    n = sum(
        value.size
        for name, value in random_wespeaker().items()
        if not name.startswith("projection") and "running" not in name and "tracked" not in name
    )
    assert registry.get("wespeaker-resnet34-lm").parameters == n


# --- other sizes


SMALL = {"layers": (1, 2, 1, 1), "n_mels": 16, "n_dims": 12}


def small(folder: Path, tensors: Tensors, qtype: str = "f32") -> Path:
    return convert(write_checkpoint(folder / "model.pt", tensors), folder / "model.gguf", qtype=qtype).output


@pytest.mark.parametrize("channels", [16, 4])  # 4: no whole vectors, for which ggml's operations are used
def test_another_size_in_batches(tmp_path: Path, channels: int) -> None:
    model = _core.Model(str(small(tmp_path, random_wespeaker(channels=channels, **SMALL))), "cpu", 2)
    session = model.session()
    noise = np.random.default_rng(0).normal(0, 0.1, 90_000).astype(np.float32)
    ragged = [noise[i * 7_000 : i * 7_000 + n] for i, n in enumerate([24_000, 3_000, 31_000, 24_000] * 3)]
    together = session.speaker_embeddings(ragged)
    assert together.shape == (12, 12)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for piece, vector in zip(ragged, together, strict=True):
        np.testing.assert_allclose(session.speaker_embeddings([piece])[0], vector, atol=1e-5)


# --- what is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("bn1.running_var"), "bn1.running_var"),
        (without("layer2.1.conv2.weight"), "layer2.1.conv2.weight.* missing|missing.*layer2.1.conv2.weight"),
        (without("seg_1.bias"), "seg_1.bias"),
        (shaped("layer1.0.conv1.weight", 16, 16, 3, 5), r"shape \[16, 16, 3, 5\], expected"),
        (shaped("conv1.weight"), r"shape \[\], expected 1 extents"),
        (shaped("seg_1.weight", 12, 500), "expected mean and deviation of 128 channels"),
        (shaped("layer1.0.conv3.weight", 3), "bottleneck blocks"),
        (shaped("seg_2.weight", 12, 12), "two embedding layers"),
        (shaped("layer5.0.conv1.weight", 3), "1 unexpected tensor.*layer5"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    tensors = random_wespeaker(channels=16, **SMALL)
    change(tensors)
    with pytest.raises(ModelError, match=message):
        small(tmp_path, tensors)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("speaker.n_dims", 13, "dense"),
        ("wespeaker.channels", 8, "conv1"),
        ("wespeaker.layers", [1, 2, 1], "4 layers"),
        ("wespeaker.layers", [1, 2, 0, 1], "1 to 256 blocks"),
        ("wespeaker.layers", [1, 2, 2, 1], "layer3.1"),
        ("speaker.min_samples", 1000, "9 frames"),
        ("frontend.n_mels", 12, "multiple of 8"),
    ],
)
def test_a_file_with_other_settings_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = small(tmp_path, random_wespeaker(channels=16, **SMALL))
    with pytest.raises(ModelFileError, match=message):
        _core.Model(str(edited(path, tmp_path / "edited.gguf", fields={key: value})), "cpu", 1)


def test_it_does_not_transcribe(tmp_path: Path) -> None:
    path = small(tmp_path, random_wespeaker(channels=16, **SMALL))
    with pytest.raises(UnsupportedModelError, match="a speaker encoder"):
        load_model(path, device="cpu")
    with pytest.raises(OptionError, match="a speaker encoder has none"):
        convert(tmp_path / "model.pt", tmp_path / "b.gguf", tokenizer=tmp_path / "tokenizer.json")
