"""Qwen3-ASR and its aligner end to end on the small checkpoints: the official code's texts, and our policy.

The checkpoint knows 48 clips by heart; what it says of other sound is no measure of anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qwen3_goldens as q
from click.testing import CliRunner

import rustasr
from rustasr.audio import load_audio
from rustasr.cli import main
from rustasr.errors import Cancelled, OptionError, UnsupportedModelError
from rustasr.families.qwen3_text import code_of

THREADS = int(os.environ.get("RUSTASR_TEST_THREADS", "2"))
MicroGguf = Callable[..., Path]
Load = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(shared_micro: Path) -> Path:
    return shared_micro / q.ASR


@pytest.fixture(scope="module")
def asr(micro_gguf: MicroGguf) -> Load:
    loaded: dict[tuple[str, str], Any] = {}

    def get(layout: str = "original", qtype: str = "f32") -> Any:
        if (layout, qtype) not in loaded:
            path = micro_gguf(q.ASR, qtype, layout)
            loaded[layout, qtype] = rustasr.load_model(path, device="cpu", threads=THREADS)
        return loaded[layout, qtype]

    return get


@pytest.fixture(scope="module")
def aligner_path(micro_gguf: MicroGguf) -> Path:
    return micro_gguf(q.ALIGNER, "f32")


# --- texts


@pytest.mark.parametrize(("layout", "qtype"), [("original", "f32"), ("hf", "f32"), ("original", "q8_0")])
def test_every_golden_is_transcribed_as_the_official_code_does(
    layout: str, qtype: str, asr: Load, folder: Path
) -> None:
    model = asr(layout, qtype)
    for item in q.goldens(folder)["items"]:
        result = model.transcribe(
            q.samples(folder, item), language=item["forced_language"], context=item["context"]
        )
        forced = item["forced_language"]
        assert result.text == item["text"], item["id"]
        assert result.language == code_of(forced or item["language"]), item["id"]
        tokens = [token for segment in result.segments for token in segment.tokens]
        assert model.tokenizer.decode(tokens).strip() == item["text"]
        # Token for token; the stop token and what stands before the text are left out.
        said = [t for t in item["generated_ids"] if t < 1256]
        assert tokens == said[len(said) - len(tokens) :]


def test_batched_windows_equal_single_ones(asr: Load, folder: Path) -> None:
    """Clips with a second of digital silence between them, which is where they are cut."""
    names = ("en_vm_savefolder", "en_lj0006", "long_en_jfk")
    clips = [load_audio(folder / q.item(folder, name)["audio"]) for name in names]
    samples = np.concatenate([np.append(clip, np.zeros(8000, np.float32)) for clip in clips])
    marks, at = list[float](), 0
    for clip in clips:
        marks += [at / 16000, (at + len(clip)) / 16000]
        at += len(clip) + 8000
    results = [asr().transcribe(samples, clip_timestamps=tuple(marks), batch_size=size) for size in (1, 2, 3)]
    expected = " ".join(q.item(folder, name)["text"] for name in names)
    for result in results:
        assert result.text == expected
        assert result.segments == pytest.approx(results[0].segments) or [
            (s.text, s.start, s.end, s.tokens) for s in result.segments
        ] == [(s.text, s.start, s.end, s.tokens) for s in results[0].segments]
        assert result.language == "en"


def test_languages_by_code_and_name(asr: Load, folder: Path) -> None:
    item = q.item(folder, "de_testname")
    for language in ("de", "German", "german", "DE", "de-AT"):
        result = asr().transcribe(folder / item["audio"], language=language)
        assert (result.text, result.language) == (item["text"], "de")
    assert len(asr().supported_languages) == 30
    with pytest.raises(OptionError, match="knows zh, en, yue"):
        asr().transcribe(folder / item["audio"], language="uk")


def test_a_beam_says_what_greedy_says_where_the_model_is_sure(asr: Load, folder: Path) -> None:
    for name in ("en_lj0006", "zh_danji", "ru_nsh0018"):
        item = q.item(folder, name)
        assert asr().transcribe(folder / item["audio"], beam_size=3).text == item["text"]


def test_silence_and_splinters_say_nothing(asr: Load) -> None:
    for n in (1, 100, 1599, 16000):
        result = asr().transcribe(np.zeros(n, np.float32))
        assert (result.text, result.segments) == ("", ())
    assert asr().transcribe(np.full(1, 0.5, np.float32)).text == ""


def test_what_is_made_up_of_noise_is_flagged(asr: Load, folder: Path, shared_audio: Path) -> None:
    doubts, n_made_up = {"low_confidence", "repetition"}, 0
    for name in (
        "sb_noise2",
        "sb_noise3",
        "sb_noise4",
        "sb_noise5",
        "tc_noise",
        "pisets_test_silence",
        "gen_white",
    ):
        made_up = asr().transcribe(shared_audio / "nonspeech" / f"{name}.flac").segments
        assert all(doubts & set(segment.flags) for segment in made_up), name
        n_made_up += len(made_up)
    assert n_made_up
    for path in sorted((folder / "dev").glob("*.flac")):
        assert not any(doubts & set(segment.flags) for segment in asr().transcribe(path).segments), path.name


def test_segments_are_in_the_recording_and_say_that_times_are_estimated(asr: Load, folder: Path) -> None:
    result = asr().transcribe(folder / "dev" / "long_de_portal.flac")
    assert len(result.segments) == 2
    times = [time for s in result.segments for time in (s.start, s.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= result.duration
    assert all(s.flags == ("estimated_times",) and s.language == "de" for s in result.segments)
    assert all(s.confidence is not None and s.confidence > 0.99 for s in result.segments)


# --- while it is said


def test_text_comes_in_token_by_token(asr: Load, folder: Path) -> None:
    item = q.item(folder, "zh_danji")
    stream = asr().stream(folder / item["audio"])
    told = list(stream)
    assert [text.final for text in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].text == item["text"] == stream.result().text
    lengths = [len(text.text) for text in told]
    assert lengths == sorted(lengths) and len(told) > 5
    assert not any("�" in text.text for text in told)


def test_a_listener_can_stop_it(asr: Load, folder: Path) -> None:
    def stop(text: rustasr.PartialText) -> None:
        if len(text.text) > 10:
            raise RuntimeError("enough")

    path = folder / "dev" / "en_lj0006.flac"
    with pytest.raises(RuntimeError, match="enough"):
        asr().transcribe(path, on_text=stop)
    assert asr().transcribe(path).text == q.item(folder, "en_lj0006")["text"]


def test_a_cancelled_run_can_be_followed_by_another(asr: Load, folder: Path) -> None:
    model = asr()
    path = folder / "dev" / "en_lj0006.flac"
    with pytest.raises(Cancelled):
        model.transcribe(path, on_text=lambda text: model.cancel())
    assert model.transcribe(path).text == q.item(folder, "en_lj0006")["text"]


# --- endless answers


def test_a_model_that_can_only_repeat_itself_is_stopped_and_flagged(
    asr: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every token but one is forbidden, in every retry as well."""
    core = rustasr._core
    model = asr()
    only = model.tokenizer.encode("a")[0]
    forbidden = [token for token in range(1280) if token != only]
    made: list[dict[str, Any]] = []

    def options(**given: Any) -> Any:
        made.append(given)
        return core.DecodeOptions(**given, suppress=forbidden)

    stub = SimpleNamespace(DecodeOptions=options, normalize_log_mel=core.normalize_log_mel)
    monkeypatch.setitem(rustasr.__dict__, "_core", stub)
    result = model.transcribe(folder / "dev" / "long_en_jfk.flac", language="en")
    # 11 s: two halves, each of them sampled twice in vain.
    assert [given["temperature"] for given in made] == [0.0, 0.0, 0.4, 0.8, 0.4, 0.8]
    assert [segment.text for segment in result.segments] == ["a", "a"]
    assert all(segment.flags == ("repetition", "estimated_times") for segment in result.segments)
    assert all(segment.tokens == (only,) for segment in result.segments)


