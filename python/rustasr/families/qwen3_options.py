"""What a caller may ask of Qwen3-ASR: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from rustasr.errors import OptionError
from rustasr.options import WindowOptions, between, integer, number

LONGEST_WINDOW_S = 1200.0  # qwen-asr 0.0.6, inference/utils.py MAX_ASR_INPUT_SECONDS
MAX_TOKENS = 1 << 16  # the context of the released models


@dataclass(frozen=True, slots=True)
class QwenOptions(WindowOptions):
    """Options of a Qwen3-ASR transcription.

    What to write
        language: code ("de") or English name ("german") of the language to write; None lets the model
            say what it hears, window by window.
        context: what the recording is about, or words to expect, in any form and language; the model sees
            it before every window. `initial_prompt` is another name for it, as Whisper has it.
        hotwords: words or phrases to expect; they are added to the context. A text is taken as it is,
            several are joined by spaces, as in the official examples.
        task: "transcribe"; the model does not translate.
        timestamps: "segment" (sentences; their times are estimated unless an aligner is given), "word"
            (needs an aligner, see `transcribe`), or "none" (a segment is a window).

    How to search
        temperature: 0 takes the likeliest token (the official way), above that tokens are sampled.
        beam_size: beams at temperature 0; 1 is greedy.
        seed: start of the random numbers.
        max_tokens: most tokens for one window; None is 24 for each second and 64.

    What to read
        clip_timestamps: seconds: start, end, start, end, ... of the parts to transcribe (the last end may
            be left out); empty means everything.
        window_seconds: recordings that are longer are cut at quiet places about so far apart. The model
            hears up to 1200 s at once (the official limit), 180 s with an aligner; 60 s need less memory,
            lose less to a loop of the decoder and are decoded several at a time.
        batch_size: windows that are decoded together.

    Raises OptionError for a value outside its range.
    """

    context: str | None = None
    initial_prompt: str | None = None
    temperature: float = 0.0
    beam_size: int = 1
    seed: int = 0
    max_tokens: int | None = None
    window_seconds: float = 60.0

    def __post_init__(self) -> None:
        WindowOptions.__post_init__(self)
        if self.context and self.initial_prompt:
            raise OptionError("initial_prompt: another name of `context`; give one of them, found both")
        between("temperature", self.temperature, 0.0, 2.0)
        integer("beam_size", self.beam_size, 0, 64)
        if self.beam_size > 1 and self.temperature > 0:
            raise OptionError(
                f"beam_size: {self.beam_size} beams need temperature 0, found {self.temperature!r}; "
                "leave one of them out"
            )
        integer("seed", self.seed, 0, 2**63 - 1)
        if self.max_tokens is not None:
            integer("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        if not 1.0 <= number("window_seconds", self.window_seconds) <= LONGEST_WINDOW_S:
            raise OptionError(
                f"window_seconds: expected 1 to {LONGEST_WINDOW_S:g}, found {self.window_seconds!r}"
            )

    @property
    def system_text(self) -> str:
        """What stands in the system block of the prompt."""
        words = self.hotwords if isinstance(self.hotwords, str) else " ".join(self.hotwords)
        return "\n".join(part for part in (self.context or self.initial_prompt, words) if part)

    def tokens_for(self, seconds: float) -> int:
        """Most tokens for a window of so many seconds."""
        # Hindi and Greek take about a token a letter: up to 18 a second where speech is fast.
        return self.max_tokens or int(24 * seconds) + 64


__all__ = ["LONGEST_WINDOW_S", "QwenOptions"]
