"""A scripted network for the tests of Whisper's policy.

`Script` has the interface of `_core.Session`: it records what it was asked and answers as told, so that
a test says in a line what the model "heard" and sees what was tried, shown and read next. What the
network itself computes is tested on real weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from rustasr.families.whisper_decode import Prompter, WindowDecoder
from rustasr.families.whisper_features import LogMel
from rustasr.families.whisper_longform import (
    Transcriber,
)
from rustasr.families.whisper_options import WhisperOptions
from rustasr.families.whisper_words import Draft

END, SOT, EN, DE, TRANSLATE, TRANSCRIBE, PREV, NOTIMES, BEGIN = 500, 501, 502, 503, 504, 505, 507, 509, 510
CONTROL = (SOT, TRANSLATE, TRANSCRIBE, 506, PREV, 508)
START = [SOT, EN, TRANSCRIBE]
N_MELS = 4


class Letters:
    """A tokenizer with the interface of WhisperTokenizer: one token per character (its code)."""

    special = SimpleNamespace(
        endoftext=END, startofprev=PREV, notimestamps=NOTIMES, timestamp_begin=BEGIN, control=CONTROL
    )
    non_speech = (7, 8)

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(chr(t) for t in tokens if t < END)

    def is_timestamp(self, token: int) -> bool:
        return token >= BEGIN

    def timestamp_seconds(self, token: int) -> float:
        return (token - BEGIN) * 0.02

    def sot_sequence(self, language: str, task: str) -> list[int]:
        return [SOT, {"en": EN, "de": DE}[language], TRANSLATE if task == "translate" else TRANSCRIBE]

    def split_to_words(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        words: list[tuple[str, list[int]]] = []
        for token in tokens:
            if chr(token) == " " or not words:
                words.append(("", []))
            text, own = words[-1]
            words[-1] = (text + chr(token), [*own, token])
        return words


def at(seconds: float) -> int:
    """The timestamp token of `seconds`."""
    return BEGIN + round(seconds / 0.02)


def say(*parts: float | str) -> list[int]:
    """Tokens from times (numbers) and texts."""
    return [t for p in parts for t in ([at(p)] if isinstance(p, (int, float)) else Letters().encode(p))]


@dataclass
class Answer:
    tokens: list[int]
    avg_logprob: float = -0.2
    no_speech_prob: float = 0.01
    complete: bool = True

    @property
    def logprobs(self) -> list[float]:
        return [0.0] * (len(self.tokens) + self.complete)


@dataclass
class Script:
    """Answers by `reply(first frame of the window, options)`; windows are recognised by their content.

    Mel frame t of the test recordings holds t in its first band, so a window knows where it is from.
    """

    reply: Callable[[int, Any], Answer]
    word_times: Callable[[list[int], int], list[float]] | None = None
    sureness: dict[str, float] = field(default_factory=dict)  # probability of a character, else 0.9
    encoded: list[list[tuple[int, int]]] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    decodes: list[Any] = field(default_factory=list)
    places: list[tuple[int, float]] = field(default_factory=list)

    def encode(self, features: list[Any]) -> list[tuple[int, int]]:
        places = [(round(float(f[0, 0])), len(f)) for f in features]
        assert all(size <= 3000 for _, size in places)
        self.encoded.append(places)
        return places

    def decode(
        self, encoded: Any, windows: list[int], prompts: list[list[int]], options: Any
    ) -> list[Answer]:
        self.prompts += prompts
        self.decodes += [options] * len(windows)
        self.places += [(encoded[w][0], options.temperature) for w in windows]
        return [self.reply(encoded[w][0], options) for w in windows]

    def align(self, encoded: Any, windows: list[int], texts: Any, prefix: Any, sizes: Any) -> list[Any]:
        assert self.word_times is not None
        assert all(p == [SOT, EN, TRANSCRIBE] for p in prefix)
        assert [encoded[w][1] for w in windows] == sizes
        found = []
        for w, text in zip(windows, texts, strict=True):
            times = self.word_times(text, encoded[w][0])
            probabilities = [self.sureness.get(chr(token), 0.9) for token in text]
            found.append(SimpleNamespace(probabilities=probabilities, times=times))
        return found


def recording(n_frames: int, loudness: np.ndarray[Any, Any] | None = None) -> LogMel:
    """Frames that know their number: band 0 holds it, the others the loudness (random if not given)."""
    mel = LogMel(N_MELS, lambda frames, peak: frames, floor=-10.0)
    frames = np.random.default_rng(3).normal(size=(n_frames, N_MELS)).astype(np.float32)
    if loudness is not None:
        frames[:, 1:] = loudness[:, None]
    frames[:, 0] = np.arange(n_frames)
    mel.append(frames)
    mel.finish(n_frames)
    # The numbering is not part of how loud a frame is.
    mel.loudness = lambda start, size: mel.raw(start, size)[:, 1:].mean(axis=1)  # type: ignore[method-assign]
    return mel


def transcriber(script: Script, mel: LogMel, **options: Any) -> Transcriber:
    chosen = WhisperOptions(**{"temperature": 0.0, **options})
    tokenizer: Any = Letters()
    session: Any = script
    prompter = Prompter(tokenizer, chosen, "en", chosen.task, 448)
    decoder = WindowDecoder(session, SimpleNamespace, tokenizer, chosen, 448)
    return Transcriber(session, mel, tokenizer, chosen, prompter, decoder, "en")


def drafts_of(script: Script, mel: LogMel, **options: Any) -> list[Draft]:
    return [draft for drafts, _ in transcriber(script, mel, **options).run() for draft in drafts]


def spans(drafts: Sequence[Draft]) -> list[tuple[float, float, str]]:
    return [(round(d.start, 3), round(d.end, 3), d.text.strip()) for d in drafts]


def seeks(script: Script) -> list[int]:
    return [place[0] for batch in script.encoded for place in batch]


LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def until(temperature: float, bad: Answer, good: Answer) -> Callable[[int, Any], Answer]:
    return lambda _, options: good if options.temperature >= temperature else bad


GOOD = Answer(say(0, "fine", 2))
LOOP = Answer(say(0, "la " * 60, 2))
UNSURE = Answer(say(0, "perhaps", 2), avg_logprob=-1.2)
SILENCE = Answer(say(0, "you", 2), avg_logprob=-1.2, no_speech_prob=0.9)
CONFIDENT = Answer(say(0, "yes", 2), avg_logprob=-0.3, no_speech_prob=0.9)


def evenly(start: float, step: float) -> Callable[[list[int], int], list[float]]:
    """Word times for a script: every token lasts `step` seconds, the first begins at `start`."""
    return lambda text, seek: [start + step * i for i in range(len(text) + 1)]