# --- word times


def test_words_of_the_official_aligner(aligner_path: Path, shared_micro: Path) -> None:
    aligner = rustasr.load_aligner(aligner_path, device="cpu", threads=THREADS)
    folder = shared_micro / q.ALIGNER
    for item in q.goldens(folder)["items"]:
        samples = load_audio(folder / item["audio"])
        duration = len(samples) / 16000
        words = aligner.align(samples, item["text"], item["language"])
        times = [(w.start, w.end) for w in words]
        expected = [(i["start_time"], i["end_time"]) for i in item["items"]]
        assert len(words) == len(item["units"])
        assert times == [(min(a, int(duration * 1000) / 1000), min(b, duration)) for a, b in expected] or all(
            t == pytest.approx((min(a, duration), min(b, duration)), abs=1e-3)
            for t, (a, b) in zip(times, expected, strict=True)
        )


def test_the_aligner_gives_words_to_the_recogniser(asr: Load, folder: Path, aligner_path: Path) -> None:
    item = q.item(folder, "long_de_portal")
    result = asr().transcribe(folder / item["audio"], timestamps="word", align=aligner_path)
    assert " ".join(word.text for word in result.words) == item["text"] == result.text
    times = [time for word in result.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= result.duration
    assert all(s.flags == () and s.words for s in result.segments)
    assert {round(w.confidence, 6) for w in result.words} == {round(s.confidence, 6) for s in result.segments}
    with pytest.raises(OptionError, match="name an aligner"):
        asr().transcribe(folder / item["audio"], timestamps="word")


@pytest.mark.weights
def test_the_aligner_gives_words_to_another_family(
    gguf: Callable[[str, str], Path], jfk_path: Path, aligner_path: Path
) -> None:
    whisper = rustasr.load_model(gguf("tiny.en", "f32"), device="cpu", threads=THREADS)
    plain = whisper.transcribe(jfk_path)
    aligned = whisper.transcribe(jfk_path, align=aligner_path)
    assert aligned.text == plain.text
    assert [word.text for word in aligned.words] == plain.text.split()
    told: list[rustasr.PartialText] = []
    whisper.transcribe(jfk_path, on_text=told.append)
    assert [text.text for text in told] == [segment.text for segment in plain.segments]


def test_a_model_in_the_others_place_is_refused(
    micro_gguf: MicroGguf, asr: Load, folder: Path, aligner_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="does not transcribe"):
        rustasr.load_model(aligner_path, device="cpu")
    with pytest.raises(UnsupportedModelError, match="expected a forced aligner"):
        asr().transcribe(folder / "dev" / "zh_danji.flac", align=micro_gguf(q.ASR, "f32"))


# --- command line


def test_the_command_line(micro_gguf: MicroGguf, folder: Path, aligner_path: Path, tmp_path: Path) -> None:
    item = q.item(folder, "de_testname")
    base = ["transcribe", str(folder / item["audio"]), "-m", str(micro_gguf(q.ASR, "f32")), "-d", "cpu"]
    result = CliRunner().invoke(main, [*base, "--model-type", "qwen3", "--stream-text"])
    assert result.exit_code == 0, result.output
    assert "".join(result.stdout.split()) == "".join(item["text"].split())
    assert result.stderr.startswith(item["text"][:12])
    out = tmp_path / "out.srt"
    result = CliRunner().invoke(main, [*base, "-o", str(out), "--align", str(aligner_path)])
    assert result.exit_code == 0 and "estimate" not in result.stderr
    assert out.read_text(encoding="utf-8").count("-->") >= 1
    result = CliRunner().invoke(main, [*base, "--best-of", "3"])
    assert result.exit_code == 2 and "Qwen has no option 'best_of'" in result.stderr
    result = CliRunner().invoke(main, [*base, "--model-type", "whisper"])
    assert result.exit_code == 3 and "expected a whisper model, found qwen3" in result.stderr
