"""Word times of decoded windows, and what they say about hallucinations.

Follows openai-whisper timing.py (`add_word_timestamps`) and the `hallucination_silence_threshold` part
of transcribe.py. The arithmetic of words is in `rustasr.alignment`; that of attention is in the core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rustasr import alignment
from rustasr.alignment import WordTiming
from rustasr.families.whisper_decode import Decoding
from rustasr.families.whisper_features import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rustasr import _core
    from rustasr.families.whisper_options import WhisperOptions
    from rustasr.tokenizer import WhisperTokenizer

WINDOW_SECONDS = 30.0
_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
_BARE_WORDS = 8  # how many words tell whether a segment is improbable


@dataclass(slots=True)
class Draft:
    """A segment in the making: seconds absolute, `tokens` with timestamps, `text` as written."""

    start: float
    end: float
    tokens: list[int]
    text: str
    decoding: Decoding
    words: list[WordTiming] = field(default_factory=list)


@dataclass(slots=True)
class Window:
    """A decoded window on its way to segments; frames of 10 ms.

    `next_seek` is where the timestamps say to go on, `single_end` that the text ended with one
    timestamp: all was said by the end of the window.
    """

    index: int
    seek: int
    size: int
    drafts: list[Draft]
    next_seek: int
    single_end: bool

    @property
    def offset(self) -> float:
        """Where the window begins, in seconds."""
        return self.seek / FRAMES_PER_SECOND

    @property
    def last_word_end(self) -> float | None:
        """Where the last word ends, or the last segment when no words are known."""
        for draft in reversed(self.drafts):
            for word in reversed(draft.words):
                return word.end
        return self.drafts[-1].end if self.drafts else None


def align_windows(
    session: _core.Session,
    encoded: _core.Encoded,
    windows: Sequence[Window],
    tokenizer: WhisperTokenizer,
    options: WhisperOptions,
    sot_sequence: list[int],
    language: str,
    last_speech: Sequence[float],
) -> None:
    """Give every draft of `windows` its words, and its span the span of these.

    `last_speech` says, for each window, where the speech before it ended (seconds).
    """
    end = tokenizer.special.endoftext
    texts = [
        [token for draft in window.drafts for token in draft.tokens if token < end] for window in windows
    ]
    spoken = [i for i, text in enumerate(texts) if text]
    if not spoken:
        return
    aligned = session.align(
        encoded,
        [windows[i].index for i in spoken],
        [texts[i] for i in spoken],
        [sot_sequence for _ in spoken],
        [windows[i].size for i in spoken],
    )
    for i, found in zip(spoken, aligned, strict=True):
        pieces = tokenizer.split_to_words(texts[i], language)
        words = alignment.word_timings(pieces, found.probabilities, found.times)
        counts = [sum(token < end for token in draft.tokens) for draft in windows[i].drafts]
        alignment.assign_words(
            windows[i].drafts,
            counts,
            words,
            offset=windows[i].offset,
            last_speech=last_speech[i],
            prepended=options.prepend_punctuations,
            appended=options.append_punctuations,
        )


def skip_hallucinations(
    window: Window, threshold: float, last_speech: float, n_frames: int
) -> tuple[int, bool]:
    """Drop improbable segments amid silence: (where to go on, whether the whole window is discarded).

    `last_speech` is where speech ended before this window, `n_frames` the end of the recording.
    Drops drafts in place.
    """
    seek = window.next_seek
    offset, window_end = window.offset, window.offset + WINDOW_SECONDS
    last = window.last_word_end
    if not window.single_end and last is not None and last > offset:
        silent_rest = window_end - last > threshold
        seek = _frame(last) if silent_rest else window.seek + window.size

    first = _first_with_words(window.drafts)
    if first is not None and is_improbable(first):
        gap = first.start - offset
        if gap > threshold:
            return window.seek + _frame(gap), True

    previous_end = last_speech
    for i, draft in enumerate(window.drafts):
        if not draft.words:
            continue
        if is_improbable(draft):
            following = _first_with_words(window.drafts[i + 1 :])
            size_s = window.size / FRAMES_PER_SECOND
            next_start = following.words[0].start if following is not None else offset + size_s
            silence_before = (
                draft.start - previous_end > threshold
                or draft.start < threshold
                or draft.start - offset < 2.0
            )
            silence_after = (
                next_start - draft.end > threshold
                or (following is not None and is_improbable(following))
                or window_end - draft.end < 2.0
            )
            if silence_before and silence_after:
                seek = _frame(max(offset + 1, draft.start))
                if n_frames / FRAMES_PER_SECOND - draft.end < threshold:
                    seek = n_frames
                del window.drafts[i:]
                break
        previous_end = draft.end
    return seek, False


def is_improbable(draft: Draft) -> bool:
    """Whether a segment's first words are too unlikely, too short or too long to be speech."""
    words = [word for word in draft.words if word.text not in _PUNCTUATION][:_BARE_WORDS]
    if not draft.words:
        return False
    score = sum(map(_strangeness, words))
    return score >= 3 or score + 0.01 >= len(words)


def _strangeness(word: WordTiming) -> float:
    duration = word.end - word.start
    score = 1.0 if word.probability < 0.15 else 0.0
    if duration < 0.133:
        score += (0.133 - duration) * 15
    if duration > 2.0:
        score += duration - 2.0
    return score


def _first_with_words(drafts: Sequence[Draft]) -> Draft | None:
    return next((draft for draft in drafts if draft.words), None)


def _frame(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)


__all__ = ["Draft", "Window", "align_windows", "is_improbable", "skip_hallucinations"]
