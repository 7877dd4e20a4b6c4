"""What GigaAM and Parakeet do alike: a conformer encoder under a CTC or transducer head.

::

    audio       16 kHz blocks                                        rustasr.audio
      → windows cut in silence, at most `window_seconds`             rustasr.longform
      → mel     [T, n_mels], normalised per window                   _core
      → encode  a batch of windows of different lengths → [T', d]    _core
      → tokens  with frame, duration and log-probability             _core (greedy, or a beam)
      → words   the family's own grouping of tokens                  families.gigaam, families.parakeet
      → result  segments that close after a sentence                 here

No window sees what was said in another, so windows are independent and run in batches.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rustasr import longform
from rustasr.audio import SAMPLE_RATE, AudioInput
from rustasr.errors import ModelFileError, OptionError
from rustasr.families.family import INTERRUPTED, Family, Run
from rustasr.languages import LANGUAGE_NAMES, language_code
from rustasr.options import WindowOptions, between, integer, number
from rustasr.pieces import PieceTable
from rustasr.progress import Progress, ProgressCallback
from rustasr.repetition import flagged
from rustasr.types import Segment, Token, TranscriptionResult, Word

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.longform import Window
    from rustasr.registry import ModelInfo

BLOCK_SECONDS = 10.0
BATCHES_AHEAD = 4  # windows for so many batches are read ahead, to put like lengths together
SHORTEST_WINDOW_S = 0.1  # nothing is said in less, and some front ends need more than one frame
HOTWORD_BEAMS = 4  # beams when hotwords are given and `beam_size` is not
# Words that follow each other are in doubt below this mean log-probability of their tokens. Measured on small
# checkpoints: six words of speech are above -0.07 (CTC), -0.25 (RNN-T) and -0.19 (TDT), segments of music and
# noise mostly below -0.19, -0.28 and -0.42.
UNSURE_LOGPROB = {"ctc": -0.12, "rnnt": -0.25, "tdt": -0.23}
UNSURE_WORDS = 6  # a word or two say too little by themselves ...
UNSURE_PAUSE_S = 1.0  # ... unless there are no more between two pauses
SENTENCE_ENDS = (".", "?", "!")  # NeMo's default segment_seperators; "…" and others end no segment there


@dataclass(frozen=True, slots=True)
class ConformerOptions(WindowOptions):
    """Options of GigaAM and Parakeet.

    What to write
        language: code or English name; see the family for what it does.
        task: "transcribe"; these models do not translate.
        timestamps: "segment", "word" (words and tokens with times as well), or "none".

    How to search
        beam_size: 1 is greedy; None is greedy too, or 4 beams where hotwords are given.
        hotwords: words or phrases to prefer, as a tuple or separated by commas.
        hotword_boost: what each matched token adds to a hypothesis' log-probability.

    What to read
        clip_timestamps: seconds: start, end, start, end, ... of the parts to transcribe (the last
            end may be left out); empty means everything.
        window_seconds: longest stretch that the network sees at once; None is the family's own.
        batch_size: windows that are computed together.

    Raises OptionError for a value outside its range.
    """

    beam_size: int | None = None
    hotword_boost: float = 1.5
    window_seconds: float | None = None

    def __post_init__(self) -> None:
        WindowOptions.__post_init__(self)
        if self.beam_size is not None:
            integer("beam_size", self.beam_size, 1, 64)
        between("hotword_boost", self.hotword_boost, 0.0, 20.0)
        if self.window_seconds is not None and number("window_seconds", self.window_seconds) < 1.0:
            raise OptionError(f"window_seconds: expected at least 1, found {self.window_seconds!r}")
        if self.phrases and self.beam_size == 1:
            raise OptionError(
                "hotwords: need a beam search, found beam_size 1; leave beam_size out or set it to 4 or more"
            )

    @property
    def phrases(self) -> tuple[str, ...]:
        """The hotwords one by one."""
        given = self.hotwords.split(",") if isinstance(self.hotwords, str) else self.hotwords
        return tuple(phrase for part in given if (phrase := " ".join(part.split())))

    @property
    def beams(self) -> int:
        """How many hypotheses the search keeps."""
        return self.beam_size or (HOTWORD_BEAMS if self.phrases else 1)

    @property
    def word_timestamps(self) -> bool:
        """Whether words and tokens get times."""
        return self.timestamps == "word"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a window's search gave: tokens with frames, and what a frame is worth in seconds."""

    tokens: Sequence[int]
    frames: Sequence[int]
    durations: Sequence[int]
    logprobs: Sequence[float]
    frame_s: float


@dataclass(slots=True)
class TimedWord:
    """A word in the making: its text, span in frames, and the places of its tokens in the window's list."""

    text: str
    start: int
    end: int
    places: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False, kw_only=True)
