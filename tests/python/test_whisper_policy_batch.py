"""Several windows at once, and what of all this the caller sees.

The network is a script (`whisper_script`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_script import (
    PREV,
    SILENCE,
    START,
    UNSURE,
    Answer,
    Letters,
    Script,
    drafts_of,
    evenly,
    recording,
    say,
    seeks,
    spans,
)

from rustasr.families.whisper_longform import cut_at_quiet_places
from rustasr.families.whisper_result import Collector
from rustasr.families.whisper_words import Draft
from rustasr.repetition import flagged
from rustasr.types import Segment


def test_cuts_lie_in_the_quietest_place_of_the_last_seconds() -> None:
    loudness = np.zeros(8000, np.float32)
    loudness[1000:1200] = -9  # quieter, but too early
    loudness[2600:2640] = -5
    loudness[2800:2810] = -8  # quieter, but too short
    loudness[5200:5260] = -5
    pieces = cut_at_quiet_places(recording(8000, loudness), 0, 8000)
    assert [p[0] for p in pieces[1:]] == [p[1] for p in pieces[:-1]]
    assert 2600 < pieces[0][1] < 2640
    assert 5200 < pieces[1][1] < 5260
    assert pieces[-1][1] == 8000


@settings(deadline=None)
@given(st.integers(0, 12000), st.integers(0, 3000), st.integers(0, 2**32 - 1))
def test_cuts_cover_the_recording_with_windows_that_fit(n_frames: int, start: int, seed: int) -> None:
    loudness = np.random.default_rng(seed).normal(size=n_frames).astype(np.float32)
    pieces = cut_at_quiet_places(recording(n_frames, loudness), start, n_frames)
    at_frame = start
    for first, end in pieces:
        assert first == at_frame < end <= first + 3000
        at_frame = end
    assert at_frame == max(start, n_frames) or not pieces


def wordy(seek: int, _: Any) -> Answer:
    """Each window writes where it is."""
    return Answer(say(0, f"from {seek}", 4, 4, "to its end"))


@pytest.mark.parametrize("batch_size", [2, 3, 8, 50])
def test_the_batch_size_does_not_change_the_text(batch_size: int) -> None:
    mel = recording(20000)
    reference = drafts_of(Script(wordy), mel, batch_size=2)
    script = Script(wordy)
    found = drafts_of(script, mel, batch_size=batch_size)
    assert spans(found) == spans(reference)
    assert len({d.text for d in found if d.text.startswith("from")}) == len(set(seeks(script)))
    assert max(map(len, script.encoded)) == min(batch_size, len(cut_at_quiet_places(mel, 0, 20000)))
    assert [d.start for d in found] == sorted(d.start for d in found)


def test_windows_of_a_batch_see_the_initial_prompt_and_nothing_else() -> None:
    script = Script(wordy)
    drafts_of(script, recording(9000), batch_size=4, initial_prompt="pq")
    assert set(map(tuple, script.prompts)) == {(PREV, *Letters().encode(" pq"), *START)}


def test_the_last_sentence_of_a_batched_window_is_kept_without_its_timestamp() -> None:
    found = drafts_of(Script(lambda *_: Answer(say(0, "one", 4, 4, "two"))), recording(1500), batch_size=4)
    assert spans(found) == [(0, 4, "one"), (4, 15, "two")]


def test_sound_after_the_last_pair_of_timestamps_is_read_too() -> None:
    """Nothing is dropped at the border of a batched window; silence there is not read again."""
    loud = np.full(2800, -8, np.float32)
    loud[:2500] = 0
    answers = {
        0: Answer(say(0, "one", 10, 10)),
        1000: Answer(say(0, "two", 14, 14)),
        2400: Answer(say(0, "three", 1, 1)),
    }
    script = Script(lambda seek, _: answers[seek])
    found = drafts_of(script, recording(2800, loud), batch_size=4)
    assert seeks(script) == [0, 1000, 2400]
    assert [d.text for d in found] == ["one", "two", "three"]
    script = Script(lambda seek, _: Answer(say(0, "one", 26, 26)))
    assert len(drafts_of(script, recording(2800, loud), batch_size=4)) == 1
    assert seeks(script) == [0]


def test_a_text_that_ran_out_of_tokens_is_read_on_from_its_last_timestamp() -> None:
    answers = {0: Answer(say(0, "one", 10, 10, "cut of"), complete=False), 1000: Answer(say(0, "two", 4))}
    script = Script(lambda seek, _: answers[seek])
    assert [d.text for d in drafts_of(script, recording(2800), batch_size=4)] == ["one", "two"]


def test_batched_silence_gives_nothing() -> None:
    assert drafts_of(Script(lambda *_: SILENCE), recording(9000), batch_size=4) == []


def test_batched_words_belong_to_their_windows() -> None:
    script = Script(lambda *_: Answer(say(0, " ab", 5)), evenly(2.0, 0.2))
    found = drafts_of(script, recording(9000), batch_size=4, timestamps="word")
    starts = [first for first, _ in cut_at_quiet_places(recording(9000), 0, 9000)]
    assert [d.words[0].start for d in found] == pytest.approx([s / 100 + 2.0 for s in starts], abs=0.006)


def collected(drafts: Sequence[Draft], duration: float = 100.0) -> tuple[Segment, ...]:
    tokenizer: Any = Letters()
    collector = Collector(tokenizer)
    collector.duration = duration
    collector.add(drafts)
    return collector.finished()


def test_segments_stop_at_the_end_of_the_recording() -> None:
    mel = recording(292)
    found = collected(drafts_of(Script(lambda *_: Answer(say(0, "one", 3))), mel), 2.925)
    assert [(s.start, s.end) for s in found] == [(0.0, 2.925)]


def test_a_segment_tells_how_far_to_trust_it() -> None:
    (segment,) = collected(drafts_of(Script(lambda *_: UNSURE), recording(300)))
    assert segment.confidence == pytest.approx(np.exp(-1.2))
    assert (segment.avg_logprob, segment.temperature, segment.no_speech_prob) == (-1.2, 0.0, 0.01)
    assert segment.flags == ("low_confidence",)
    assert segment.text == "perhaps"
    assert segment.words is None


def texts(*written: str) -> Iterator[Segment]:
    for i, text in enumerate(written):
        yield Segment(i, i + 1, text)


def test_a_loop_over_segments_is_flagged_and_kept() -> None:
    found = flagged(list(texts("a", "Thank you.", "thank you", "Thank you!", "Thank you.", "b", "b", "b")))
    assert [s.flags for s in found] == [()] + [("repetition",)] * 4 + [()] * 3
    assert len(flagged([])) == 0
