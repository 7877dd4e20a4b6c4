"""pyannote's segmentation network: every stage against the official one, and with random weights against
NumPy; batches, threads, recordings; files that are wrong.
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
from gguf_edit import edited
from pyannet_windows import stage, windows
from tiny_pyannet import CHANNELS, FILTERBANK, TinyPyannet

from rustasr import _core, load_model, load_overlap_detector, load_speaker_encoder, load_vad
from rustasr.audio import load_audio
from rustasr.convert import convert
from rustasr.convert.gguf_input import open_gguf
from rustasr.diarization import find_turns, read_rttm
from rustasr.diarization.transcript import PAD_MS
from rustasr.errors import ModelError, ModelFileError, OptionError, UnsupportedModelError
from rustasr.scoring import read_uem, speaker_errors
from rustasr.vad import SileroOptions

GOLDENS = Path(__file__).parent.parent / "data/goldens/speakers/pyannet.npz"
STAGES = ("sinc", "conv1", "conv2", "lstm", "linear")
FILLED = {"conv1": 60, "conv2": 60}  # channels that are not filled with zeros
TINY_WINDOW = 16_000  # samples
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def session(pyannet_gguf: Path) -> _core.Session:
    return _core.Model(str(pyannet_gguf), "cpu", 2).session()


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDENS)


# --- the published weights


@pytest.mark.weights
@pytest.mark.parametrize("name", windows())
def test_every_stage_is_the_official_one(session: _core.Session, golden: Any, name: str) -> None:
    taps = session.encode_taps([windows()[name][None]], STAGES)
    for key in STAGES:
        found, wanted = taps[key][:, : FILLED.get(key)], golden[f"{name}.{key}"]
        assert np.abs(stage(found) - wanted).max() < 1e-4 * np.abs(wanted).max(), key
        assert not taps[key][:, found.shape[1] :].any()


@pytest.mark.weights
def test_probabilities_are_the_official_ones(session: _core.Session, golden: Any) -> None:
    pieces = windows()
    found = session.speaker_classes(list(pieces.values())).reshape(len(pieces), -1, 7)
    for name, classes in zip(pieces, found, strict=True):
        np.testing.assert_allclose(classes, golden[f"{name}.output"], rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(np.exp(classes), np.exp(golden[f"{name}.output"]), atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=2), 1, atol=1e-5)
    # A voice with itself a second later is two voices at once, by itself it is one.
    several = np.exp(found)[:, :, 4:].sum(axis=2) > 0.5
    assert not several[0].any() and several[2].mean() > 0.2


@pytest.mark.weights
def test_the_published_file_keeps_its_name_and_licence(pyannet_gguf: Path) -> None:
    metadata = open_gguf(pyannet_gguf).metadata
    found = {key: metadata[f"general.{key}"].value for key in ("name", "license")}
    assert found == {"name": "pyannote-segmentation-3.0", "license": "MIT"}
    assert metadata["pyannet.speakers_of_class"].value == [0, 1, 1, 1, 2, 2, 2]


@pytest.mark.weights
def test_it_does_not_transcribe(pyannet_gguf: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="overlapped speech"):
        load_model(pyannet_gguf, device="cpu")


@pytest.mark.weights
@pytest.mark.shared
def test_a_meeting_in_which_much_is_said_at_once(
    shared_audio: Path, pyannet_gguf: Path, silero_gguf: Path, campplus_gguf: Callable[[str], Path]
) -> None:
    """AMI's trn09, 28.7 % of whose speech is overlap: 29.4 % errors without the detector, 13.6 % with it."""
    pytest.importorskip("pyannote.metrics")
    recording = shared_audio / "multi/ami_trn09.flac"
    (reference,) = read_rttm(recording.with_suffix(".rttm").read_text()).values()
    (regions,) = read_uem(recording.with_suffix(".uem").read_text()).values()
    vad = load_vad(silero_gguf, SileroOptions(speech_pad_ms=PAD_MS))
    encoder = load_speaker_encoder(campplus_gguf("f32"))
    rates = []
    for overlap in (None, load_overlap_detector(pyannet_gguf)):
        found = find_turns(recording, vad, encoder, overlap=overlap)
        errors = speaker_errors(reference, found.turns, regions)
        assert errors.false_alarm < 0.01 * errors.speech and errors.found == 2
        rates.append(errors.rate)
    assert 0.28 < rates[0] < 0.31 and 0.12 < rates[1] < 0.15


# --- random weights


def made(folder: Path, network: TinyPyannet, qtype: str = "f32") -> Path:
    return convert(network.write(folder / "model.pt"), folder / "whole.gguf", qtype=qtype).output


