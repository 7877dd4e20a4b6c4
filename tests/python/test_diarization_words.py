"""Words go to speakers, and no word is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.diarization.words import interleaved, with_speakers
from rustasr.segments import split
from rustasr.types import Segment, TranscriptionResult, Turn, Word


def spoken(text: str, start: float = 0.0, step: float = 1.0) -> Segment:
    """A segment whose words take `step` seconds each."""
    words = tuple(
        Word(start + i * step, start + (i + 1) * step, word, 0.5 + 0.1 * i)
        for i, word in enumerate(text.split())
    )
    return Segment(start, start + len(words) * step, text, words, tokens=(1, 2, 3))


def result(*segments: Segment) -> TranscriptionResult:
    text = " ".join(segment.text for segment in segments)
    return TranscriptionResult(text, segments, "en", 100.0, 1.0, "m")


def told(made: TranscriptionResult) -> list[tuple[str | None, str]]:
    return [(segment.speaker, segment.text) for segment in made.segments]


def test_a_segment_is_split_where_the_speaker_changes() -> None:
    made = with_speakers(
        result(spoken("Hello,  you there? - Yes.")), [Turn(3.1, 5.0, "B"), Turn(0, 3.1, "A")]
    )
    assert told(made) == [("A", "Hello,  you there?"), ("B", "- Yes.")]
    first, second = made.segments
    assert (first.start, first.end, second.start, second.end) == (0.0, 3.0, 3.0, 5.0)
    assert first.confidence == pytest.approx(0.6)
    assert first.tokens == ()
    assert made.turns == (Turn(0, 3.1, "A"), Turn(3.1, 5.0, "B"))


def test_a_segment_of_one_speaker_stays_as_it_was() -> None:
    segment = spoken("one two three")
    made = with_speakers(result(segment), [Turn(0.5, 2.0, "A"), Turn(50, 60, "B")])
    (found,) = made.segments
    assert (found.text, found.tokens, found.words, found.speaker) == (
        segment.text,
        (1, 2, 3),
        segment.words,
        "A",
    )


@pytest.mark.parametrize(
    ("turns", "speaker"),
    [
        ([Turn(0, 0.4, "A"), Turn(0.4, 1, "B")], "B"),  # most of it
        ([Turn(0, 1, "A"), Turn(0, 1, "B")], "A"),  # both: the first
        ([Turn(1.5, 2, "A"), Turn(1.4, 2, "B")], "B"),  # the nearest
        ([Turn(2.1, 3, "A")], None),  # too far
        ([], None),
        ([Turn(0, 0.3, "A"), Turn(0.3, 0.7, "B"), Turn(0.7, 1, "A")], "A"),  # taken together
    ],
)
def test_a_word_is_whose_turn_it_lies_in(turns: list[Turn], speaker: str | None) -> None:
    assert with_speakers(result(spoken("word")), turns).segments[0].speaker == speaker


def test_of_two_who_talk_at_once_the_one_who_was_speaking_goes_on() -> None:
    turns = [Turn(0, 3, "B"), Turn(1, 3, "A")]
    assert told(with_speakers(result(spoken("one two three")), turns)) == [("B", "one two three")]
    later = with_speakers(result(spoken("one"), spoken("two", 1.0)), turns)
    assert [speaker for speaker, _ in told(later)] == ["B", "B"]


def test_a_long_turn_is_found_behind_short_ones() -> None:
    turns = [Turn(0, 90, "A"), *(Turn(t, t + 0.5, "B") for t in range(1, 60, 2))]
    assert with_speakers(result(spoken("word", 80.0)), turns).segments[0].speaker == "A"


def test_a_segment_without_words_goes_to_the_speaker_of_most_of_it() -> None:
    made = with_speakers(result(Segment(0, 10, "text")), [Turn(0, 4, "A"), Turn(4, 10, "B")])
    assert told(made) == [("B", "text")]


def test_text_that_is_not_its_words_is_written_from_the_words() -> None:
    segment = Segment(0, 2, "2 dogs", (Word(0, 1, "two", 1.0), Word(1, 2, "dogs", 1.0)))
    assert [part.text for part in split(segment, [1])] == ["two", "dogs"]


def test_unspaced_text_is_cut_between_its_characters() -> None:
    words = tuple(Word(i, i + 1, char, 1.0) for i, char in enumerate("我们好"))
    assert [part.text for part in split(Segment(0, 3, "我们，好。", words), [2])] == ["我们，", "好。"]


cuts = st.lists(st.integers(1, 11), unique=True, max_size=5).map(sorted)


@given(st.lists(st.sampled_from(["so,", "yes", "it", "is.", "-", "我"]), min_size=12, max_size=12), cuts)
def test_splitting_keeps_every_character(words: list[str], places: list[int]) -> None:
    segment = spoken(" ".join(words))
    parts = split(segment, places)
    assert " ".join(part.text for part in parts) == segment.text
    assert tuple(word for part in parts for word in part.words or ()) == segment.words
    assert [len(part.words or ()) for part in parts] == [
        b - a for a, b in zip([0, *places], [*places, 12], strict=True)
    ]
    assert parts[0].start == segment.start
    assert parts[-1].end == segment.end


turns = st.lists(
    st.builds(
        lambda start, length, name: Turn(start / 4, (start + length) / 4, name),
        st.integers(0, 60),
        st.integers(1, 20),
        st.sampled_from("ABC"),
    ),
    max_size=10,
)


@given(turns, st.integers(1, 12), st.integers(0, 8))
def test_giving_words_to_speakers_loses_none(given_turns: list[Turn], n: int, start: int) -> None:
    before = result(spoken(" ".join(f"w{i}" for i in range(n)), start / 2))
    made = with_speakers(before, given_turns)
    assert made.words == before.words
    assert " ".join(segment.text for segment in made.segments) == before.text
    for a, b in zip(made.segments, made.segments[1:], strict=False):
        assert a.speaker != b.speaker
        assert a.end <= b.start


def test_an_interjection_splits_what_it_falls_into() -> None:
    long, yes = spoken("one two three four five"), spoken("yes", 1.5)
    sides = [
        TranscriptionResult("", (long,), "en", 5, 1, "m"),
        TranscriptionResult("", (yes,), "en", 5, 1, "m"),
    ]
    named = [with_speakers(side, [Turn(0, 9, name)]) for side, name in zip(sides, "AB", strict=True)]
    found = list(interleaved(segment for side in named for segment in side.segments))
    assert [(s.speaker, s.text) for s in found] == [("A", "one two"), ("B", "yes"), ("A", "three four five")]


def test_sides_without_words_are_put_in_order() -> None:
    segments = [
        Segment(0, 5, "a", speaker="A"),
        Segment(6, 9, "c", speaker="A"),
        Segment(2, 3, "b", speaker="B"),
    ]
    assert [segment.text for segment in interleaved(segments)] == ["a", "b", "c"]
