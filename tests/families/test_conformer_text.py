"""GigaAM and Parakeet end to end on the micro checkpoints: the official texts, tokens and times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wer import word_errors

import rustasr
from rustasr.audio import load_audio
from rustasr.errors import Cancelled, OptionError

NAMES = ("gigaam-micro-ctc", "gigaam-micro-e2e-rnnt", "parakeet-micro-tdt")
MicroGguf = Callable[..., Path]


@pytest.fixture(scope="module")
def models(micro_gguf: MicroGguf) -> Callable[[str], Any]:
    loaded: dict[tuple[str, str], Any] = {}

    def get(name: str, qtype: str = "f32") -> Any:
        if (name, qtype) not in loaded:
            loaded[name, qtype] = rustasr.load_model(micro_gguf(name, qtype), device="cpu", threads=2)
        return loaded[name, qtype]

    return get


@pytest.fixture(scope="module")
def goldens(shared_micro: Path) -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        stored = json.loads((shared_micro / name / "goldens.json").read_text(encoding="utf-8"))
        stored["clips"] = [clip for clip in stored["clips"] if (shared_micro / name / clip["file"]).exists()]
        assert len(stored["clips"]) > 20
        return stored

    return read


@pytest.mark.parametrize("name", NAMES)
def test_every_clip_is_heard_as_the_official_code_hears_it(
    name: str, models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    model = models(name)
    for clip in goldens(name)["clips"]:
        result = model.transcribe(shared_micro / name / clip["file"], timestamps="word")
        tokens = [token for segment in result.segments for token in segment.timed_tokens]
        assert result.text == clip["text"], clip["file"]
        assert [word.text for word in result.words] == [w.get("word", w.get("text")) for w in clip["words"]]
        for word, expected in zip(result.words, clip["words"], strict=True):
            assert word.start == pytest.approx(expected["start"], abs=2e-3)
            assert word.end == pytest.approx(min(expected["end"], result.duration), abs=2e-3)
        confidences = dict(zip(clip["token_ids"], np.exp(clip["token_logprobs"]), strict=True))
        for token in tokens:
            if clip["token_ids"].count(token.id) == 1:
                assert token.confidence == pytest.approx(confidences[token.id], abs=1e-3)
        if "segments" in clip:
            found = [(segment.text, segment.start) for segment in result.segments]
            assert found == [(s["segment"], pytest.approx(s["start"])) for s in clip["segments"]]


@pytest.mark.parametrize("qtype", ["f16", "q8_0", "q6_k"])
@pytest.mark.parametrize("name", NAMES)
def test_quantised_weights_write_the_same_text(
    name: str,
    qtype: str,
    models: Callable[..., Any],
    goldens: Callable[[str], dict[str, Any]],
    shared_micro: Path,
) -> None:
    model = models(name, qtype)
    for clip in goldens(name)["clips"]:
        assert model.transcribe(shared_micro / name / clip["file"]).text == clip["text"], clip["file"]


@pytest.mark.parametrize("name", NAMES)
def test_four_bits_cost_few_words(
    name: str, models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    model, wrong, total = models(name, "q4_0"), 0.0, 0
    for clip in goldens(name)["clips"]:
        errors = word_errors(clip["text"], model.transcribe(shared_micro / name / clip["file"]).text)
        wrong, total = wrong + errors.rate * errors.words, total + errors.words
    assert wrong / total <= 0.02


@pytest.mark.parametrize("name", NAMES)
def test_the_long_clip(
    name: str, models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    """Parakeet hears it in one window, GigaAM in two, cut in silence: times stay absolute.

    The CTC model learnt its clips by heart and mishears a word where a window ends elsewhere.
    """
    stored = goldens(name)["long"]
    result = models(name).transcribe(shared_micro / name / "long.wav", timestamps="word")
    single = stored.get("single_pass", stored)
    errors = word_errors(stored["reference"], result.text)
    assert errors.rate * errors.words <= (1 if name == "gigaam-micro-ctc" else 0)
    starts = [w["start"] for w in single["words"]]
    assert len(result.words) == len(starts)
    late = [abs(word.start - start) for word, start in zip(result.words, starts, strict=True)]
    assert max(late) < 0.25 and float(np.median(late)) < 0.05
    if name.startswith("parakeet"):
        assert [s.text for s in result.segments] == [s["segment"] for s in stored["segments"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_does_not_change_the_result(
    name: str, models: Callable[..., Any], shared_micro: Path
) -> None:
    samples = np.concatenate([load_audio(shared_micro / name / "long.wav")] * 3)
    results = [
        models(name).transcribe(samples, timestamps="word", window_seconds=9.0, batch_size=n) for n in (1, 5)
    ]
    assert results[0].text == results[1].text
    for one, other in zip(results[0].words, results[1].words, strict=True):
        assert (one.text, one.start, one.end) == (other.text, other.start, other.end)
    starts = [word.start for word in results[0].words]
    assert starts == sorted(starts) and starts[-1] > len(samples) / 16000 * 0.9


def test_silence_and_splinters_say_nothing(models: Callable[..., Any]) -> None:
    for name in NAMES:
        for n in (1, 100, 319, 1600, 16000):
            result = models(name).transcribe(np.zeros(n, np.float32))
            assert result.text == "" and result.segments == ()


def test_options_that_a_family_cannot_honour_are_refused(models: Callable[..., Any]) -> None:
    silence = np.zeros(16000, np.float32)
    for given, message in (
        ({"task": "translate"}, "can only transcribe"),
        ({"temperature": 0.2}, "no option 'temperature'"),
        ({"initial_prompt": "x"}, "no option 'initial_prompt'"),
        ({"language": "de"}, "knows ru"),
        ({"window_seconds": 26.0}, "at most 25 s"),
        ({"beam_size": 1, "hotwords": "а"}, "need a beam search"),
    ):
        with pytest.raises(OptionError, match=message):
            models("gigaam-micro-ctc").transcribe(silence, **given)
    with pytest.raises(OptionError, match="no piece for a character"):
        models("gigaam-micro-ctc").transcribe(silence, hotwords="hello")


def test_the_language_lock_writes_that_alphabet_only(
    models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    name = "parakeet-micro-tdt"
    for clip in goldens(name)["clips"][:12]:
        path = shared_micro / name / clip["file"]
        locked = models(name).transcribe(path, language=clip["language"])
        assert locked.text == clip["text"] and locked.language == clip["language"]
        for code, first, last in (("ru", "а", "ё"), ("el", "ά", "ώ")):
            text = models(name).transcribe(path, language=code).text
            assert all(first <= c <= last for c in text.lower() if c.isalpha())


@pytest.mark.parametrize("name", NAMES)
def test_a_beam_hears_what_greedy_hears_where_the_model_is_sure(
    name: str, models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    for clip in goldens(name)["clips"][:8]:
        assert models(name).transcribe(shared_micro / name / clip["file"], beam_size=4).text == clip["text"]


def test_hotwords_of_every_kind_of_vocabulary_are_searched_for(
    models: Callable[..., Any], goldens: Callable[[str], dict[str, Any]], shared_micro: Path
) -> None:
    """Words that are said stay; the search takes phrases, and pieces of all three vocabularies."""
    for name in NAMES:
        clip = goldens(name)["clips"][0]
        word = max(clip["text"].split(), key=len).strip(".,")
        path = shared_micro / name / clip["file"]
        assert models(name).transcribe(path, hotwords=(word, clip["text"].split()[0])).text == clip["text"]


def test_a_cancelled_run_keeps_its_segments(models: Callable[..., Any], shared_micro: Path) -> None:
    model = models("parakeet-micro-tdt")
    samples = np.concatenate([load_audio(shared_micro / "parakeet-micro-tdt" / "long.wav")] * 3)

    def stop(progress: rustasr.Progress) -> None:
        if progress.segments_so_far:
            model.cancel()

    with pytest.raises(Cancelled) as caught:
        model.transcribe(samples, window_seconds=10.0, batch_size=1, progress=stop)
    partial = caught.value.partial
    assert partial is not None and partial.segments and partial.warnings
    assert model.transcribe(samples[: 16000 * 3]).duration == 3.0  # the model is as good as before
