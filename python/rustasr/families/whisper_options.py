"""What a caller may ask of Whisper: one frozen dataclass, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rustasr.errors import OptionError
from rustasr.options import TIMESTAMPS, Options, between, check_clips, integer, number, one_of

TASKS = ("transcribe", "translate")

# Punctuation that belongs to the word after or before it (openai-whisper transcribe.py).
PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, slots=True)
class WhisperOptions(Options):
    """Options of a Whisper transcription; the defaults are openai-whisper's `transcribe`.

    What to write
        language: code ("de") or English name ("german"); None detects it on the first 30 s.
        task: "transcribe", or "translate" (into English; multilingual models only).
        timestamps: "segment" (sentence-like times from the timestamp tokens), "word" (times of each
            word as well, by cross-attention alignment), or "none" (the decoder writes no timestamp
            tokens; recordings over 30 s are then cut at quiet places).

    How to search
        temperature: one value, or the ladder that is climbed while a window looks wrong.
        beam_size: beams at temperature 0; 0 and 1 mean greedy. The default is greedy as in the
            Python function of openai-whisper (its command line uses 5): about twice as fast, and
            within a few tenths of a percent of WER.
        best_of: independent samples at temperatures above 0, of which the likeliest is kept.
        patience, length_penalty: of the beam search; length_penalty None divides the score by the
            number of tokens, a value alpha by ((5+n)/6)**alpha.
        max_tokens: most tokens for one window; None is half of the model's text context (224).
        seed: start of the random numbers. Every window draws from its own stream, so that equal
            options give equal text whatever the batch size.

    When to distrust a window (None switches a rule off)
        compression_ratio_threshold: above it the text repeats itself: try the next temperature.
        logprob_threshold: below this mean log-probability: try the next temperature.
        no_speech_threshold: above this no-speech probability, and with a mean log-probability that
            is also too low, the window is silence.
        hallucination_silence_threshold: with word timestamps, seconds of silence around an
            improbable segment from which on it is skipped.

    Context
        condition_on_previous_text, prompt_reset_on_temperature: what was written is the prompt of
            the next window, until a window needed a temperature above the second value.
        initial_prompt, carry_initial_prompt: text taken to precede the recording, and whether every
            window sees it (else it slides out of sight).
        hotwords: words that every window sees before the previous text; ignored beside `prefix`.
        prefix: text that the first window is taken to begin with; it is not part of the result.

    Tokens
        suppress_tokens: ids never written. "-1" (or -1 in a sequence) stands for the model's list of
            non-speech tokens; None allows these. The control tokens are always suppressed.
        suppress_blank: no blank and no end as the first token.
        max_initial_timestamp: latest time, in seconds, of a window's first timestamp.
        prepend_punctuations, append_punctuations: characters joined to the next or previous word.

    What to read
        clip_timestamps: seconds: start, end, start, end, ... of the parts to transcribe (the last
            end may be left out); empty means everything.
        batch_size: 0 or 1 runs window after window exactly as openai-whisper; larger cuts the
            recording at quiet places and decodes so many windows together, without conditioning on
            previous text.

    Raises OptionError for a value outside its range.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: str = "segment"
    temperature: float | tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    beam_size: int = 1
    best_of: int = 5
    patience: float = 1.0
    length_penalty: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    hallucination_silence_threshold: float | None = None
    condition_on_previous_text: bool = True
    prompt_reset_on_temperature: float = 0.5
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False
    hotwords: str | None = None
    prefix: str | None = None
    suppress_tokens: str | tuple[int, ...] | None = "-1"
    suppress_blank: bool = True
    max_initial_timestamp: float | None = 1.0
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    clip_timestamps: tuple[float, ...] = ()
    batch_size: int = 0

    def __post_init__(self) -> None:
        # Sequences of any kind are accepted and kept as tuples, so that options stay hashable.
        for name in ("temperature", "suppress_tokens", "clip_timestamps"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, (str, tuple)):
                object.__setattr__(self, name, tuple(value))
        one_of("task", self.task, TASKS)
        one_of("timestamps", self.timestamps, TIMESTAMPS)
        self._check_search()
        self._check_thresholds()
        check_clips(self.clip_timestamps)
        self.suppressed_ids(())

    def _check_search(self) -> None:
        given: Any = self.temperature
        if given == ():
            raise OptionError("temperature: expected at least one value, found none")
        for value in given if isinstance(given, tuple) else (given,):
            between("temperature", value, 0.0, 2.0)
        integer("beam_size", self.beam_size, 0, 64)
        integer("best_of", self.best_of, 1, 64)
        integer("batch_size", self.batch_size, 0, 256)
        integer("seed", self.seed, 0, 2**63 - 1)
        if self.max_tokens is not None:
            integer("max_tokens", self.max_tokens, 1, 224)
        if not 0.0 < number("patience", self.patience) <= 64.0:
            raise OptionError(f"patience: expected a value above 0 and at most 64, found {self.patience!r}")
        if self.patience != 1.0 and self.beam_size < 2:
            raise OptionError(
                f"patience: {self.patience!r} needs a beam search, found beam_size {self.beam_size}; "
                "set beam_size to 2 or more"
            )
        if self.length_penalty is not None:
            between("length_penalty", self.length_penalty, 0.0, 1.0)

    def _check_thresholds(self) -> None:
        for name, low, high in (
            ("compression_ratio_threshold", 0.0, math.inf),
            ("logprob_threshold", -math.inf, 0.0),
            ("no_speech_threshold", 0.0, 1.0),
            ("hallucination_silence_threshold", 0.0, math.inf),
            ("prompt_reset_on_temperature", 0.0, math.inf),
            ("max_initial_timestamp", 0.0, 30.0),
        ):
            value = getattr(self, name)
            if value is not None:
                between(name, value, low, high)
        if self.hallucination_silence_threshold is not None and self.timestamps != "word":
            raise OptionError(
                "hallucination_silence_threshold: needs timestamps='word', "
                f"found timestamps={self.timestamps!r}"
            )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The ladder of temperatures, also when a single one was given."""
        if isinstance(self.temperature, tuple):
            return self.temperature
        return (float(self.temperature),)

    @property
    def word_timestamps(self) -> bool:
        """Whether each word gets its times."""
        return self.timestamps == "word"

    def suppressed_ids(self, non_speech: Iterable[int]) -> list[int]:
        """The ids that this option names, with `non_speech` (the file's list) where it says -1."""
        given = self.suppress_tokens
        try:
            if given is None:
                ids = set()
            elif isinstance(given, str):
                ids = {int(part) for part in given.replace(",", " ").split()}
            else:
                ids = {int(part) for part in given}
        except (TypeError, ValueError):
            raise OptionError(
                f"suppress_tokens: expected token ids (-1 stands for the model's own list), found {given!r}"
            ) from None
        if any(value < -1 for value in ids):
            raise OptionError(f"suppress_tokens: expected ids from 0, or -1, found {min(ids)}")
        if -1 in ids:
            ids = (ids - {-1}) | set(non_speech)
        return sorted(ids)


__all__ = ["WhisperOptions"]
