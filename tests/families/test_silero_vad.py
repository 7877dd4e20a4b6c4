"""Silero VAD in the core: the official probabilities and spans, whatever the blocks; a state per session."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_edit
import numpy as np
import pytest

import tiny_silero
from rustasr import _core, load_model, load_vad
from rustasr.audio import load_audio, open_audio
from rustasr.convert import convert
from rustasr.errors import (
    AudioError,
    Cancelled,
    ModelFileError,
    ModelNotFoundError,
    OptionError,
    UnsupportedModelError,
)
from rustasr.vad import SileroNetwork, SileroOptions, SileroVad, Span, WebRtcOptions
from vad_tracks import signals

DATA = Path(__file__).parent.parent / "data"
GOLDENS = json.loads((DATA / "goldens/vad/silero.json").read_text())
SHARED = {"silero_de": "de/silero_de.flac", "LDC93S1": "en/LDC93S1.flac"} | {
    name: f"nonspeech/{name}.flac" for name in GOLDENS["nonspeech"]
}
RECORDINGS = {name: golden["probabilities"] for name, golden in GOLDENS["recordings"].items()}
TOLERANCE = 2e-5  # the goldens have six places


def open_network(path: Path, threads: int = 1) -> Any:
    return _core.Model(str(path), "cpu", threads)


@pytest.fixture
def recording(request: pytest.FixtureRequest, jfk_path: Path) -> Callable[[str], np.ndarray]:
    """Samples by the name of a golden."""

    def load(name: str) -> np.ndarray:
        if name == "jfk":
            return load_audio(jfk_path)
        return load_audio(request.getfixturevalue("shared_audio") / SHARED[name])

    return load


@pytest.fixture(scope="module")
def random_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights, of seed 0."""
    folder = tmp_path_factory.mktemp("silero")
    convert(tiny_silero.write_jit(folder / "random.jit", tiny_silero.random_state()), folder / "random.gguf")
    return folder / "random.gguf"


# --- probabilities


@pytest.mark.weights
@pytest.mark.parametrize("name", [*RECORDINGS, *GOLDENS["nonspeech"]])
def test_recordings_give_the_official_probabilities(
    name: str, silero_gguf: Path, recording: Callable[[str], np.ndarray]
) -> None:
    found = open_network(silero_gguf).session().speech_probabilities(recording(name))
    wanted = RECORDINGS.get(name) or GOLDENS["nonspeech"][name]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.weights