def small(folder: Path, network: TinyPyannet) -> Path:
    """With windows of a second, so that NumPy does not take long."""
    return edited(made(folder, network), folder / "small.gguf", fields={"pyannet.window": TINY_WINDOW})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("pyannet"), TinyPyannet())


@pytest.fixture(scope="module")
def pieces(jfk_path: Path) -> list[Array]:
    samples = load_audio(jfk_path)
    return [samples[i * 9000 : i * 9000 + TINY_WINDOW].copy() for i in range(10)]


@pytest.mark.parametrize("bands", [8, 5])  # 5: no whole vectors of filters, for which ggml's operations serve
def test_every_stage_against_numpy(tmp_path: Path, pieces: list[Array], bands: int) -> None:
    network = TinyPyannet(bands)
    session = _core.Model(str(small(tmp_path, network)), "cpu", 2).session()
    for piece in pieces[:2]:
        wanted = network.stages(piece)
        taps = session.encode_taps([piece[None]], list(wanted))
        for key, expected in wanted.items():
            found = taps[key][:, : CHANNELS if key.startswith("conv") else None]
            # A channel in which little happens is made loud by its norm, and with it the rounding.
            np.testing.assert_allclose(found, expected, atol=5e-4 * np.abs(expected).max(), err_msg=key)
        classes = session.speaker_classes([piece])
        np.testing.assert_allclose(classes, network.log_probabilities(piece), atol=1e-3)


def test_a_batch_gives_the_classes_of_its_windows(tiny: Path, pieces: list[Array]) -> None:
    session = _core.Model(str(tiny), "cpu", 2).session()
    together = session.speaker_classes(pieces).reshape(len(pieces), -1, 7)
    for piece, classes in zip(pieces, together, strict=True):
        np.testing.assert_allclose(session.speaker_classes([piece]), classes, atol=2e-6)
    assert session.speaker_classes([]).shape == (0, 7)


def test_threads_do_not_change_the_classes(tiny: Path, pieces: list[Array]) -> None:
    one, *others = (_core.Model(str(tiny), "cpu", n).session().speaker_classes(pieces) for n in (1, 2, 3))
    for other in others:
        np.testing.assert_allclose(other, one, atol=2e-6)


