"""One Whisper window: its prompt, its decoding, and the climb over temperatures when it looks wrong.

Follows openai-whisper decoding.py (`_get_initial_tokens`, `DecodingTask`) and transcribe.py
(`decode_with_fallback`); hotwords and the timestamp before a prefix follow faster-whisper 1.2.1.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from struct import pack
from typing import TYPE_CHECKING, Any

from rustasr.repetition import REPETITION, compression_ratio, repeats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rustasr import _core
    from rustasr.families.whisper_options import WhisperOptions
    from rustasr.tokenizer import WhisperTokenizer


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a window was decoded to, and how far that can be trusted.

    `tokens` are the sampled ones with timestamps, without prompt and end; `complete` says that the
    model itself ended the text; `silent` that the no-speech rule takes the window for silence.
    `avg_logprob` is the mean over the tokens and the end, as openai-whisper counts it.
    """

    tokens: tuple[int, ...]
    text: str
    temperature: float
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    complete: bool = True
    silent: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A window to decode: its place in the encoded batch, its prompt, and its first frame."""

    index: int
    prompt: list[int]
    seek: int


class Prompter:
    """Builds the prompt of each window: hotwords and previous text, start of transcript, prefix."""

    def __init__(
        self, tokenizer: WhisperTokenizer, options: WhisperOptions, language: str, task: str, n_text_ctx: int
    ) -> None:
        special = tokenizer.special
        self.max_history = n_text_ctx // 2 - 1
        self.sot_sequence = tokenizer.sot_sequence(language, task)
        self._startofprev = special.startofprev
        self._start = list(self.sot_sequence)
        if options.timestamps == "none":
            self._start.append(special.notimestamps)
        self._prefix = _spaced(tokenizer, options.prefix)[: self.max_history]
        if self._prefix and options.timestamps != "none":
            self._prefix.insert(0, special.timestamp_begin)
        self._hotwords: list[int] = []
        if not self._prefix:
            self._hotwords = _spaced(tokenizer, options.hotwords)[: self.max_history]
        initial = _spaced(tokenizer, options.initial_prompt)
        self.initial = tuple(initial)

    def build(self, history: Sequence[int], *, first: bool) -> list[int]:
        """The prompt after `history` (tokens written before); `first`: the recording's first window."""
        room = self.max_history - len(self._hotwords)
        before = self._hotwords + (list(history[-room:]) if room > 0 else [])
        prompt = [self._startofprev, *before] if before else []
        return prompt + self._start + (self._prefix if first else [])


@dataclass(slots=True)
class History:
    """The tokens written so far, and how much of them the next window may see."""

    prompter: Prompter
    carry_initial: bool = False
    tokens: list[int] = field(default_factory=list)
    reset_at: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompter.initial)

    def visible(self) -> list[int]:
        """The tokens for the next prompt, oldest first."""
        if not self.carry_initial:
            return self.tokens[self.reset_at :]
        initial = self.prompter.initial
        room = self.prompter.max_history - len(initial)
        recent = self.tokens[max(len(initial), self.reset_at) :]
        return [*initial, *(recent[-room:] if room > 0 else [])]

    def add(self, tokens: Sequence[int]) -> None:
        """A window wrote `tokens`."""
        self.tokens.extend(tokens)

    def reset(self) -> None:
        """The next window sees nothing of what was written (the carried initial prompt excepted)."""
        self.reset_at = len(self.tokens)


