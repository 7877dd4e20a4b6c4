"""A transcription that was interrupted anywhere, and continued, gives what an uninterrupted one gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rustasr import journal as journal_module
from rustasr.audio import SAMPLE_RATE, load_audio
from rustasr.diarization import DiarizationOptions, diarize
from rustasr.errors import Cancelled
from rustasr.journal import Journal
from rustasr.vad import Span

# Short windows, so that there are several rounds in a short recording.
CASES = {
    "tiny.en": ("tiny.en", {"timestamps": "word", "temperature": (0.0, 0.8), "best_of": 2}),
    "tiny.en batched": ("tiny.en", {"batch_size": 2, "temperature": (0.0, 0.8), "best_of": 2}),
    "gigaam": ("gigaam-micro-ctc", {"window_seconds": 3.0, "batch_size": 2, "timestamps": "word"}),
    "gigaam e2e": ("gigaam-micro-e2e-rnnt", {"window_seconds": 3.0, "batch_size": 1}),
    "parakeet": ("parakeet-micro-tdt", {"window_seconds": 3.0, "batch_size": 2, "timestamps": "word"}),
    "qwen3": ("qwen3-asr-micro", {"window_seconds": 4.0, "batch_size": 2}),
}


class Told:
    """A detector that was told where the speech is."""

    def __init__(self, *spans: Span) -> None:
        self.options = spans

    def speech(self, blocks: Any) -> list[Span]:
        for _ in blocks:
            pass
        return list(self.options)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The keys of all rounds that were computed; journals begin at once."""
    keys: list[Any] = []
    remember = Journal.remember

    def spy(self: Journal, key: Any, kind: Any, compute: Callable[[], Any]) -> Any:
        return remember(self, key, kind, lambda: (keys.append(key), compute())[1])

    monkeypatch.setattr(Journal, "remember", spy)
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.0)
    yield keys


@pytest.fixture
def recording(jfk_path: Path, two_clips: Callable[[str], list[Path]]) -> Callable[[str], tuple[Any, Told]]:
    def make(name: str) -> tuple[Any, Told]:
        """Speech, then noise (temperature fallbacks, in Whisper), then speech."""
        noise = np.random.default_rng(2).normal(0, 0.05, 8 * SAMPLE_RATE).astype(np.float32)
        if name == "tiny.en":
            jfk = load_audio(jfk_path)
            first, second = np.tile(jfk, 3), np.tile(jfk, 2)
        else:
            first, second = (load_audio(path)[: 12 * SAMPLE_RATE] for path in two_clips(name))
        samples = np.concatenate([first, noise, second])
        return samples, Told(Span(0, len(first)), Span(len(first) + len(noise), len(samples)))

    return make


def said(result: Any) -> dict[str, Any]:
    document = result.to_dict()
    return {key: value for key, value in document.items() if key not in ("inference_seconds", "rtf")}


