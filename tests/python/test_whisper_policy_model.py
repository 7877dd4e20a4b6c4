"""The Whisper class around its policy: languages, progress, stopping. The network is a script."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from whisper_script import TRANSLATE, Answer, Letters, say

from rustasr.errors import Cancelled, OptionError
from rustasr.families import whisper
from rustasr.families.whisper import Whisper, WhisperOptions
from rustasr.progress import Progress

METADATA = {
    "whisper.n_text_ctx": 448,
    "frontend.n_fft": 400,
    "frontend.hop_length": 160,
    "frontend.n_mels": 2,
    "frontend.floor": 1e-10,
}
SECOND = np.zeros(16000, np.float32)


class Network:
    """A `_core.Session` that hears the same in every window; `during` runs inside every decode."""

    def __init__(self) -> None:
        self.encoded: list[list[Any]] = []
        self.prompts: list[list[int]] = []
        self.during: Callable[[int], None] = lambda n: None
        self.cancelled = False

    def features(self, pcm: Any, pad_left: bool, pad_right: bool) -> Any:
        n_frames = (len(pcm) + 200 * pad_left - 400) // 160 + 1
        return np.zeros((n_frames, 2), np.float32)

    def encode(self, features: list[Any]) -> list[Any]:
        self.encoded.append(features)
        return features

    def detect_language(self, encoded: list[Any]) -> Any:
        return np.array([[0.3, 0.7]], np.float32)

    def decode(
        self, encoded: Any, windows: list[int], prompts: list[list[int]], options: Any
    ) -> list[Answer]:
        self.prompts += prompts
        self.during(len(self.prompts))
        return [Answer(say(0, " ab", 30, 30)) for _ in windows]

    def forget_cancel(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def model(network: Network, monkeypatch: pytest.MonkeyPatch) -> Whisper:
    """A multilingual model that knows English and German."""
    return make(network, monkeypatch, ("en", "de"))


def make(network: Network, monkeypatch: pytest.MonkeyPatch, languages: tuple[str, ...]) -> Whisper:
    letters = Letters()
    letters.multilingual, letters.languages = bool(languages), languages  # type: ignore[attr-defined]
    monkeypatch.setattr(whisper, "WhisperTokenizer", lambda metadata: letters)
    core: Any = SimpleNamespace(metadata=METADATA, device="cpu", session=lambda: network)
    return Whisper(core, name="scripted")


def test_the_language_is_detected_with_its_probability(model: Whisper, network: Network) -> None:
    result = model.transcribe(SECOND)
    assert (result.language, result.language_probability) == ("de", pytest.approx(0.7))
    assert result.warnings == ()
    detected, read = network.encoded
    assert len(detected[0]) == 3000  # followed by silence
    assert len(read[0]) == 100  # the core pads it with zeros
    assert network.prompts[0][1] == Letters().sot_sequence("de", "transcribe")[1]


def test_a_full_first_window_is_encoded_once(model: Whisper, network: Network) -> None:
    model.transcribe(np.tile(SECOND, 30))
    assert len(network.encoded) == 1


def test_a_doubtful_language_is_a_warning(model: Whisper, network: Network) -> None:
    network.detect_language = lambda encoded: np.array([[0.45, 0.4]], np.float32)  # type: ignore[method-assign]
    (warning,) = model.transcribe(SECOND).warnings
    assert "english" in warning
    assert "45%" in warning


@pytest.mark.parametrize("given", ["de", "German", "DE", "de-CH"])
def test_a_forced_language_is_not_detected(model: Whisper, network: Network, given: str) -> None:
    result = model.transcribe(SECOND, language=given)
    assert (result.language, result.language_probability) == ("de", None)
    assert len(network.encoded) == 1


def test_a_language_that_the_model_lacks_is_refused(model: Whisper) -> None:
    with pytest.raises(OptionError, match=r"2 languages, not french \(fr\)"):
        model.transcribe(SECOND, language="fr")
    with pytest.raises(OptionError, match=r"'klingon'.*en, de"):
        model.transcribe(SECOND, language="klingon")


def test_translation_is_asked_for(model: Whisper, network: Network) -> None:
    model.transcribe(SECOND, language="de", task="translate")
    assert network.prompts[0][2] == TRANSLATE


def test_an_english_model_refuses_other_languages_and_translation(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(network, monkeypatch, ())
    assert model.supported_languages == ("en",)
    assert model.transcribe(SECOND).language == "en"
    assert model.transcribe(SECOND, language="english").language == "en"
    with pytest.raises(OptionError, match="English only, not german"):
        model.transcribe(SECOND, language="de")
    with pytest.raises(OptionError, match="cannot translate"):
        model.transcribe(SECOND, task="translate")


def test_options_can_be_overridden_by_name(model: Whisper, network: Network) -> None:
    options = WhisperOptions(language="de", initial_prompt="x")
    model.transcribe(SECOND, options, initial_prompt=None)
    assert network.prompts[0] == Letters().sot_sequence("de", "transcribe")
    with pytest.raises(OptionError, match="no option 'beams'"):
        model.transcribe(SECOND, beams=3)


def test_the_result_tells_what_was_done(model: Whisper) -> None:
    result = model.transcribe(np.tile(SECOND, 45), language="en")
    assert (result.duration, result.model_name, result.device) == (45.0, "scripted", "cpu")
    assert result.inference_seconds > 0
    assert result.text == "ab ab"
    assert [(s.start, s.end) for s in result.segments] == [(0.0, 30.0), (30.0, 45.0)]
    assert all(s.words is None for s in result.segments)


def test_less_than_a_frame_of_audio_gives_no_text(model: Whisper, network: Network) -> None:
    result = model.transcribe(SECOND[:100])
    assert (result.text, result.segments, result.duration) == ("", (), 100 / 16000)
    assert network.prompts == []


def test_progress_rises_to_the_end_and_shows_the_segments(model: Whisper) -> None:
    seen: list[tuple[float, float | None, int]] = []

    def note(progress: Progress) -> None:
        seen.append((progress.done_s, progress.total_s, len(progress.segments_so_far)))

    model.transcribe(np.tile(SECOND, 70), progress=note, language="en")
    assert seen[0] == (0.0, 70.0, 0)
    assert seen[-1] == (70.0, 70.0, 3)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_cancel_stops_and_hands_over_what_is_finished(model: Whisper, network: Network) -> None:
    network.during = lambda n: model.cancel() if n == 2 else None
    with pytest.raises(Cancelled) as caught:
        model.transcribe(np.tile(SECOND, 300), language="en")
    partial = caught.value.partial
    assert partial is not None
    assert network.cancelled
    assert len(network.prompts) == 2
    assert [s.end for s in partial.segments] == [30.0, 60.0]
    assert any("interrupted" in warning for warning in partial.warnings)


def test_a_cancelled_core_call_hands_over_what_was_finished_before(model: Whisper, network: Network) -> None:
    def stop(n: int) -> None:
        if n == 3:
            raise Cancelled

    network.during = stop
    with pytest.raises(Cancelled) as caught:
        model.transcribe(np.tile(SECOND, 300), language="en")
    assert caught.value.partial is not None
    assert len(caught.value.partial.segments) == 2


def test_ctrl_c_stays_ctrl_c_and_carries_the_partial_result(model: Whisper, network: Network) -> None:
    def stop(n: int) -> None:
        if n == 2:
            raise KeyboardInterrupt

    network.during = stop
    with pytest.raises(KeyboardInterrupt) as caught:
        model.transcribe(np.tile(SECOND, 300), language="en")
    assert caught.value.partial.text == "ab"  # type: ignore[attr-defined]


def test_a_cancelled_model_transcribes_again(model: Whisper, network: Network) -> None:
    network.during = lambda n: model.cancel() if n == 1 else None
    with pytest.raises(Cancelled):
        model.transcribe(np.tile(SECOND, 60), language="en")
    network.during = lambda n: None
    assert model.transcribe(SECOND, language="en").text == "ab"
    model.cancel()  # nothing runs: nothing happens
    assert model.transcribe(SECOND, language="en").text == "ab"


def test_every_thread_has_its_own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Network] = []
    model = make(Network(), monkeypatch, ("en", "de"))

    def session() -> Network:
        made.append(Network())
        return made[-1]

    model.core = SimpleNamespace(device="cpu", session=session)  # type: ignore[assignment]
    threads = [threading.Thread(target=model.transcribe, args=(SECOND,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.transcribe(SECOND)
    model.transcribe(SECOND)
    assert len(made) == 4
    assert sum(len(n.prompts) for n in made) == 5