class WindowDecoder:
    """Decodes encoded windows with the fallback over temperatures.

    `make_options` is `_core.DecodeOptions`; `session` a `_core.Session`.
    """

    def __init__(
        self,
        session: _core.Session,
        make_options: Callable[..., Any],
        tokenizer: WhisperTokenizer,
        options: WhisperOptions,
        n_text_ctx: int,
    ) -> None:
        self._session = session
        self._make_options = make_options
        self._tokenizer = tokenizer
        self._options = options
        self._max_tokens = options.max_tokens or n_text_ctx // 2
        suppressed = options.suppressed_ids(tokenizer.non_speech)
        self._suppress = sorted({*suppressed, *tokenizer.special.control})

    def decode(self, encoded: _core.Encoded, jobs: Sequence[Job]) -> list[Decoding]:
        """Decode `jobs`, and those that look wrong again at the next temperature; one result each.

        The last temperature's result is kept whatever it is, flagged with what is wrong with it.
        """
        results: dict[int, Decoding] = {}
        waiting = list(range(len(jobs)))
        for rung, temperature in enumerate(self._options.temperatures):
            for i, found in self._attempt(encoded, jobs, waiting, temperature, rung):
                results[i] = found
            waiting = [i for i in waiting if self._is_doubtful(results[i])]
            if not waiting:
                break
        return [results[i] for i in range(len(jobs))]

    def _attempt(
        self, encoded: _core.Encoded, jobs: Sequence[Job], waiting: list[int], temperature: float, rung: int
    ) -> list[tuple[int, Decoding]]:
        # Samples are drawn window by window, each from its own stream of random numbers, so that a
        # window's text does not depend on which others were in its batch.
        groups = [waiting] if temperature == 0 else [[i] for i in waiting]
        found = []
        for group in groups:
            decoded = self._session.decode(
                encoded,
                [jobs[i].index for i in group],
                [jobs[i].prompt for i in group],
                self._search(temperature, _seed(self._options.seed, jobs[group[0]].seek, rung)),
            )
            found += [(i, self._judge(one, temperature)) for i, one in zip(group, decoded, strict=True)]
        return found

    def _search(self, temperature: float, seed: int) -> Any:
        options = self._options
        sampled = temperature > 0
        latest = options.max_initial_timestamp
        return self._make_options(
            temperature=temperature,
            beam_size=0 if sampled else options.beam_size,
            patience=1.0 if sampled else options.patience,
            best_of=options.best_of if sampled else 1,
            length_penalty=options.length_penalty,
            max_tokens=self._max_tokens,
            seed=seed,
            timestamps=options.timestamps != "none",
            max_initial_timestamp=30.0 if latest is None else latest,
            suppress=self._suppress,
            suppress_blank=options.suppress_blank,
        )

    def _judge(self, decoded: _core.Decoded, temperature: float) -> Decoding:
        options, flags = self._options, list[str]()
        tokens = decoded.tokens
        if options.timestamps == "none":  # unlikely, but nothing forbids them in this mode
            tokens = [token for token in tokens if not self._tokenizer.is_timestamp(token)]
        text = self._tokenizer.text(tokens).strip()
        ratio = compression_ratio(text)
        # A loop that is short against the rest of its window does not show in the ratio.
        threshold = options.compression_ratio_threshold
        if threshold is not None and (ratio > threshold or repeats(text)):
            flags.append(REPETITION)
        improbable = _below(decoded.avg_logprob, options.logprob_threshold)
        if improbable:
            flags.append("low_confidence")
        no_speech = _above(decoded.no_speech_prob, options.no_speech_threshold)
        if no_speech:
            flags.append("no_speech")
        # Silent: probably no speech, and no confident text that says otherwise.
        confident = options.logprob_threshold is not None and decoded.avg_logprob > options.logprob_threshold
        return Decoding(
            tokens=tuple(tokens),
            text=text,
            temperature=temperature,
            avg_logprob=decoded.avg_logprob,
            no_speech_prob=decoded.no_speech_prob,
            compression_ratio=ratio,
            complete=len(decoded.logprobs) > len(decoded.tokens),
            silent=no_speech and not confident,
            flags=tuple(flags),
        )

    def _is_doubtful(self, found: Decoding) -> bool:
        """Whether the next temperature is worth trying; silence is not (no text is what it should give)."""
        if "no_speech" in found.flags and "low_confidence" in found.flags:
            return False
        return REPETITION in found.flags or "low_confidence" in found.flags


def _above(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _below(value: float, threshold: float | None) -> bool:
    return threshold is not None and value < threshold


def _seed(seed: int, seek: int, rung: int) -> int:
    """A window's own seed: equal for equal options and place, different between windows and attempts."""
    return zlib.crc32(pack("<QQI", seed, seek, rung))


def _spaced(tokenizer: WhisperTokenizer, text: str | None) -> list[int]:
    """Tokens of a prompt as if it followed other text; none for an empty one."""
    stripped = (text or "").strip()
    return tokenizer.encode(" " + stripped) if stripped else []


__all__ = ["Decoding", "History", "Job", "Prompter", "WindowDecoder"]