def test_without_our_kernels_the_classes_are_the_same(
    tiny: Path, pieces: list[Array], tmp_path: Path
) -> None:
    np.save(tmp_path / "pieces.npy", np.stack(pieces[:2]))
    script = (
        "import sys, numpy as np\nfrom rustasr import _core\n"
        "pieces = list(np.load(sys.argv[2]))\n"
        "np.save(sys.argv[3], _core.Model(sys.argv[1], 'cpu', 2).session().speaker_classes(pieces))\n"
    )
    environment = {**os.environ, "RUSTASR_KERNELS": "off", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [str(tiny), str(tmp_path / "pieces.npy"), str(tmp_path / "classes.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True)
    wanted = _core.Model(str(tiny), "cpu", 2).session().speaker_classes(pieces[:2])
    np.testing.assert_allclose(np.load(tmp_path / "classes.npy"), wanted, atol=1e-4)


def test_silence_and_loudness(tiny: Path, pieces: list[Array]) -> None:
    session = _core.Model(str(tiny), "cpu", 1).session()
    zeros = np.zeros(TINY_WINDOW, np.float32)
    assert np.isfinite(session.speaker_classes([zeros, zeros + 1])).all()
    loud = session.speaker_classes([100 * pieces[0], 200 * pieces[0]]).reshape(2, -1)
    np.testing.assert_allclose(loud[0], loud[1], atol=1e-3)


def test_windows_of_another_length_are_refused(tiny: Path) -> None:
    session = _core.Model(str(tiny), "cpu", 1).session()
    with pytest.raises(OptionError, match="expected 16000 samples in each, found 15999"):
        session.speaker_classes([np.zeros(TINY_WINDOW - 1, np.float32)])
    with pytest.raises(OptionError, match="expected one of 16000 samples"):
        session.encode_taps([np.zeros((2, TINY_WINDOW), np.float32)], ["sinc"])
    with pytest.raises(TypeError, match="float32"):
        session.speaker_classes([np.zeros(TINY_WINDOW)])
    with pytest.raises(UnsupportedModelError, match="no speaker embeddings"):
        session.speaker_embeddings([np.zeros(TINY_WINDOW, np.float32)])


@pytest.mark.parametrize("qtype", ["f16", "q8_0", "q4_0"])
def test_weights_stay_in_f32(tmp_path: Path, qtype: str) -> None:
    path = made(tmp_path, TinyPyannet(), qtype)
    assert {tensor.type for tensor in _core.GgufFile(str(path)).tensors} == {"f32"}


# --- checkpoints with something wrong

Change = Callable[[TinyPyannet], Any]


def _without(name: str) -> Change:
    return lambda network: network.tensors.pop(name)


def _shaped(name: str, *shape: int) -> Change:
    return lambda network: network.tensors.update({name: np.zeros(shape, np.float32)})


def _setting(section: str | None, key: str, value: Any) -> Change:
    def change(network: TinyPyannet) -> None:
        (network.settings if section is None else network.settings[section])[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("sincnet.norm1d.1.bias"), r"sincnet\.norm1d\.1\.bias"),
        (_without(f"{FILTERBANK}.low_hz_"), "low_hz_' is missing"),
        (_without("lstm.bias_hh_l1_reverse"), r"1 tensor\(s\) missing.*bias_hh_l1_reverse"),
        (_shaped("lstm.weight_hh_l0", 32), r"shape \[32\], expected 2 extents"),
        (_shaped("lstm.weight_ih_l1", 32, 15), r"shape \[32, 15\], expected \[32, 16\]"),
        (_shaped("classifier.weight", 6, 10), r"shape \[6, 10\], expected \[7, 10\]"),
        (_shaped("lstm.weight_ih_l2", 32, 16), "1 unexpected tensor.*lstm.weight_ih_l2"),
        (_shaped(f"{FILTERBANK}.n_", 1, 30), "n_' holds a 0"),
        (_setting(None, "sample_rate", 8000), "'model.sample_rate' is 8000"),
        (_setting(None, "num_channels", 2), "only 1 is implemented"),
        (_setting(None, "num_regular_classes", 4), r"classifier.* expected \[11, 10\]"),
        (_setting(None, "powerset_max_classes", 9), "powerset_max_classes"),
        (_setting(None, "sincnet", 3), "expected keys with values"),
        (_setting("sincnet", "stride", 0), "a whole number 1 to 100"),
        (_setting("lstm", "bidirectional", False), "only True is implemented"),
        (_setting("lstm", "num_layers", 1), "unexpected tensor"),
        (_setting("linear", "num_layers", 3), "only 2 is implemented"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    network = TinyPyannet()
    change(network)
    with pytest.raises(ModelError, match=message):
        made(tmp_path, network)
    assert not list(tmp_path.glob("*.gguf"))


def test_values_that_no_training_gives_are_refused(tmp_path: Path) -> None:
    network = TinyPyannet()
    network.tensors["lstm.weight_hh_l0"][0] = np.nan
    with pytest.raises(ModelFileError, match="NaN"):
        made(tmp_path, network)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    path = TinyPyannet().write(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelError):
        convert(path, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = TinyPyannet().write(tmp_path / "model.pt")
    with pytest.raises(OptionError, match="has none"):
        convert(source, tmp_path / "model.gguf", tokenizer=tmp_path / "tokenizer.json")


# --- files with something wrong


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("window", 16_005, "expected a multiple of pyannet.stride"),
        ("window", 60, "expected samples for a frame or more"),
        ("window", 600, "expected samples for a frame or more"),
        ("window", ..., "pyannet.window"),
        ("stride", 1, "at most 30 times pyannet.stride"),
        ("stride", 9, "sinc.kernel|multiple"),
        ("filter_length", 0, "pyannet.filter_length"),
        ("filters", 17, "sinc.kernel"),
        ("channels", 32, "conv1.kernel"),
        ("n_hidden", 9, "linear.0.weight"),
        ("lstm_layers", 3, "lstm.2.input.weight"),
        ("lstm_layers", 1, "lstm.1"),
        ("n_linear", 11, "linear.0.weight"),
        ("speakers_of_class", [0, 1], "output.weight"),
        ("speakers_of_class", [], "1 to 256 classes"),
        ("sample_rate", 8000, "sample_rate"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(
    tiny: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    path = edited(tiny, tmp_path / "edited.gguf", fields={f"pyannet.{key}": value})
    with pytest.raises(ModelError, match=message):
        _core.Model(str(path), "cpu", 1)


def test_a_missing_or_foreign_tensor_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = edited(tiny, tmp_path / "edited.gguf", tensors={"pyannet.lstm.1.backward.weight": None})
    with pytest.raises(ModelFileError, match=r"lstm\.1\.backward\.weight.*missing"):
        _core.Model(str(path), "cpu", 1)
    path = edited(tiny, tmp_path / "edited.gguf", rename={"pyannet.output.bias": "pyannet.other.bias"})
    with pytest.raises(ModelFileError, match=r"output\.bias"):
        _core.Model(str(path), "cpu", 1)


def test_a_truncated_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])
    with pytest.raises(ModelFileError):
        _core.Model(str(path), "cpu", 1)
