"""Where Whisper reads next: timestamps, words, silence, hallucinations.

The network is a script (`whisper_script`).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_script import (
    BEGIN,
    LADDER,
    LOOP,
    PREV,
    SILENCE,
    START,
    Answer,
    Letters,
    Script,
    drafts_of,
    evenly,
    recording,
    say,
    seeks,
    spans,
    transcriber,
)

from rustasr.families.whisper_decode import Decoding
from rustasr.families.whisper_longform import clip_frames, split_at_timestamps
from rustasr.families.whisper_words import Draft


def split(tokens: list[int], seek: int = 1000, size: int = 3000) -> Any:
    tokenizer: Any = Letters()
    return split_at_timestamps(0, seek, size, Decoding(tuple(tokens), "", 0.0, -0.2, 0.0, 1.0), tokenizer)


def test_a_pair_of_timestamps_closes_a_segment_and_the_rest_is_read_again() -> None:
    window = split(say(0, "one", 2.5, 2.5, "two", 4, 4.2, "cut off"))
    assert spans(window.drafts) == [(10.0, 12.5, "one"), (12.5, 14.0, "two")]
    assert (window.next_seek, window.single_end) == (1000 + 400, False)
    assert window.drafts[1].tokens == say(2.5, "two", 4)


def test_a_single_timestamp_at_the_end_closes_the_window() -> None:
    window = split(say(0, "one", 2.5, 2.5, "two", 4))
    assert spans(window.drafts) == [(10.0, 12.5, "one"), (12.5, 14.0, "two")]
    assert (window.next_seek, window.single_end) == (4000, True)


@pytest.mark.parametrize(
    ("tokens", "end"),
    [
        (say(0, "one", 5), 15.0),
        (say(0, "one"), 15.8),  # 0.00 says nothing: the window's own length
        (say("one"), 15.8),
        (say(0.4, "one"), 10.4),
        ([], 15.8),
    ],
)
def test_without_a_pair_the_window_is_one_segment(tokens: list[int], end: float) -> None:
    window = split(tokens, size=580)
    assert len(window.drafts) == 1
    assert (window.drafts[0].start, window.drafts[0].end) == (10.0, pytest.approx(end))
    assert window.next_seek == 1580


@given(st.lists(st.one_of(st.integers(0, 1500).map(lambda t: BEGIN + t), st.integers(97, 122)), max_size=60))
def test_no_closed_segment_loses_tokens(tokens: list[int]) -> None:
    is_time = [t >= BEGIN for t in tokens]
    if tokens and not is_time[0]:
        tokens, is_time = [BEGIN, *tokens], [True, *is_time]
    window = split(tokens)
    kept = [t for d in window.drafts for t in d.tokens]
    assert kept == tokens[: len(kept)]
    rest = tokens[len(kept) :]
    assert not any(a >= BEGIN and b >= BEGIN for a, b in itertools.pairwise(rest))


def test_reading_goes_on_at_the_last_timestamp() -> None:
    answers = {
        0: Answer(say(0, "one", 20, 20, "two", 27, 27)),
        2700: Answer(say(0, "three", 30, 30)),
        5700: Answer(say(0, "four", 2.6)),
    }
    script = Script(lambda seek, _: answers[seek])
    found = drafts_of(script, recording(6000))
    assert script.encoded == [[(0, 3000)], [(2700, 3000)], [(5700, 300)]]
    assert spans(found) == [(0, 20, "one"), (20, 27, "two"), (27, 57, "three"), (57, 59.6, "four")]


def test_the_next_window_sees_what_was_written_with_its_timestamps() -> None:
    script = Script(lambda seek, _: Answer(say(0, "ab", 30, 30)))
    drafts_of(script, recording(6000))
    assert script.prompts == [START, [PREV, *say(0, "ab", 30), *START]]


def test_without_conditioning_it_sees_nothing() -> None:
    script = Script(lambda seek, _: Answer(say(0, "ab", 30, 30)))
    drafts_of(script, recording(9000), condition_on_previous_text=False, initial_prompt="pq")
    assert script.prompts == [[PREV, *Letters().encode(" pq"), *START], START, START]


@pytest.mark.parametrize(("temperature", "seen"), [(0.4, True), (0.6, False)])
def test_a_window_that_needed_a_high_temperature_is_not_shown_to_the_next(
    temperature: float, seen: bool
) -> None:
    def reply(seek: int, options: Any) -> Answer:
        good = seek > 0 or options.temperature >= temperature
        return Answer(say(0, "ab", 30, 30)) if good else LOOP

    script = Script(reply)
    drafts_of(script, recording(6000), temperature=LADDER)
    assert script.prompts[-1] == ([PREV, *say(0, "ab", 30), *START] if seen else START)


def test_silence_is_skipped_window_by_window() -> None:
    script = Script(lambda seek, _: SILENCE if seek < 6000 else Answer(say(0, "now", 3)))
    assert spans(drafts_of(script, recording(7000))) == [(60, 63, "now")]
    assert seeks(script) == [0, 3000, 6000]


def test_digital_silence_is_not_even_decoded() -> None:
    mel = recording(9000)
    mel.raw(0, 9000)[3000:6000] = -10.0
    script = Script(lambda seek, _: Answer(say(0, "x", 30, 30)))
    assert [d.start for d in drafts_of(script, mel)] == [0.0, 60.0]
    assert seeks(script) == [0, 6000]


def test_empty_and_instantaneous_segments_are_left_out_and_not_remembered() -> None:
    answers = {0: Answer(say(0, "a", 1, 1, " ", 2, 2, "b", 2, 2, "c", 30, 30)), 3000: Answer(say(0, "d", 2))}
    script = Script(lambda seek, _: answers[seek])
    assert [d.text for d in drafts_of(script, recording(3300))] == ["a", "c", "d"]
    assert script.prompts[1] == [PREV, *say(0, "a", 1), *say(2, "c", 30), *START]


def test_parts_of_the_recording_are_read_where_they_begin_and_end() -> None:
    script = Script(lambda seek, _: Answer(say(0, "x", 1)))
    found = drafts_of(script, recording(9000), clip_timestamps=(10, 15, 40))
    assert script.encoded == [[(1000, 500)], [(4000, 3000)], [(7000, 2000)]]
    assert [round(d.start) for d in found] == [10, 40, 70]


@pytest.mark.parametrize(
    ("points", "clips"),
    [
        ((), [(0, 900)]),
        ((2.0,), [(200, 900)]),
        ((1.0, 2.0, 3.0), [(100, 200), (300, 900)]),
        ((1.0, 2.0, 3.0, 4.0), [(100, 200), (300, 400)]),
        ((5.0, 50.0), [(500, 900)]),
        ((50.0, 60.0), []),
        ((2.0, 2.0), []),
    ],
)
def test_clips_in_frames(points: tuple[float, ...], clips: list[tuple[int, int]]) -> None:
    assert clip_frames(points, 900) == clips


def test_without_timestamps_long_windows_end_in_quiet_places() -> None:
    loudness = np.zeros(6000, np.float32)
    loudness[2500:2560] = -5
    script = Script(lambda seek, _: Answer(say("text")))
    found = drafts_of(script, recording(6000, loudness), timestamps="none")
    first = script.encoded[0][0]
    assert first[0] == 0
    assert 2500 < first[1] < 2560
    assert [d.end for d in found] == [
        first[1] / 100,
        pytest.approx((first[1] + script.encoded[1][0][1]) / 100),
        60.0,
    ]
    assert sum(size for batch in script.encoded for _, size in batch) == 6000


def test_an_encoding_from_language_detection_is_used_once() -> None:
    script = Script(lambda seek, _: Answer(say(0, "x", 30, 30)))
    run = transcriber(script, recording(6000))
    known: Any = [(0, 3000)]
    run.reuse(known)
    assert len([d for drafts, _ in run.run() for d in drafts]) == 2
    assert script.encoded == [[(3000, 3000)]]


@given(
    st.lists(st.lists(st.integers(0, 1500), min_size=0, max_size=6), min_size=1, max_size=8), st.booleans()
)
@settings(deadline=None)
def test_the_loop_ends_whatever_the_timestamps_say(replies: list[list[int]], words: bool) -> None:
    windows = iter(range(10**6))

    def reply(seek: int, _: Any) -> Answer:
        times = replies[next(windows) % len(replies)]
        return Answer([t for time in times for t in (BEGIN + time, ord(" "), ord("x"), BEGIN + time)])

    script = Script(reply, lambda text, seek: [0.02 * i for i in range(len(text) + 1)])
    run = transcriber(script, recording(2000), timestamps="word" if words else "segment").run()
    for rounds, (_, done) in enumerate(run):
        assert 0 <= done <= 2000
        assert rounds < 2500


def test_reading_goes_on_at_the_end_of_the_last_word() -> None:
    answers = {0: Answer(say(0, " ab cd", 20, 20, "cut")), 1060: Answer(say(0, " ef", 5))}
    script = Script(lambda seek, _: answers[seek], evenly(10.0, 0.1))
    found = drafts_of(script, recording(1500), timestamps="word")
    assert seeks(script) == [0, 1060]
    assert [(w.text, w.start, w.end) for w in found[0].words] == [(" ab", 10.0, 10.3), (" cd", 10.3, 10.6)]


def test_a_single_timestamp_at_the_end_goes_before_the_last_word() -> None:
    script = Script(lambda seek, _: Answer(say(0, " ab", 20)), evenly(10.0, 0.1))
    drafts_of(script, recording(3500), timestamps="word")
    assert seeks(script) == [0, 3000]


def test_windows_that_hardly_advance_fall_back_to_the_timestamps() -> None:
    """A word that ends right after the window's start would otherwise be read again for ever."""
    script = Script(lambda seek, _: Answer(say(0, " ab", 20, 20)), lambda text, seek: [0.0, 0.01, 0.02, 0.04])
    drafts_of(script, recording(3000), timestamps="word")
    assert seeks(script) == [0, 4, 8, 2008, 2012, 2016]