@pytest.mark.weights
@pytest.mark.shared
@pytest.mark.parametrize("with_vad", [False, True], ids=["", "vad"])
@pytest.mark.parametrize("case", CASES)
def test_resumed_from_every_cut(
    case: str,
    with_vad: bool,
    any_model: Callable[[str], Any],
    recording: Callable[[str], tuple[Any, Told]],
    computed: list[Any],
    tmp_path: Path,
) -> None:
    name, options = CASES[case]
    model, (samples, vad) = any_model(name), recording(name)
    path = tmp_path / "talk.partial.jsonl"

    def transcribe() -> Any:
        return model.transcribe(samples, vad=vad if with_vad else None, journal=path, **options)

    plain = said(model.transcribe(samples, vad=vad if with_vad else None, **options))
    assert plain["segments"]
    assert said(transcribe()) == plain
    n_rounds, lines = len(computed), path.read_bytes().splitlines(keepends=True)
    assert len(lines) == n_rounds + 1
    assert n_rounds >= (2 if "batched" in case else 3)
    for cut in range(1, len(lines) + 1):
        torn = lines[cut][: len(lines[cut]) // 2] if cut < len(lines) else b""
        path.write_bytes(b"".join(lines[:cut]) + torn)
        computed.clear()
        resumed = transcribe()
        assert said(resumed) == plain, f"cut behind {cut - 1} of {n_rounds} rounds"
        assert len(computed) == n_rounds - (cut - 1)
    assert resumed.inference_seconds > 0


class ByOffset:
    """Tells the voice whose samples are around 0.1 from the one whose are around 0."""

    name, cut_distance, merge_cosine = "by offset", 0.5, 0.8

    def embed(self, pieces: Any) -> Any:
        high = [float(np.mean(piece) > 0.05) for piece in pieces]
        return np.array([[one, 1 - one] for one in high], np.float32)


@pytest.mark.shared
@pytest.mark.parametrize("mode", ["channel", "cluster"])
def test_a_diarized_recording_is_resumed_from_every_cut(
    mode: str,
    any_model: Callable[[str], Any],
    recording: Callable[[str], tuple[Any, Told]],
    computed: list[Any],
    tmp_path: Path,
) -> None:
    """Two sides one after the other, or two voices of two languages: the turns, then two parts."""
    model, (samples, vad) = any_model("gigaam-micro-ctc"), recording("gigaam-micro-ctc")
    first = vad.options[0].end
    voices = 0.5 * samples + np.where(np.arange(len(samples)) < first, 0, np.float32(0.1))
    sides = np.stack([np.where(np.arange(len(samples)) < first, samples, 0), samples], axis=1)
    sides[:first, 1] = 0
    wav, path = tmp_path / "talk.wav", tmp_path / "talk.partial.jsonl"
    soundfile.write(wav, sides if mode == "channel" else voices, SAMPLE_RATE, subtype="FLOAT")
    languages = {} if mode == "channel" else {"speaker_1": "ru"}

    def work(journal: Path | None) -> Any:
        return diarize(
            model,
            wav,
            DiarizationOptions(mode),
            vad=vad,
            encoder=ByOffset(),
            overlap=None,
            speaker_languages=languages,
            journal=journal,
            window_seconds=3.0,
            batch_size=1,
        )

    plain = said(work(None))
    assert {segment["speaker"] for segment in plain["segments"]} == {
        turn["speaker"] for turn in plain["turns"]
    }
    assert len({turn["speaker"] for turn in plain["turns"]}) == 2
    assert said(work(path)) == plain
    n_rounds, lines = len(computed), path.read_bytes().splitlines(keepends=True)
    assert n_rounds >= 6 and len(lines) == n_rounds + 1
    for cut in range(1, len(lines) + 1):
        torn = lines[cut][: len(lines[cut]) // 2] if cut < len(lines) else b""
        path.write_bytes(b"".join(lines[:cut]) + torn)
        computed.clear()
        resumed = work(path)
        assert said(resumed) == plain, f"cut behind {cut - 1} of {n_rounds} rounds"
        assert len(computed) == n_rounds - (cut - 1)
    assert resumed.inference_seconds > 0
    languages["speaker_0" if mode == "cluster" else "mic"] = "ru"
    assert "was written for another set of options" in work(path).warnings[-1]


@pytest.mark.shared
def test_transcribe_says_who_speaks(
    any_model: Callable[[str], Any],
    recording: Callable[[str], tuple[Any, Told]],
    tmp_path: Path,
) -> None:
    """`transcribe(diarize=...)` is `rustasr.diarize`, with a family's options as an object too."""
    model, (samples, vad) = any_model("gigaam-micro-ctc"), recording("gigaam-micro-ctc")
    left = np.where(np.arange(len(samples)) < vad.options[0].end, samples, 0)
    wav = tmp_path / "call.wav"
    soundfile.write(wav, np.stack([left, samples - left], axis=1), SAMPLE_RATE, subtype="FLOAT")
    found = said(model.transcribe(wav, vad=vad, diarize=True, batch_size=2))
    assert found == said(diarize(model, wav, vad=vad, batch_size=2))
    assert {segment["speaker"] for segment in found["segments"]} == {"mic", "system"}
    options = type(model).options_class(batch_size=2, timestamps="word")
    named = model.transcribe(wav, options, vad=vad, diarize=DiarizationOptions(left_name="Ann"))
    assert {segment.speaker for segment in named.segments} == {"Ann", "system"}
    assert named.text == found["text"]


@pytest.mark.weights
@pytest.mark.shared
def test_a_cancelled_run_is_continued_and_its_time_counts(
    any_model: Callable[[str], Any],
    recording: Callable[[str], tuple[Any, Told]],
    computed: list[Any],
    tmp_path: Path,
) -> None:
    model, (samples, _) = any_model("gigaam-micro-ctc"), recording("gigaam-micro-ctc")
    path = tmp_path / "a.jsonl"
    options = {"window_seconds": 3.0, "batch_size": 1}

    def stop(progress: Any) -> None:
        if progress.done_s > 8:
            model.cancel()

    with pytest.raises(Cancelled) as stopped:
        model.transcribe(samples, journal=path, progress=stop, **options)
    spent, n_before = stopped.value.partial.inference_seconds, len(computed)
    etas = []
    result = model.transcribe(samples, journal=path, progress=lambda p: etas.append(p.eta_s), **options)
    assert said(result) == said(model.transcribe(samples, **options))
    assert result.inference_seconds > 0.5 * spent
    assert n_before > 2
    assert etas[-1] == pytest.approx(0.0, abs=0.1)


@pytest.mark.weights
@pytest.mark.shared
def test_other_options_begin_anew_and_say_so(
    any_model: Callable[[str], Any],
    recording: Callable[[str], tuple[Any, Told]],
    computed: list[Any],
    tmp_path: Path,
) -> None:
    model, (samples, vad) = any_model("gigaam-micro-ctc"), recording("gigaam-micro-ctc")
    path = tmp_path / "a.jsonl"
    model.transcribe(samples, journal=path)
    for changed in ({"window_seconds": 5.0}, {"vad": vad}, {"vad": Told(Span(0, 16000))}):
        result = model.transcribe(samples, journal=path, **changed)
        assert "was written for another set of options" in result.warnings[0]
    result = model.transcribe(samples[:-1], vad=Told(Span(0, 16000)), journal=path)
    assert "was written for another recording" in result.warnings[0]
    assert len(list(tmp_path.glob("a.jsonl.*"))) == 4
