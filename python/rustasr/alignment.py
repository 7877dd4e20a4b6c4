"""From the time of each token to the times of words and segments: pure functions, no model.

::

    session.align: probability of each text token, and the time at which each begins   [n], [n + 1]
      → word_timings          tokens joined to words (openai-whisper timing.py `find_alignment`)
      → shorten_sentence_ends long pauses that the path gave to a full stop
      → merge_punctuation     quotes and brackets join their word; times stay the word's own
      → assign_words          words to the window's segments, times absolute; segment borders follow
      → settle                never backwards, never overlapping, never outside the recording

Seconds throughout. The rules and their constants are those of openai-whisper's `add_word_timestamps`;
`settle` is ours.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

SENTENCE_END = ".。!！?？"
MAX_MEDIAN_WORD = 0.7  # a median word longer than this is the mark of a poor path
SEGMENT_SLACK = 0.5  # how far a word may reach over its segment's border before the border wins


@dataclass(slots=True)
class WordTiming:
    """A word with its tokens, its span in seconds and the mean probability of its tokens."""

    text: str
    tokens: list[int]
    start: float
    end: float
    probability: float


class TimedSegment(Protocol):
    """What `assign_words` fills: a segment's span (seconds, absolute) and its words."""

    start: float
    end: float
    words: list[WordTiming]


def word_timings(
    words: Sequence[tuple[str, list[int]]], probabilities: Sequence[float], times: Sequence[float]
) -> list[WordTiming]:
    """Words with times from tokens with times.

    `words` are (text, tokens) in order; `probabilities` has one value for each of their tokens and
    `times` one more, the last being where the text ends. ValueError when the counts disagree.
    """
    count = sum(len(tokens) for _, tokens in words)
    if len(probabilities) != count or len(times) != count + 1:
        raise ValueError(
            f"expected {count} probabilities and {count + 1} times for {count} tokens, "
            f"found {len(probabilities)} and {len(times)}"
        )
    timings, first = [], 0
    for text, tokens in words:
        last = first + len(tokens)
        mean = sum(probabilities[first:last]) / max(1, last - first)
        timings.append(WordTiming(text, list(tokens), times[first], times[last], mean))
        first = last
    return timings


def typical_duration(words: Sequence[WordTiming]) -> float:
    """Median length of the words that have any, in seconds, at most 0.7; 0 when none has."""
    durations = [word.end - word.start for word in words if word.end != word.start]
    return min(MAX_MEDIAN_WORD, statistics.median(durations)) if durations else 0.0


def shorten_sentence_ends(words: list[WordTiming], longest: float) -> None:
    """Cut, in place, a pause that was counted into a sentence's full stop or into the word after it."""
    for before, word in itertools.pairwise(words):
        if word.end - word.start > longest:
            if _is_sentence_end(word.text):
                word.end = word.start + longest
            elif _is_sentence_end(before.text):
                word.start = word.end - longest


def merge_punctuation(words: list[WordTiming], prepended: str, appended: str) -> None:
    """Join punctuation to its word, in place.

    The entry that gave its text away stays, empty, so that tokens still add up; the word keeps its
    own times. An opening mark joins the next word only if it begins with a space.
    """
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        mark = words[i]
        if mark.text.startswith(" ") and mark.text.strip() in prepended:
            words[following].text = mark.text + words[following].text
            words[following].tokens = mark.tokens + words[following].tokens
            mark.text, mark.tokens = "", []
        else:
            following = i
    previous = 0
    for i in range(1, len(words)):
        mark = words[i]
        if not words[previous].text.endswith(" ") and mark.text in appended:
            words[previous].text += mark.text
            words[previous].tokens = words[previous].tokens + mark.tokens
            mark.text, mark.tokens = "", []
        else:
            previous = i


def assign_words(
    segments: Sequence[TimedSegment],
    token_counts: Sequence[int],
    words: list[WordTiming],
    *,
    offset: float,
    last_speech: float,
    prepended: str,
    appended: str,
) -> float:
    """Give the words of one window to its segments, and the segments the borders of their words.

    `token_counts` says how many text tokens each segment has; `offset` is the window's place in the
    recording and `last_speech` where the last word before it ended. Returns the new `last_speech`.
    Word times become absolute and are rounded to hundredths. Changes `segments` in place.
    """
    typical = typical_duration(words)
    longest = 2 * typical
    shorten_sentence_ends(words, longest)
    merge_punctuation(words, prepended, appended)

    at = 0
    for segment, count in zip(segments, token_counts, strict=True):
        own, taken = list[WordTiming](), 0
        while at < len(words) and taken < count:
            word = words[at]
            if word.text:
                start, end = round(offset + word.start, 2), round(offset + word.end, 2)
                own.append(replace(word, start=start, end=end))
            taken += len(word.tokens)
            at += 1
        if own:
            _shorten_after_pause(own, last_speech, typical, longest)
            _agree_on_borders(segment, own, typical)
            last_speech = segment.end
        segment.words = own
    return last_speech


def _shorten_after_pause(words: list[WordTiming], last_speech: float, typical: float, longest: float) -> None:
    """The first words after a pause do not stretch back over it."""
    first = words[0]
    if first.end - last_speech <= 4 * typical:
        return
    second = words[1] if len(words) > 1 else None
    if first.end - first.start > longest or (second is not None and second.end - first.start > 2 * longest):
        if second is not None and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0.0, first.end - longest)


def _agree_on_borders(segment: TimedSegment, words: list[WordTiming], typical: float) -> None:
    """A segment takes the span of its words, unless a word reaches far over the segment's own border."""
    first, last = words[0], words[-1]
    if segment.start < first.end and segment.start - SEGMENT_SLACK > first.start:
        first.start = max(0.0, min(first.end - typical, segment.start))
    else:
        segment.start = first.start
    if segment.end > last.start and segment.end + SEGMENT_SLACK < last.end:
        last.end = max(last.start + typical, segment.end)
    else:
        segment.end = last.end


def _is_sentence_end(text: str) -> bool:
    return bool(text) and text in SENTENCE_END


@dataclass(slots=True)
class Ends:
    """Where the last segment and the last word of a recording ended, in seconds."""

    segment: float = 0.0
    word: float = 0.0


def settle(segments: Sequence[TimedSegment], duration: float, after: Ends) -> None:
    """Make times usable, in place: inside [0, duration], each span after the one before it.

    Where two overlap the later one begins where the earlier one ends; `after` says where those before
    ended, and is moved on. Segments and words are two rows of their own: a word may reach over its
    segment's border (`_agree_on_borders`). Spans that are in order do not change.
    """
    for segment in segments:
        _place(segment, after.segment, duration)
        after.segment = segment.end
        for word in segment.words:
            _place(word, after.word, duration)
            after.word = word.end


def _place(span: TimedSegment | WordTiming, after: float, limit: float) -> None:
    # Sums of hundredths carry noise in the last places: milliseconds keep it out.
    span.start = min(max(round(span.start, 3), after), limit)
    span.end = min(max(round(span.end, 3), span.start), limit)


__all__ = [
    "Ends",
    "TimedSegment",
    "WordTiming",
    "assign_words",
    "merge_punctuation",
    "settle",
    "shorten_sentence_ends",
    "typical_duration",
    "word_timings",
]