def hallucinating(threshold: float | None, times: list[float]) -> tuple[list[Draft], Script]:
    """One window with an improbable word " x" at `times`, and what follows it."""

    def reply(seek: int, _: Any) -> Answer:
        return Answer(say(0, " x", 29, 29)) if seek == 0 else Answer(say(0, " y", 5))

    script = Script(reply, lambda text, seek: times if seek == 0 else [1.0, 1.1, 1.4])
    found = drafts_of(script, recording(4000), timestamps="word", hallucination_silence_threshold=threshold)
    return found, script


def test_a_hallucination_after_a_silence_is_read_again_from_its_start() -> None:
    # The word lasts 0.02 s, so it is improbable; 12 s of silence come before it.
    times = [12.0, 12.0, 12.02]
    found, script = hallucinating(2.0, times)
    assert seeks(script)[:2] == [0, 1200]
    assert all(d.text != " x" for d in found)
    found, script = hallucinating(None, times)
    assert [d.text for d in found][:1] == [" x"]


def test_a_hallucination_at_the_very_start_is_dropped_when_silence_follows() -> None:
    found, script = hallucinating(2.0, [0.5, 0.5, 0.52])
    assert {d.text for d in found} == {" y"}
    assert seeks(script)[:2] == [0, 100]


def test_a_probable_word_is_kept() -> None:
    found, _ = hallucinating(2.0, [12.0, 12.2, 12.5])
    assert [d.text for d in found][:1] == [" x"]


