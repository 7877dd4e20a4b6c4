"""GE2E's encoder against Resemblyzer's own network, with the published weights and with random ones of the
same size; batches, threads, types; files that are wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_edit import shaped, without
from gguf_edit import edited
from random_ge2e import random_ge2e, write_checkpoint

from rustasr import _core, load_model, load_speaker_encoder, registry
from rustasr.audio import ArraySource, load_audio
from rustasr.convert import convert
from rustasr.diarization import find_turns, read_rttm
from rustasr.errors import ModelError, ModelFileError, OptionError, UnsupportedModelError
from rustasr.scoring import speaker_errors
from rustasr.vad import SileroOptions, load_vad

GOLDENS = Path(__file__).parent.parent / "data/goldens/speakers/ge2e.npz"
PIECES = {
    "window": slice(16_000, 40_000),
    "short": slice(52_000, 61_600),
    "dropped": slice(60_000, 91_000),
    "whole": slice(None),
}
LAYERS = ("lstm.0", "lstm.1", "lstm.2")
Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDENS)


@pytest.fixture(scope="module")
def random_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ge2e")
    write_checkpoint(folder / "pretrained.pt", random_ge2e())
    return convert(folder, folder.parent / "ge2e.gguf", qtype="f32").output


@pytest.fixture(scope="module", params=["published", "random"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def gguf(kind: str, request: pytest.FixtureRequest) -> Path:
    if kind == "random":
        path: Path = request.getfixturevalue("random_gguf")
        return path
    made: Path = request.getfixturevalue("ge2e_gguf")("f32")
    return made


@pytest.fixture(scope="module")
def session(gguf: Path) -> _core.Session:
    return _core.Model(str(gguf), "cpu", 2).session()


@pytest.fixture(scope="module")
def pieces(jfk_path: Path) -> dict[str, Array]:
    samples = load_audio(jfk_path)
    return {name: samples[cut] for name, cut in PIECES.items()}


def part_starts(n_samples: int) -> list[int]:
    """The first frames of the parts of a piece, from the description of compute_partial_slices."""
    n_frames = -(-(n_samples + 1) // 160)
    starts = list(range(0, max(1, n_frames - 160 + 77 + 1), 77))
    return starts[:-1] if len(starts) > 1 and n_samples - starts[-1] * 160 < 0.75 * 25_600 else starts


def features_of(session: _core.Session, piece: Array) -> list[Array]:
    """Of the parts of a piece."""
    starts = part_starts(len(piece))
    filled = np.pad(piece, (0, max(0, (starts[-1] + 160) * 160 - len(piece))))
    powers = session.features(filled)
    return [np.ascontiguousarray(powers[start : start + 160]) for start in starts]


@pytest.mark.parametrize("name", PIECES)
def test_powers_are_librosas(random_gguf: Path, pieces: dict[str, Array], golden: Any, name: str) -> None:
    powers = _core.Model(str(random_gguf), "cpu", 2).session().features(pieces[name])
    powers = powers[:: max(1, len(powers) // 25)]
    exact, librosas = golden[f"{name}.exact"], golden[f"{name}.powers"]
    np.testing.assert_allclose(powers, exact, rtol=2e-6, atol=1e-9 * exact.max())
    np.testing.assert_allclose(powers, librosas, rtol=1e-3, atol=1e-6 * exact.max())  # it computes in F32


@pytest.mark.parametrize("name", PIECES)
def test_every_layer_is_the_official_one(
    session: _core.Session, pieces: dict[str, Array], golden: Any, kind: str, name: str
) -> None:
    parts = features_of(session, pieces[name])
    assert len(parts) == golden[f"{kind}.{name}.parts"]
    taps = session.encode_taps(parts, LAYERS)
    wanted = golden[f"{kind}.{name}.hidden"]  # [layers, the first part and the last, a quarter of the units]
    for layer, states in zip(LAYERS, wanted, strict=True):
        found = taps[layer][:: max(1, len(parts) - 1), ::4]
        np.testing.assert_allclose(found, states, atol=1e-4, err_msg=layer)


def test_vectors_are_the_official_ones(
    session: _core.Session, pieces: dict[str, Array], golden: Any, kind: str
) -> None:
    vectors = session.speaker_embeddings(list(pieces.values()))
    np.testing.assert_allclose(vectors, golden[f"{kind}.vectors"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.min() == 0


@pytest.mark.shared
def test_vectors_of_real_recordings(
    ge2e_gguf: Callable[[str], Path], shared_audio: Path, golden: Any
) -> None:
    """Each after the volume step of Resemblyzer, which only makes louder, and as it is."""
    encoder = load_speaker_encoder(ge2e_gguf("f32"))
    names = [key for key in golden.files if key.startswith("shared:")]
    for name in names:
        samples = load_audio(shared_audio / f"{name.removeprefix('shared:')}.flac")
        level_db = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))
        louder = samples * np.float32(10 ** (max(0.0, -30 - level_db) / 20))
        np.testing.assert_allclose(encoder.embed([louder, samples]), golden[name], atol=1e-5, err_msg=name)
    assert len(names) == 4


@pytest.mark.shared
@pytest.mark.parametrize("level_db", [-24.0, 12.0])
def test_a_quiet_or_loud_meeting_has_the_same_speakers(
    ge2e_gguf: Callable[[str], Path], silero_gguf: Path, shared_audio: Path, level_db: float
) -> None:
    """As they are, these windows give one speaker at -24 dB and five at +12 dB."""
    path = shared_audio / "calls/meeting_en_3spk_mono.flac"
    samples = load_audio(path) * np.float32(10 ** (level_db / 20))
    vad = load_vad(silero_gguf, SileroOptions(speech_pad_ms=100))
    found = find_turns(ArraySource(samples, 16000), vad, load_speaker_encoder(ge2e_gguf("f32")))
    reference = next(iter(read_rttm(path.with_suffix(".rttm").read_text()).values()))
    errors = speaker_errors(reference, found.turns, [(0.0, len(samples) / 16000)])
    assert (errors.found, errors.speakers) == (3, 3)
    assert errors.confusion < 0.001 * errors.speech


def test_a_batch_gives_the_vectors_of_its_pieces(session: _core.Session, pieces: dict[str, Array]) -> None:
    whole = pieces["whole"]
    ragged = [whole[i * 9_000 : i * 9_000 + n] for i, n in enumerate([24_000, 3_000, 31_000, 1, 47_123] * 3)]
    together = session.speaker_embeddings(ragged)
    for piece, vector in zip(ragged, together, strict=True):
        np.testing.assert_allclose(session.speaker_embeddings([piece])[0], vector, atol=2e-6)


def test_threads_do_not_change_the_vectors(gguf: Path, pieces: dict[str, Array]) -> None:
    one, *others = (
        _core.Model(str(gguf), "cpu", threads).session().speaker_embeddings(list(pieces.values()))
        for threads in (1, 2, 3)
    )
    for vectors in others:
        np.testing.assert_allclose(vectors, one, atol=2e-6)


@pytest.mark.parametrize("kernels", ["off", "portable", "avx2"])
def test_every_form_of_the_kernels_gives_the_same(
    random_gguf: Path, pieces: dict[str, Array], golden: Any, tmp_path: Path, kernels: str
) -> None:
    """ "off" is what a device without our kernels computes. The form is chosen once per process."""
    np.savez(tmp_path / "pieces.npz", **pieces)
    script = (
        "import sys, numpy; from rustasr import _core; pieces = list(numpy.load(sys.argv[1]).values())\n"
        "session = _core.Model(sys.argv[2], 'cpu', 2).session()\n"
        "numpy.save(sys.argv[3], session.speaker_embeddings(pieces))\n"
    )
    arguments = [str(tmp_path / "pieces.npz"), str(random_gguf), str(tmp_path / "vectors.npy")]
    environment = {**os.environ, "RUSTASR_KERNELS": kernels, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "RUSTASR_KERNELS: expected one of" in done.stderr:
        pytest.skip(f"this machine has no {kernels}")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), golden["random.vectors"], atol=1e-5)


def test_silence_has_a_vector_and_nothing_has_none(session: _core.Session) -> None:
    vectors = session.speaker_embeddings([np.zeros(24_000, np.float32), np.ones(1, np.float32)])
    assert np.isfinite(vectors).all()
    assert session.speaker_embeddings([]).shape == (0, 256)
    with pytest.raises(OptionError, match="at least one sample"):
        session.speaker_embeddings([np.zeros(0, np.float32)])


def test_loudness_matters(ge2e_gguf: Callable[[str], Path], pieces: dict[str, Array]) -> None:
    """And the encoder says what it was made for."""
    encoder = load_speaker_encoder(ge2e_gguf("f32"))
    assert (encoder.name, encoder.n_dims, encoder.level_db) == ("ge2e-resemblyzer", 256, -30)
    assert (round(encoder.cut_distance, 6), round(encoder.merge_cosine, 6)) == (0.4, 0.8)
    plain, louder = encoder.embed([pieces["whole"], 4 * pieces["whole"]])
    assert 0.5 < plain @ louder < 0.95


@pytest.mark.parametrize(("qtype", "found"), [("f16", "f16"), ("q8_0", "f32"), ("bf16", "f32")])
def test_vectors_in_other_types(
    ge2e_gguf: Callable[[str], Path], pieces: dict[str, Array], golden: Any, qtype: str, found: str
) -> None:
    """F16 keeps the vectors to a thousandth; what does not is stored as F32."""
    model = _core.Model(str(ge2e_gguf(qtype)), "cpu", 2)
    types = {t.type for t in _core.GgufFile(model.path).tensors if t.name.endswith(".weight")}
    assert types == {found}
    vectors = model.session().speaker_embeddings(list(pieces.values()))
    np.testing.assert_allclose(vectors, golden["published.vectors"], atol=1e-3)


def test_the_registry_has_its_size() -> None:
    n = sum(value.size for name, value in random_ge2e().items() if not name.startswith("similarity"))
    assert registry.get("ge2e-resemblyzer").parameters == n


# --- other sizes


SMALL = {"n_mels": 8, "n_hidden": 12, "n_layers": 2, "n_dims": 5}


def small(folder: Path, tensors: Tensors) -> Path:
    return convert(write_checkpoint(folder / "model.pt", tensors), folder / "model.gguf", qtype="f32").output


def sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


def vector_of(tensors: Tensors, parts: list[Array]) -> Array:
    """The network in NumPy, in double precision."""
    rows = []
    for part in parts:
        x = part.astype(np.float64)
        for i in range(SMALL["n_layers"]):
            h = c = np.zeros(SMALL["n_hidden"])
            steps = []
            for frame in x:
                gates = tensors[f"lstm.weight_ih_l{i}"] @ frame + tensors[f"lstm.weight_hh_l{i}"] @ h
                gates = gates + tensors[f"lstm.bias_ih_l{i}"] + tensors[f"lstm.bias_hh_l{i}"]
                opened, forgotten, new, shown = np.split(gates, 4)
                c = sigmoid(forgotten) * c + sigmoid(opened) * np.tanh(new)
                h = sigmoid(shown) * np.tanh(c)
                steps.append(h)
            x = np.stack(steps)
        row = np.maximum(0, tensors["linear.weight"] @ x[-1] + tensors["linear.bias"])
        rows.append(row / np.linalg.norm(row))
    mean = np.mean(rows, axis=0)
    vector: Array = mean / np.linalg.norm(mean)
    return vector


def test_another_size_equals_numpy(tmp_path: Path, pieces: dict[str, Array]) -> None:
    tensors = random_ge2e(**SMALL)
    session = _core.Model(str(small(tmp_path, tensors)), "cpu", 2).session()
    found = session.speaker_embeddings(list(pieces.values()))
    for piece, vector in zip(pieces.values(), found, strict=True):
        np.testing.assert_allclose(vector, vector_of(tensors, features_of(session, piece)), atol=1e-4)


# --- what is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("lstm.weight_ih_l0"), "lstm.weight_ih_l0' is missing"),
        (without("linear.bias"), "missing.*linear.bias"),
        (without("lstm.weight_ih_l1"), "unexpected tensor.*l1"),
        (without("lstm.bias_hh_l1"), "missing.*lstm.bias_hh_l1"),
        (shaped("lstm.weight_hh_l0", 48, 13), "shape"),
        (shaped("lstm.weight_ih_l0", 48), r"shape \[48\], expected 2 extents"),
        (shaped("linear.weight", 5, 13), r"shape \[5, 13\], expected"),
        (shaped("lstm.weight_ih_l0_reverse", 48, 8), "1 unexpected tensor.*reverse"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    tensors = random_ge2e(**SMALL)
    change(tensors)
    with pytest.raises(ModelError, match=message):
        small(tmp_path, tensors)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("speaker.n_dims", 6, "linear"),
        ("ge2e.hidden", 11, r"linear\.weight|lstm\.0"),
        ("ge2e.layers", 3, r"lstm\.2"),
        ("ge2e.layers", 1, r"lstm\.1"),
        ("ge2e.part_frames", 76, "ge2e.part_step: expected at most ge2e.part_frames"),
        ("ge2e.part_step", 0, "ge2e.part_step"),
        ("ge2e.least_coverage", 0.0, "ge2e.least_coverage: expected a share"),
        ("ge2e.least_coverage", float("nan"), "ge2e.least_coverage.*finite"),
        ("frontend.log", "log2", "frontend.log: expected one of log10, ln, none"),
    ],
)
def test_a_file_with_other_settings_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = small(tmp_path, random_ge2e(**SMALL))
    with pytest.raises((ModelFileError, UnsupportedModelError), match=message):
        _core.Model(str(edited(path, tmp_path / "edited.gguf", fields={key: value})), "cpu", 1)


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", random_ge2e(**SMALL))
    data = path.read_bytes()
    for n in range(1, len(data), 61):
        path.write_bytes(data[:n])
        with pytest.raises(ModelError):
            convert(path, tmp_path / "model.gguf", qtype="f32")
    assert not list(tmp_path.glob("*.gguf"))


def test_it_does_not_transcribe(tmp_path: Path) -> None:
    path = small(tmp_path, random_ge2e(**SMALL))
    with pytest.raises(UnsupportedModelError, match="a speaker encoder"):
        load_model(path, device="cpu")
    with pytest.raises(OptionError, match="a speaker encoder has none"):
        convert(tmp_path / "model.pt", tmp_path / "b.gguf", tokenizer=tmp_path / "tokenizer.json")