def test_made_signals_give_the_official_probabilities(silero_gguf: Path) -> None:
    session = open_network(silero_gguf).session()
    for name, samples in signals().items():
        session.reset()
        found = session.speech_probabilities(samples)
        np.testing.assert_allclose(found, GOLDENS["signals"][name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_random_weights_give_what_numpy_makes_of_the_official_layers(random_gguf: Path) -> None:
    """The converter leaves out taps and fills frequencies: nothing of that may show."""
    state = tiny_silero.random_state()
    samples = np.concatenate([samples[:4000] for samples in signals().values()])
    found = open_network(random_gguf).session().speech_probabilities(samples)
    wanted = tiny_silero.probabilities(state, samples)
    assert np.ptp(wanted) > 0.05, "weights that say something"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernels", ["off", "portable", "avx2"])
def test_every_form_of_the_kernels_gives_the_same(kernels: str, tmp_path: Path, random_gguf: Path) -> None:
    """ "off" is what a device without our kernels computes. The form is chosen once per process."""
    script = (
        "import sys, numpy; from rustasr import _core; samples = numpy.load(sys.argv[1])\n"
        "found = _core.Model(sys.argv[2], 'cpu', 2).session().speech_probabilities(samples)\n"
        "numpy.save(sys.argv[1], found)\n"
    )
    samples = signals()["swept tone"]
    np.save(tmp_path / "a.npy", samples)
    command = [sys.executable, "-c", script, str(tmp_path / "a.npy"), str(random_gguf)]
    environment = {**os.environ, "RUSTASR_KERNELS": kernels, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "RUSTASR_KERNELS: expected one of" in done.stderr:
        pytest.skip(f"this machine has no {kernels}")
    assert done.returncode == 0, done.stderr
    wanted = open_network(random_gguf).session().speech_probabilities(samples)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), wanted, rtol=0, atol=1e-6)


def test_a_network_of_other_sizes_follows_its_keys(tmp_path: Path, random_gguf: Path) -> None:
    """Fewer hidden units: the rows of those that stay are the same, so an LSTM that forgets its output is."""
    n = 48
    kept = np.concatenate([gate * 128 + np.arange(n) for gate in range(4)])
    silent = {"vad.lstm.hidden.weight": lambda w: 0 * w}
    whole = gguf_edit.edited(random_gguf, tmp_path / "a.gguf", tensors={
        **silent, "vad.output.weight": lambda w: np.where(np.arange(128) < n, w, 0),
    })  # fmt: skip
    part = gguf_edit.edited(
        random_gguf,
        tmp_path / "b.gguf",
        fields={"silero_vad.n_hidden": n},
        tensors={
            "vad.lstm.hidden.weight": lambda w: 0 * w[kept, :n],
            "vad.lstm.input.weight": lambda w: w[kept],
            "vad.lstm.input.bias": lambda b: b[kept],
            "vad.output.weight": lambda w: w[:, :n],
        },
    )
    samples = signals()["swept tone"]
    a, b = (open_network(path).session().speech_probabilities(samples) for path in (whole, part))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


# --- state


def in_blocks(session: Any, samples: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Frames in calls of so many frames, over and over."""
    found, at, i = [], 0, 0
    while at < len(samples):
        size = 512 * sizes[i % len(sizes)]
        found.append(session.speech_probabilities(samples[at : at + size]))
        at, i = at + size, i + 1
    return np.concatenate(found)


@pytest.mark.parametrize("sizes", [[1], [2, 1, 63], [64], [65, 64, 3], [200]])
def test_where_calls_are_cut_makes_no_difference(sizes: list[int], random_gguf: Path, jfk_path: Path) -> None:
    samples = load_audio(jfk_path)[: 16000 * 6 + 77]
    network = open_network(random_gguf)
    whole = network.session().speech_probabilities(samples)
    np.testing.assert_allclose(in_blocks(network.session(), samples, sizes), whole, rtol=0, atol=1e-6)


def test_a_reset_begins_a_new_recording(random_gguf: Path) -> None:
    first, second = signals()["loud noise"], signals()["swept tone"]
    network = open_network(random_gguf)
    alone = network.session().speech_probabilities(second)
    session = network.session()
    session.speech_probabilities(first)
    assert not np.array_equal(session.speech_probabilities(second), alone), "the state goes on"
    session.reset()
    assert np.array_equal(session.speech_probabilities(second), alone)


def test_no_samples_are_no_frames(random_gguf: Path) -> None:
    session = open_network(random_gguf).session()
    assert session.speech_probabilities(np.zeros(0, np.float32)).shape == (0,)


def test_a_cancelled_call_leaves_no_trace(random_gguf: Path) -> None:
    samples = signals()["loud noise"]
    network = open_network(random_gguf)
    session = network.session()
    session.cancel()
    with pytest.raises(Cancelled):
        session.speech_probabilities(samples)
    wanted = network.session().speech_probabilities(samples)
    assert np.array_equal(session.speech_probabilities(samples), wanted)


def test_a_running_call_is_cancelled_from_another_thread(random_gguf: Path) -> None:
    session = open_network(random_gguf).session()
    hour = np.zeros(3600 * 16000, np.float32)
    threading.Timer(0.05, session.cancel).start()
    with pytest.raises(Cancelled):
        for _ in range(1000):
            session.speech_probabilities(hour)


def test_threads_with_sessions_of_their_own_do_not_meet(random_gguf: Path) -> None:
    network = open_network(random_gguf)
    tones = [signals()[name] for name in ("swept tone", "loud noise")]
    wanted = [network.session().speech_probabilities(samples) for samples in tones]
    wrong = list[int]()

    def work(i: int) -> None:
        session = network.session()
        for _ in range(30):
            session.reset()
            if not np.array_equal(in_blocks(session, tones[i], [32]), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_number_of_threads_makes_no_difference(random_gguf: Path) -> None:
    samples = signals()["swept tone"]
    one, three = (open_network(random_gguf, n).session().speech_probabilities(samples) for n in (1, 3))
    np.testing.assert_allclose(one, three, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "samples", [np.zeros(1024), np.zeros((2, 512), np.float32), np.zeros(2048, np.float32)[::2]]
)
def test_other_arrays_are_refused(samples: np.ndarray, random_gguf: Path) -> None:
    with pytest.raises(TypeError, match="C-contiguous float32"):
        open_network(random_gguf).session().speech_probabilities(samples)


# --- spans


@pytest.mark.weights
@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_give_the_official_spans(
    name: str, silero_gguf: Path, recording: Callable[[str], np.ndarray]
) -> None:
    samples = recording(name)
    renamed = {"min_silence_at_max_speech": "min_silence_at_max_speech_ms",
               "use_max_poss_sil_at_max_speech": "use_longest_pause"}  # fmt: skip
    for case in GOLDENS["recordings"][name]["cases"]:
        given = {renamed.get(key, key): value for key, value in case["options"].items()}
        options = SileroOptions(**given, restart_after_ms=0)
        found = load_vad(silero_gguf, options).speech([samples])
        assert [list(span) for span in found] == case["spans"], case["options"]


@pytest.mark.weights
def test_blocks_of_any_size_give_the_same_spans(silero_gguf: Path, jfk_path: Path) -> None:
    vad = load_vad(silero_gguf)
    samples = load_audio(jfk_path)
    wanted = [Span(5152, 36320), Span(52256, 71136), Span(86048, 122848), Span(130592, 169952)]
    assert vad.speech([samples]) == wanted
    assert vad.speech(samples[at : at + 777] for at in range(0, len(samples), 777)) == wanted
    assert vad.speech(open_audio(jfk_path).blocks(0.5)) == wanted
    assert vad.speech([]) == []


@pytest.mark.weights
def test_nonspeech_holds_no_speech(silero_gguf: Path, recording: Callable[[str], np.ndarray]) -> None:
    vad = load_vad(silero_gguf)
    assert not [name for name in GOLDENS["nonspeech"] if vad.speech([recording(name)])]


def test_samples_that_are_not_finite_are_refused(random_gguf: Path) -> None:
    samples = np.zeros(80_000, np.float32)
    samples[40_000] = math.nan
    with pytest.raises(AudioError, match="samples 32768 to 65536: expected finite values"):
        load_vad(random_gguf).speech([samples])


@pytest.mark.weights
@pytest.mark.shared
def test_a_quieter_voice_after_a_loud_one_is_heard_as_alone(silero_gguf: Path, shared_audio: Path) -> None:
    """The official network still listens for the loud voice, and loses a third of what the other says."""
    loud, quiet = (load_audio(shared_audio / "en" / n) for n in ("LJ001-0026.flac", "mfa_cold_corpus.flac"))
    both = [loud, np.zeros(11_200, np.float32), quiet]
    first = len(loud) + 11_200

    def seconds(blocks: list[np.ndarray], since: int, options: SileroOptions) -> float:
        spans = load_vad(silero_gguf, options).speech(blocks)
        return sum(max(0, span.end - max(span.start, since)) for span in spans) / 16000

    official = SileroOptions(restart_after_ms=0)
    alone = seconds([quiet], 0, official)
    assert seconds(both, first, official) < 0.8 * alone
    assert seconds(both, first, SileroOptions()) > 0.95 * alone
    for options in (official, SileroOptions()):  # the option counts for a network of the caller's too
        vad = SileroVad(SileroNetwork(open_network(silero_gguf)), options)
        assert vad.speech(both) == load_vad(silero_gguf, options).speech(both)


@pytest.mark.weights
def test_after_a_pause_probabilities_are_only_raised(silero_gguf: Path, jfk_path: Path) -> None:
    """Whatever the blocks; up to the first pause they are the official ones."""
    jfk = load_audio(jfk_path)
    samples = np.concatenate([jfk, np.zeros(512 * 40, np.float32), jfk / 16])
    core = open_network(silero_gguf)
    official = list(SileroNetwork(core)([samples]))
    found = list(SileroNetwork(core, 500)([samples]))
    assert len(found) == len(official)
    assert all(new >= old for new, old in zip(found, official, strict=True))
    pause = next(
        n for n in range(16, len(found)) if max(official[:n]) > 0.5 > 0.15 > max(official[n - 16 : n])
    )
    assert found[:pause] == official[:pause]
    assert found != official
    blocks = [samples[at : at + 777] for at in range(0, len(samples), 777)]
    assert list(SileroNetwork(core, 500)(blocks)) == found


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the size from")
def test_memory_stays_flat_over_an_hour(random_gguf: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    network = SileroNetwork(open_network(random_gguf))
    block = np.zeros(16_000 * 10, np.float32)

    def seconds(n: int) -> int:
        return sum(1 for _ in network(block for _ in range(n // 10)))

    assert seconds(120) == 120 * 16000 // 512
    before = resident()
    assert seconds(3600) == math.ceil(3600 * 16000 / 512)
    assert resident() - before < 4 << 20


# --- by name, and what is not a detector


def test_a_path_is_loaded_with_its_options(random_gguf: Path) -> None:
    assert load_vad(str(random_gguf), SileroOptions(threshold=0.3)).options.threshold == 0.3
    with pytest.raises(OptionError, match="vad silero: expected SileroOptions, found WebRtcOptions"):
        load_vad(random_gguf, WebRtcOptions())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ModelNotFoundError, match="expected webrtc, silero or the path.*'energy'"):
        load_vad("energy")


def test_a_detector_is_no_transcriber(random_gguf: Path) -> None:
    for name in ("silero-vad", random_gguf):
        with pytest.raises(UnsupportedModelError, match=r"is a detector of speech.*--vad silero"):
            load_model(name)


def test_a_transcriber_is_no_detector(tmp_path: Path, random_gguf: Path) -> None:
    class Whisper:
        architecture, path = "whisper", "base.gguf"

    with pytest.raises(UnsupportedModelError, match="base.gguf: expected a detector of speech.*whisper"):
        SileroNetwork(Whisper())  # type: ignore[arg-type]


def test_a_detector_refuses_the_calls_of_transcribers(random_gguf: Path) -> None:
    session = open_network(random_gguf).session()
    with pytest.raises(UnsupportedModelError, match="no log-mel front end"):
        session.features(np.zeros(16000, np.float32))
    with pytest.raises(UnsupportedModelError, match="no encoder"):
        session.encode([np.zeros((100, 80), np.float32)])


# --- files


def refuse(path: Path, message: str) -> None:
    with pytest.raises((ModelFileError, UnsupportedModelError), match=message):
        open_network(path)


def test_every_missing_key_and_tensor_is_named(tmp_path: Path, random_gguf: Path) -> None:
    file = _core.GgufFile(str(random_gguf))
    for key in [key for key in file.metadata if key.startswith("silero_vad.")]:
        refuse(gguf_edit.edited(random_gguf, tmp_path / "a.gguf", fields={key: ...}), key)
    for tensor in file.tensors:
        path = gguf_edit.edited(random_gguf, tmp_path / "a.gguf", tensors={tensor.name: None})
        refuse(path, rf'tensor "{tensor.name}" is missing')
        wider = {tensor.name: lambda values: np.concatenate([values, values])}
        path = gguf_edit.edited(random_gguf, tmp_path / "a.gguf", tensors=wider)
        refuse(path, rf'tensor "{tensor.name}": expected shape')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_rate", 8000),
        ("window", 0),
        ("window", 256),
        ("context", 1 << 20),
        ("context", 128),
        ("padding", 512),
        ("n_fft", 512),
        ("hop_length", 64),
        ("n_fft", 254),
        ("n_hidden", 1 << 31),
        ("channels", [128, 64, 64]),
        ("channels", [128, -64, 64, 128]),
        ("channels", [128, 64, 1 << 30, 128]),
    ],
)
def test_wrong_sizes_are_refused(key: str, value: Any, tmp_path: Path, random_gguf: Path) -> None:
    path = gguf_edit.edited(random_gguf, tmp_path / "a.gguf", fields={f"silero_vad.{key}": value})
    refuse(path, "silero_vad|expected shape")


def test_a_cut_or_flipped_file_is_refused_or_computes(tmp_path: Path, random_gguf: Path) -> None:
    """Every cut is noticed; a flipped bit of the header is noticed or harmless, one in the weights may give
    other numbers: none of them ends the process."""
    raw = random_gguf.read_bytes()
    path = tmp_path / "a.gguf"
    for part in (0, 0.001, 0.3, 0.9, 0.9999):
        path.write_bytes(raw[: int(len(raw) * part)])
        refuse(path, "a.gguf")
    random = np.random.RandomState(5)
    n_refused = 0
    for at in [*random.randint(0, 2500, 60), *random.randint(2500, len(raw), 20)]:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << random.randint(8)]) + raw[at + 1 :])
        try:
            open_network(path).session().speech_probabilities(np.zeros(1000, np.float32))
        except (ModelFileError, UnsupportedModelError):
            n_refused += 1
    assert n_refused > 20