def amid_silence(n_frames: int) -> tuple[list[Draft], Script]:
    """A good word until 10 s, an improbable one until 20 s, a good one until 28 s.

    Alignment leaves no gaps; the pauses show because no word lasts longer than 1.4 s here.
    """

    def reply(seek: int, _: Any) -> Answer:
        return Answer(say(0, " ok", 2, 2, " x", 12, 12, " ok", 29)) if seek == 0 else Answer(say(0, " go", 5))

    def times(text: list[int], seek: int) -> list[float]:
        return [1.0, 1.1, 1.3, 10.0, 10.0, 20.0, 20.3, 20.6, 28.0] if seek == 0 else [1.0, 1.1, 1.3, 1.6]

    script = Script(reply, times, sureness={"x": 0.05, " ": 0.2})
    found = drafts_of(script, recording(n_frames), timestamps="word", hallucination_silence_threshold=2.0)
    return found, script


def test_a_hallucination_amid_silence_is_dropped_and_read_again_from_its_start() -> None:
    found, script = amid_silence(4500)
    assert seeks(script)[:2] == [0, 1860]
    assert [d.text for d in found][:2] == [" ok", " go"]
    assert (found[0].start, found[0].end) == (8.6, 10.0)


def test_a_hallucination_at_the_end_of_the_recording_ends_it() -> None:
    found, script = amid_silence(2100)
    assert seeks(script) == [0]
    assert [d.text for d in found] == [" ok"]