class _Run(Run):
    options: ConformerOptions
    language: str
    search: _core.SearchOptions
    segments: list[Segment] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Conformer(Family[ConformerOptions, _Run]):
    """Base of both families. A family says how tokens become words and what a language does."""

    window_seconds: float  # longest window by default ...
    shortest_window: float  # ... which is cut where it is quietest after so many seconds
    architecture: str
    family_languages: tuple[str, ...]

    def __init__(self, core: _core.Model, *, name: str, model_info: ModelInfo | None = None) -> None:
        super().__init__(core, name=name, model_info=model_info)
        self.pieces = PieceTable(self.metadata)
        codes: Any = self.metadata.get(f"{self.architecture}.languages")
        if not isinstance(codes, (list, tuple)):
            raise ModelFileError(
                f"metadata key {self.architecture}.languages: expected language codes, found {codes!r}"
            )
        # A checkpoint that names none may know any of its family's.
        self.supported_languages = tuple(str(code) for code in codes) or self.family_languages
        self._max_seconds = float(str(self.metadata[f"{self.architecture}.max_seconds"])) or math.inf
        self._unsure = UNSURE_LOGPROB.get(str(self.metadata.get("head.type")), -math.inf)
        self._normalize = self.metadata.get("frontend.normalize") == "per_feature"

    # What a family says

    @abstractmethod
    def words(self, heard: Heard) -> list[TimedWord]:
        """Tokens grouped to words by the family's official rule."""

    @abstractmethod
    def text(self, tokens: Sequence[int]) -> str:
        """The text of a window's tokens as the official code writes it."""

    @abstractmethod
    def frame_seconds(self, n_samples: int, n_frames: int) -> float:
        """What a frame of a window is worth."""

    def token_spans(self, heard: Heard) -> list[tuple[int, int]]:
        """First frame and end of every token."""
        return [(t, t + d) for t, d in zip(heard.frames, heard.durations, strict=True)]

    def suppressed(self, language: str | None) -> list[int]:  # noqa: ARG002 - a family may need it
        """Tokens that a transcription in `language` never writes."""
        return []

    # The steps

    def _begin(self, options: ConformerOptions, audio: AudioInput) -> _Run:
        from rustasr import _core

        language = self._language(options.language)
        self._longest(options)
        search = _core.SearchOptions(
            beam_size=options.beams,
            suppress=self.suppressed(language),
            hotwords=[self._hotword(phrase) for phrase in options.phrases],
            hotword_boost=options.hotword_boost,
        )
        session, source = self._open(audio)
        only = self.supported_languages[0] if len(self.supported_languages) == 1 else ""
        return _Run(session, source, options=options, language=language or only, search=search)

    def _transcribe(self, run: _Run, report: ProgressCallback) -> None:
        report(Progress(0.0, run.source.duration))
        options = run.options
        found = longform.windows(
            self._counted(run),
            self._longest(options),
            min(self.shortest_window, self._longest(options) / 2),
            longform.spans_of(options.clip_timestamps),
        )
        loud = (w for w in found if w.duration >= SHORTEST_WINDOW_S and not w.is_digital_silence)
        # Who reads along wants the windows in their order, and single ones have no like.
        in_order = run.on_text is not None or options.batch_size == 1
        n_ahead = options.batch_size * (1 if in_order else BATCHES_AHEAD)
        done_s = 0.0
        while ahead := list(itertools.islice(loud, n_ahead)):
            for done in self._window_batches(run, ahead):
                report(Progress(max(done_s, ahead[0].offset + done), run.source.duration, run.segments))
                run.check()
            done_s = ahead[-1].offset + ahead[-1].duration
            report(Progress(done_s, run.source.duration, run.segments))

    def _counted(self, run: _Run) -> Iterator[NDArray[np.float32]]:
        n_samples = 0
        for block in run.blocks(BLOCK_SECONDS):
            n_samples += len(block)
            run.duration = n_samples / SAMPLE_RATE
            yield block

    def _window_batches(self, run: _Run, windows: Sequence[Window]) -> Iterator[float]:
        """Fills the run with what is said in the windows, and tells after each batch how many seconds of them
        are done.
        """
        heard, done_s, n_told = dict[int, tuple[str, list[Segment]]](), 0.0, 0
        for places in longform.batches_by_length(windows, run.options.batch_size):
            batch = [windows[n] for n in places]
            heard.update(zip(places, self._window_batch(run, batch), strict=True))
            while n_told in heard:  # in the order of time
                text, segments = heard.pop(n_told)
                run.texts += [text] if text else []
                run.segments += segments
                n_told += 1
            done_s += sum(window.duration for window in batch)
            yield done_s

    def _window_batch(self, run: _Run, windows: Sequence[Window]) -> list[tuple[str, list[Segment]]]:
        key = ["windows", *([window.start, len(window.samples)] for window in windows)]
        kind = list[tuple[str, list[Segment]]]
        return run.rounds.remember(key, kind, lambda: self._hear(run, windows))

    def _hear(self, run: _Run, windows: Sequence[Window]) -> list[tuple[str, list[Segment]]]:
        """The text of each window, "" where nothing is said, and its segments."""
        encoded = run.session.encode([self.features(run.session, window.samples) for window in windows])
        found = run.session.recognize(encoded, range(len(windows)), run.search)
        heard_in = list[tuple[str, list[Segment]]]()
        for window, one, n_frames in zip(windows, found, encoded.lengths, strict=True):
            frame_s = self.frame_seconds(len(window.samples), n_frames)
            heard = Heard(one.tokens, one.frames, one.durations, one.logprobs, frame_s)
            text = self.text(one.tokens).strip()
            heard_in.append((text, list(self._segments(run, window, heard)) if text else []))
        return heard_in

    def features(self, session: _core.Session, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's input [T, n_mels] for one window of samples [n]."""
        from rustasr import _core

        raw = session.features(samples)
        return _core.normalize_per_feature(raw) if self._normalize else raw

    def _segments(self, run: _Run, window: Window, heard: Heard) -> Iterator[Segment]:
        """Words joined to segments; a segment closes after a sentence, the last one with the window. What is
        in doubt stands by itself.
        """
        words = self.words(heard)
        sure = self._sure(words, heard)
        first = 0
        for i, word in enumerate(words):
            is_last = i == len(words) - 1
            if is_last or word.text.endswith(SENTENCE_ENDS) or sure[i] != sure[i + 1]:
                some = words[first : i + 1]
                flags = () if sure[i] and self._believed(some, heard) else ("low_confidence",)
                yield self._segment(run, window, heard, some, flags)
                first = i + 1

    def _sure(self, words: Sequence[TimedWord], heard: Heard) -> list[bool]:
        """Which words may be believed: none of a run of UNSURE_WORDS (fewer where pauses leave no more) that
        is in doubt, and none in a window that is in doubt as a whole.
        """
        sure, first = [self._believed(words, heard)] * len(words), 0
        for i, word in enumerate(words):
            if i == len(words) - 1 or (words[i + 1].start - word.end) * heard.frame_s >= UNSURE_PAUSE_S:
                size = min(UNSURE_WORDS, i + 1 - first)
                for n in range(first, i + 2 - size):
                    if not self._believed(words[n : n + size], heard):
                        sure[n : n + size] = [False] * size
                first = i + 1
        return sure

    def _believed(self, words: Sequence[TimedWord], heard: Heard) -> bool:
        logprobs = [heard.logprobs[place] for word in words for place in word.places]
        return sum(logprobs) / max(1, len(logprobs)) >= self._unsure

    def _segment(
        self,
        run: _Run,
        window: Window,
        heard: Heard,
        timed: Sequence[TimedWord],
        flags: tuple[str, ...],
    ) -> Segment:
        def seconds(frame: int) -> float:
            return round(min(window.offset + frame * heard.frame_s, window.offset + window.duration), 3)

        def confidence(places: Sequence[int]) -> float:
            return math.exp(min(0.0, sum(heard.logprobs[i] for i in places) / max(1, len(places))))

        places = [i for word in timed for i in word.places]
        words = [Word(seconds(w.start), seconds(w.end), w.text, confidence(w.places)) for w in timed]
        spans = self.token_spans(heard)
        tokens = tuple(
            Token(
                heard.tokens[i],
                self.pieces.pieces[heard.tokens[i]],
                seconds(spans[i][0]),
                seconds(spans[i][1]),
                confidence([i]),
            )
            for i in places
        )
        return Segment(
            start=words[0].start,
            end=words[-1].end,
            text=" ".join(word.text for word in words),
            words=tuple(words) if run.options.word_timestamps else None,
            confidence=confidence(places),
            tokens=tuple(token.id for token in tokens),
            timed_tokens=tokens if run.options.word_timestamps else None,
            avg_logprob=sum(heard.logprobs[i] for i in places) / len(places),
            flags=flags,
        )

    def _result(self, run: _Run, *, interrupted: bool) -> TranscriptionResult:
        return TranscriptionResult(
            text=" ".join(run.texts),
            segments=flagged(run.segments),
            language=run.language,
            duration=run.duration,
            inference_seconds=run.seconds,
            model_name=self.name,
            device=self.core.device,
            warnings=(*run.source.warnings, *([INTERRUPTED] if interrupted else [])),
        )

    # What this model can do

    def _longest(self, options: ConformerOptions) -> float:
        wanted = options.window_seconds
        if wanted is None:
            return self.window_seconds
        if wanted > self._max_seconds:
            raise OptionError(
                f"window_seconds: {self.name} hears at most {self._max_seconds:g} s at once, found {wanted:g}"
            )
        return wanted

    def _language(self, language: str | None) -> str | None:
        """The code of the language asked for, or None; OptionError for one that the model does not know."""
        if language is None or language == "auto":
            return None
        code = language_code(language)
        if code not in self.supported_languages:
            name = language if code is None else f"{LANGUAGE_NAMES[code]} ({code})"
            raise OptionError(
                f"language: {self.name} knows {', '.join(self.supported_languages)}, found {name}"
            )
        return code

    def _hotword(self, phrase: str) -> list[int]:
        tokens = self.pieces.encode(phrase)
        if tokens is None:
            raise OptionError(
                f"hotwords: {self.name} has no piece for a character of {phrase!r}; "
                "write it as the model would (its letters and case)"
            )
        return tokens


__all__ = ["Conformer", "ConformerOptions", "Heard", "TimedWord"]
