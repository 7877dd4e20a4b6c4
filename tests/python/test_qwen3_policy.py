"""What Qwen3-ASR's answers become: segments, retries of answers that run away, options, streams.

The network is a script (`qwen3_script`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qwen3_script import ADDED, Call, core_model, no_core, tokens_of

from rustasr.errors import Cancelled, OptionError, UnsupportedModelError
from rustasr.families.qwen3_asr import Qwen3Asr, QwenOptions
from rustasr.families.qwen3_decode import LOOP_REPEATS, LOOP_TOKENS, RETRY_TEMPERATURES, without_loop
from rustasr.families.qwen3_result import sentences
from rustasr.progress import PartialText, Progress

RATE = 16000
__all__ = ["no_core"]
pytestmark = pytest.mark.usefixtures("no_core")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def model_saying(script: Callable[[Call], Any], opening: float = 0.0) -> Qwen3Asr:
    return Qwen3Asr(core_model(script, opening=opening), name="scripted")


def calls_of(model: Any) -> list[list[Call]]:
    return [round_ for session in model.core.sessions for round_ in session.calls]


ENGLISH = "language English<asr_text>"

# --- segments


def test_sentences_share_the_window_and_say_so() -> None:
    result = model_saying(lambda call: f"{ENGLISH}One. Two is longer!  And three").transcribe(noise(10))
    assert result.text == "One. Two is longer!  And three"
    assert [segment.text for segment in result.segments] == ["One.", "Two is longer!", "And three"]
    assert result.language == "en" and {segment.language for segment in result.segments} == {"en"}
    times = [time for segment in result.segments for time in (segment.start, segment.end)]
    assert times == sorted(times) and (times[0], times[-1]) == (0.0, 10.0)
    assert all(segment.flags == ("estimated_times",) for segment in result.segments)
    assert all(segment.confidence == pytest.approx(math.exp(-0.1)) for segment in result.segments)
    assert "".join(bytes(segment.tokens).decode() for segment in result.segments) == result.text
    assert result.segments[1].words is None


@pytest.mark.parametrize(("sure", "flags"), [(0.81, ()), (0.79, ("low_confidence",))])
def test_what_follows_an_unsure_opening_is_flagged(sure: float, flags: tuple[str, ...]) -> None:
    model = model_saying(lambda call: f"{ENGLISH}One. Two.", math.log(sure))
    assert {s.flags for s in model.transcribe(noise(10)).segments} == {(*flags, "estimated_times")}
    # A forced language is not asked for.
    assert {s.flags for s in model.transcribe(noise(10), language="en").segments} == {("estimated_times",)}


def test_an_answer_without_opening_is_flagged() -> None:
    result = model_saying(lambda call: "One. Two.").transcribe(noise(10))
    assert {s.flags for s in result.segments} == {("low_confidence", "estimated_times")}


def test_no_timestamps_means_a_segment_for_each_window() -> None:
    model = model_saying(lambda call: f"{ENGLISH}One. Two.")
    result = model.transcribe(noise(10), timestamps="none")
    assert [(s.text, s.start, s.end, s.flags) for s in result.segments] == [("One. Two.", 0.0, 10.0, ())]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("One", ["One"]),
        ("It costs 3.50 now. Really?! Yes…", ["It costs 3.50 now.", " Really?!", " Yes…"]),
        ('He said "no." Then left.', ['He said "no."', " Then left."]),
        ("你好。我是「小明。」再见", ["你好。", "我是「小明。」", "再见"]),
        ("End.  ", ["End.  "]),
    ],
)
def test_where_sentences_end(text: str, parts: list[str]) -> None:
    assert [text[first:last] for first, last in sentences(text)] == parts


def test_silence_and_splinters_are_not_asked_about() -> None:
    model = model_saying(lambda call: f"{ENGLISH}never")
    for samples in (np.zeros(RATE, np.float32), noise(0.05), np.full(RATE, 0.25, np.float32)):
        result = model.transcribe(samples)
        assert (result.text, result.segments, result.language) == ("", (), "")
        assert result.duration == len(samples) / RATE
    assert calls_of(model) == []


def test_nothing_said_is_no_segment() -> None:
    result = model_saying(lambda call: "language None<asr_text>").transcribe(noise(3))
    assert (result.text, result.segments, result.language) == ("", (), "")


def test_short_sound_is_followed_by_silence_and_loud_sound_is_brought_down() -> None:
    model = model_saying(lambda call: f"{ENGLISH}a")
    model.transcribe(4 * noise(0.25))
    (clip,) = model.core.sessions[0].clips
    assert len(clip) == 8000 and np.all(clip[4000:] == 0)
    assert np.abs(clip).max() == pytest.approx(1.0) and clip[0] == pytest.approx(
        4 * noise(0.25)[0] / 2, rel=0.01
    )
    model.transcribe(noise(1))
    assert np.array_equal(model.core.sessions[0].clips[1], noise(1))


# --- long recordings


def numbered(language: str = "English") -> Callable[[Call], str]:
    heard: list[int] = []

    def script(call: Call) -> str:
        heard.append(len(heard) + 1)
        return f"language {language}<asr_text>part {heard[-1]}."

    return script


def test_windows_are_read_in_rounds_and_joined() -> None:
    model = model_saying(numbered())
    told: list[Progress] = []
    result = model.transcribe(noise(100), window_seconds=20.0, batch_size=2, progress=told.append)
    n = len(result.segments)
    assert result.text == " ".join(f"part {i}." for i in range(1, n + 1))
    assert [len(round_) for round_ in calls_of(model)] == [2] * (n // 2) + [1] * (n % 2)
    assert sum(len(call.samples) for round_ in calls_of(model) for call in round_) == 100 * RATE
    assert [p.done_s for p in told] == sorted(p.done_s for p in told)
    assert told[-1].done_s == pytest.approx(100) and len(told[-1].segments_so_far) == n
    assert all(a.end <= b.start for a, b in zip(result.segments, result.segments[1:], strict=False))


def test_unspaced_languages_are_joined_without_a_space() -> None:
    texts = iter(["language Chinese<asr_text>你好。", "language Chinese<asr_text>再见。", f"{ENGLISH}Bye."])
    result = model_saying(lambda call: next(texts)).transcribe(noise(7.5), window_seconds=3.0)
    assert result.text == "你好。再见。 Bye."
    assert result.language == "zh"
    assert [segment.language for segment in result.segments] == ["zh", "zh", "en"]
    assert any("several languages" in warning for warning in result.warnings)


def test_clips_keep_their_place() -> None:
    result = model_saying(numbered()).transcribe(noise(30), clip_timestamps=(4.0, 6.0, 20.0))
    assert [(s.start, s.end) for s in result.segments] == [(4.0, 6.0), (20.0, 30.0)]


# --- prompts and options


def test_context_hotwords_and_language_are_in_the_prompt() -> None:
    model = model_saying(lambda call: "Hallo")
    result = model.transcribe(noise(1), language="de", context="Bahn", hotwords=("Weiche", "Gleis 3"))
    assert (result.text, result.language) == ("Hallo", "de")
    prompt = list(calls_of(model)[0][0].prompt)
    assert bytes(t for t in prompt if t < 256).decode() == (
        "system\nBahn\nWeiche Gleis 3\nuser\n\nassistant\nlanguage German"
    )
    assert prompt[-1] == ADDED["asr_text"]
    model.transcribe(noise(1), initial_prompt="Zug", hotwords="a, b")
    assert b"system\nZug\na, b" in bytes(t for t in calls_of(model)[1][0].prompt if t < 256)


def test_room_for_the_answer_grows_with_the_window() -> None:
    model = model_saying(lambda call: f"{ENGLISH}a")
    model.transcribe(noise(10))
    model.transcribe(noise(10), max_tokens=7)
    assert [round_[0].options.max_tokens for round_ in calls_of(model)] == [24 * 10 + 64, 7]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "translate"}, "can only transcribe"),
        ({"language": "klingon"}, "knows en, de, zh, sv"),
        ({"language": "fr"}, "knows en, de, zh, sv"),
        ({"timestamps": "word"}, "--align qwen3-forced-aligner-0.6b"),
        ({"timestamps": "none", "align": "x"}, "leave one of them out"),
        ({"timestamps": "never"}, "timestamps: expected one of"),
        ({"context": "a", "initial_prompt": "b"}, "another name of `context`"),
        ({"temperature": (0.0, 0.2)}, "temperature: expected a number"),
        ({"temperature": 2.5}, "temperature: expected 0 to 2"),
        ({"temperature": 0.5, "beam_size": 4}, "beams need temperature 0"),
        ({"beam_size": 65}, "beam_size"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"window_seconds": 0.5}, "window_seconds: expected 1 to 1200"),
        ({"window_seconds": 1201}, "window_seconds: expected 1 to 1200"),
        ({"clip_timestamps": (3.0, 1.0)}, "clip_timestamps"),
        ({"best_of": 3}, "Qwen has no option 'best_of'"),
        ({"condition_on_previous_text": True}, "no option 'condition_on_previous_text'"),
    ],
)
def test_what_it_cannot_honour_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model_saying(numbered()).transcribe(noise(1), **given)


def test_sequences_of_any_kind_are_options() -> None:
    options = QwenOptions(hotwords=["a", "b"], clip_timestamps=iter([1.0, 2.0]))  # type: ignore[arg-type]
    assert options.hotwords == ("a", "b") and options.clip_timestamps == (1.0, 2.0)
    assert hash(options) == hash(QwenOptions(hotwords=("a", "b"), clip_timestamps=(1.0, 2.0)))


def test_an_aligner_does_not_transcribe() -> None:
    with pytest.raises(UnsupportedModelError, match="is a forced aligner"):
        Qwen3Asr(core_model(numbered(), "align"), name="aligner")


# --- answers that run away

LOOP = f"{ENGLISH}well " + "no " * 40


def runs_away(longer_than_s: float = 0.0, below: float = 0.0) -> Callable[[Call], Any]:
    """Loops in windows that are longer than so much, or below a temperature."""

    def script(call: Call) -> Any:
        seconds = len(call.samples) / RATE
        if seconds > longer_than_s or call.options.temperature < below:
            return LOOP, "loop"
        return f"{ENGLISH}heard {len(call.samples)}."

    return script


def test_a_loop_is_decoded_again_in_halves() -> None:
    model = model_saying(runs_away(longer_than_s=12))
    result = model.transcribe(noise(20))
    rounds = calls_of(model)
    assert [len(round_) for round_ in rounds] == [1, 2]
    halves = [len(call.samples) for call in rounds[1]]
    assert sum(halves) == 20 * RATE
    assert result.text == " ".join(f"heard {n}." for n in halves)
    assert all(segment.flags == ("repetition", "estimated_times") for segment in result.segments)
    assert result.segments[1].start == pytest.approx(halves[0] / RATE, abs=1e-3)


def test_only_the_window_that_loops_is_decoded_again() -> None:
    said = iter([f"{ENGLISH}one.", (LOOP, "loop"), f"{ENGLISH}two.", f"{ENGLISH}three."])
    model = model_saying(lambda call: next(said))
    result = model.transcribe(noise(40), window_seconds=20.0, batch_size=2)
    assert result.text == "one. two. three."
    assert ["repetition" in s.flags for s in result.segments] == [False, True, True]


def test_a_short_window_that_loops_is_sampled() -> None:
    model = model_saying(runs_away(longer_than_s=100, below=RETRY_TEMPERATURES[1]))
    result = model.transcribe(noise(6))
    assert [round_[0].options.temperature for round_ in calls_of(model)] == [0.0, *RETRY_TEMPERATURES]
    assert result.text == f"heard {6 * RATE}."
    assert result.segments[0].flags[0] == "repetition"
    assert result.segments[0].temperature == RETRY_TEMPERATURES[1]


def test_a_loop_that_nothing_breaks_is_cut_to_one_instance() -> None:
    model = model_saying(runs_away())
    result = model.transcribe(noise(6))
    assert result.text == "well no"
    assert result.segments[0].flags[0] == "repetition"
    assert len(calls_of(model)) == 1 + len(RETRY_TEMPERATURES)
    long = model.transcribe(noise(60)).text.split()
    assert set(long) == {"well", "no"} and 16 <= len(long) <= 32  # pieces of 4 to 8 s, two words in each


def test_an_answer_that_fills_its_room_ran_away_too() -> None:
    model = model_saying(lambda call: ENGLISH + "".join(chr(97 + i * i % 26) for i in range(5000)))
    result = model.transcribe(noise(6))
    assert result.segments[0].flags == ("repetition", "truncated", "estimated_times")
    assert len(calls_of(model)) == 1 + len(RETRY_TEMPERATURES)


def test_max_tokens_is_the_callers_wish() -> None:
    model = model_saying(lambda call: f"{ENGLISH}Hello world, how are you")
    result = model.transcribe(noise(6), max_tokens=len(tokens_of(f"{ENGLISH}Hello")))
    assert result.text == "Hello"
    assert result.segments[0].flags == ("truncated", "estimated_times")
    assert len(calls_of(model)) == 1


def test_a_repetition_that_ended_by_itself_is_cut_and_flagged() -> None:
    result = model_saying(lambda call: f"{ENGLISH}well " + "no " * 25 + "yes").transcribe(noise(6))
    assert result.text == "well no yes"
    assert result.segments[0].flags == ("repetition", "estimated_times")
    assert result.segments[0].tokens == ()


@pytest.mark.parametrize("period", [1, 3, 8, 20])
def test_what_is_kept_of_a_loop(period: int) -> None:
    before, pattern = [900, 901, 902], list(range(period))
    times = max(LOOP_REPEATS, -(-LOOP_TOKENS // period))
    assert without_loop(before + pattern * times) == before + pattern
    # Stopped in the middle of an instance: the pattern is the one that the tail shows.
    cut = without_loop(before + pattern * (times + 1) + pattern[: period // 2])
    assert cut == before + pattern
    assert without_loop(before + pattern * (LOOP_REPEATS - 1)) == before + pattern * (LOOP_REPEATS - 1)


# --- text as it comes in


def test_text_is_told_while_it_grows() -> None:
    told: list[PartialText] = []
    model_saying(lambda call: f"{ENGLISH}Hi you.").transcribe(noise(3), on_text=told.append)
    assert [text.text for text in told] == ["H", "Hi", "Hi y", "Hi yo", "Hi you", "Hi you.", "Hi you."]
    assert [text.final for text in told] == [False] * 6 + [True]
    assert {text.start for text in told} == {0.0}


def test_text_that_was_taken_back_is_replaced() -> None:
    told: list[PartialText] = []
    result = model_saying(runs_away(longer_than_s=12)).transcribe(noise(20), on_text=told.append)
    final = [text for text in told if text.final]
    assert " ".join(text.text for text in final) == result.text
    assert told[0].start == final[0].start == 0.0 and final[1].start > 6
    assert any(text.text.startswith("well no no") for text in told)


def test_a_beams_text_comes_at_the_end() -> None:
    told: list[PartialText] = []
    model_saying(lambda call: f"{ENGLISH}Hi.").transcribe(noise(3), beam_size=4, on_text=told.append)
    assert told == [PartialText(0.0, "Hi.", final=True)]


def test_a_stream_gives_text_and_then_the_result() -> None:
    model = model_saying(numbered())
    stream = model.stream(noise(40), window_seconds=20.0, batch_size=1)
    final = [text.text for text in stream if text.final]
    assert " ".join(final) == stream.result().text == "part 1. part 2."
    assert list(stream) == []


def test_errors_come_out_of_a_stream() -> None:
    stream = model_saying(numbered()).stream(noise(3), language="klingon")
    with pytest.raises(OptionError, match="klingon"):
        next(stream)
    with pytest.raises(OptionError, match="klingon"):
        stream.result()


def test_a_closed_stream_stops_the_work() -> None:
    model = model_saying(numbered())
    with model.stream(noise(400), window_seconds=2.0, batch_size=1) as stream:
        first = next(stream)
    assert first.text
    with pytest.raises(Cancelled) as stopped:
        stream.result()
    assert stopped.value.partial is not None
    assert len(calls_of(model)) < 190
    assert list(stream) == []


# --- interruption


def test_a_cancelled_run_keeps_what_is_finished() -> None:
    model = model_saying(numbered())

    def stop(progress: Progress) -> None:
        if len(progress.segments_so_far) >= 2:
            model.cancel()

    with pytest.raises(Cancelled) as caught:
        model.transcribe(noise(100), window_seconds=20.0, batch_size=2, progress=stop)
    partial = caught.value.partial
    assert partial is not None and partial.text == "part 1. part 2."
    assert any("interrupted" in warning for warning in partial.warnings)
    assert model.core.sessions[0].cancelled
