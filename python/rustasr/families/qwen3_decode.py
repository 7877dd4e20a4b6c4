"""Windows of samples to answers of the model, and the guard against answers that never end.

::

    windows ─► log mel of each, encoded together ─► prompts ─► greedy, several at a time ─► Heard, ...
                                                                  │ loops, or fills all its room
                                      ┌───────────────────────────┘
                                      ├─► cut in two at a quiet place, each half decoded by itself
                                      ├─► a half below 8 s: sampled at temperature 0.4, then 0.8
                                      └─► still looping: one instance of what repeats is kept

A loop is a fixed point of the decoder: the same sound with the same prompt gives it again, so the sound is
changed first. Halves break nearly all of them at the price of a little context. A beam search is no help,
since a loop is what the model finds most likely, and a penalty on repeated words would also forbid what
was really said twice. Whatever was doubted is flagged in the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rustasr.families.qwen3_text import Growing
from rustasr.families.qwen3_windows import halves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.families.qwen3_options import QwenOptions
    from rustasr.families.qwen3_text import QwenTokenizer
    from rustasr.longform import Window

    LiveText = Callable[[Window, str], None]

# An answer that ends in one pattern, so often and over so many tokens, is stopped. qwen-asr cuts patterns of
# up to 20 characters from 20 repeats on, after the answer is complete; whole sentences repeat less often.
LOOP_REPEATS = 6
LOOP_TOKENS = 48
SHORTEST_HALF_S = 4.0
RETRY_TEMPERATURES = (0.4, 0.8)


@dataclass(frozen=True, slots=True)
class Heard:
    """A window with the model's answer. `doubted`: the guard had to step in."""

    window: Window
    tokens: Sequence[int]
    logprobs: Sequence[float]
    finish: str
    temperature: float
    doubted: bool = False


def clip_features(
    session: _core.Session, samples: NDArray[np.float32], min_samples: int
) -> NDArray[np.float32]:
    """Samples [n] → log mel [T, n_mels] in Whisper's range, scaled by the clip's own maximum.

    A clip that is louder than full scale is brought down to it (qwen-asr 0.0.6, inference/utils.py
    `float_range_normalize`), a shorter one than `min_samples` is followed by silence (transformers 5.23,
    feature_extraction_qwen3_asr.py).
    """
    from rustasr import _core

    peak = float(np.max(np.abs(samples), initial=0.0))
    if peak > 1.0:
        samples = samples / np.float32(peak)
    if len(samples) < min_samples:
        samples = np.pad(samples, (0, min_samples - len(samples)))
    raw = session.features(np.ascontiguousarray(samples))
    return _core.normalize_log_mel(raw, float(raw.max()))


class Listener:
    """Decodes the windows of one recording. `language` is the model's name of the one to force."""

    def __init__(
        self,
        session: _core.Session,
        tokenizer: QwenTokenizer,
        options: QwenOptions,
        language: str | None,
        min_samples: int,
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._options = options
        self._language = language
        self._min_samples = min_samples

    def hear(self, windows: Sequence[Window], live: LiveText | None = None) -> list[Heard]:
        """What is said in the windows, in order; one that was cut in two is there as its parts.

        `live` is told a window's text whenever it has grown.
        """
        first = self._decode(windows, self._options.temperature, live)
        return [part for heard in first for part in self._believed(heard, live)]

    def _believed(self, heard: Heard, live: LiveText | None) -> list[Heard]:
        """The answer, or what other settings make of its window when it ran away."""
        if not self._ran_away(heard):
            return [heard]
        if heard.window.duration >= 2 * SHORTEST_HALF_S:
            parts = self._decode(halves(heard.window), self._options.temperature, live)
            return [replace(part, doubted=True) for half in parts for part in self._believed(half, live)]
        for temperature in RETRY_TEMPERATURES:
            if temperature > self._options.temperature:
                again = self._decode([heard.window], temperature, live)[0]
                if not self._ran_away(again):
                    return [replace(again, doubted=True)]
        kept = len(without_loop(heard.tokens)) if heard.finish == "loop" else len(heard.tokens)
        return [replace(heard, tokens=heard.tokens[:kept], logprobs=heard.logprobs[:kept], doubted=True)]

    def _ran_away(self, heard: Heard) -> bool:
        """Whether an answer loops, or did not end in the room that any speech would have found."""
        return heard.finish == "loop" or (heard.finish == "length" and self._options.max_tokens is None)

    def _decode(self, windows: Sequence[Window], temperature: float, live: LiveText | None) -> list[Heard]:
        from rustasr import _core

        clips = [clip_features(self._session, window.samples, self._min_samples) for window in windows]
        encoded = self._session.encode(clips)
        context = self._options.system_text
        prompts = [self._tokenizer.prompt(n, context, self._language) for n in encoded.lengths]
        options = _core.DecodeOptions(
            temperature=temperature,
            beam_size=self._options.beam_size if temperature == 0 else 0,
            early_stopping=False,
            max_tokens=self._options.tokens_for(max(window.duration for window in windows)),
            seed=self._options.seed,
            loop_tokens=LOOP_TOKENS,
            loop_repeats=LOOP_REPEATS,
        )
        # A beam's text is not settled before it ends.
        watch = _Watch(windows, self._growing, live) if live and self._options.beam_size < 2 else None
        found = self._session.decode(encoded, range(len(windows)), prompts, options, watch)
        return [
            Heard(window, one.tokens, one.logprobs, one.finish, temperature)
            for window, one in zip(windows, found, strict=True)
        ]

    def _growing(self) -> Growing:
        return Growing(self._tokenizer, forced=self._language is not None)


class _Watch:
    """Hands on the text of each window as its tokens are chosen."""

    def __init__(self, windows: Sequence[Window], growing: Callable[[], Growing], live: LiveText) -> None:
        self._windows = windows
        self._texts = [growing() for _ in windows]
        self._live = live

    def __call__(self, index: int, token: int, _logprob: float) -> bool:
        text = self._texts[index].add(token)
        if text is not None:
            self._live(self._windows[index], text)
        return True


def without_loop(tokens: Sequence[int]) -> Sequence[int]:
    """`tokens` up to the end of the first instance of the pattern that they end in."""
    n = len(tokens)
    for period in range(1, n // LOOP_REPEATS + 1):
        start = n - period
        while start > 0 and tokens[start - 1] == tokens[start - 1 + period]:
            start -= 1
        if n - start >= max(LOOP_TOKENS, period * LOOP_REPEATS):
            return tokens[: start + period]
    return tokens


__all__ = ["Heard", "Listener", "clip_features", "without_loop"]
