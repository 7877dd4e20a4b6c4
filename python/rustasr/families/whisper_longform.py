"""A recording of any length, window by window.

::

    mel ─► Track: where to read next ─► encode ─► decode with fallback ─► timestamps cut it into drafts
             ▲                                                                │
             └── seek: last timestamp, last word, or end of the window ◄── words, hallucinations ◄┘

One track over the whole recording is openai-whisper's sequential loop (transcribe.py): each window
begins where the last one stopped making sense, and sees what was written before. Several tracks, cut at
quiet places, advance together as one batch; each runs the same loop inside its own stretch, without
previous text. Units: frames of 10 ms where a name says seek, size or frames, seconds otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rustasr.families.whisper_decode import Decoding, History, Job, Prompter, WindowDecoder
from rustasr.families.whisper_features import FRAMES_PER_SECOND, LogMel
from rustasr.families.whisper_words import Draft, Window, align_windows, skip_hallucinations
from rustasr.journal import Rounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rustasr import _core
    from rustasr.families.whisper_options import WhisperOptions
    from rustasr.tokenizer import WhisperTokenizer

WINDOW_FRAMES = 3000  # openai-whisper audio.py N_FRAMES: 30 s
FRAMES_PER_TIMESTAMP = 2  # a timestamp token is 0.02 s

QUIET_SEARCH = 800  # a cut is looked for in the last 8 s of a window
QUIET_STRETCH = 30  # and lies in the middle of the quietest 0.3 s
SHORTEST_REST = 100  # less than 1 s after the last timestamp is not read again
STALL_FRAMES = 100  # windows that advance by less than 1 s ...
STALL_WINDOWS = 3  # ... so many times in a row make no progress


@dataclass(slots=True)
class Track:
    """One reader of the recording: the stretches it has to read, in frames, and how far it is.

    `clips` are (first frame, end frame). `independent` tracks end at a quiet place that was chosen for
    them, so that what is written last is complete.
    """

    clips: list[tuple[int, int]]
    history: History
    independent: bool = False
    seek: int = -1
    last_speech: float = 0.0
    started: bool = False
    n_stalled: int = 0

    def next_window(self) -> tuple[int, int] | None:
        """(first frame, frames left in the stretch), or None at the end of the last one."""
        while self.clips:
            start, end = self.clips[0]
            self.seek = max(self.seek, start)
            if self.seek < end:
                return self.seek, end - self.seek
            self.clips.pop(0)
            if self.clips:
                self.seek = self.clips[0][0]
        return None


class Transcriber:
    """Runs tracks over one recording and gives out their segments in order."""

    def __init__(
        self,
        session: _core.Session,
        mel: LogMel,
        tokenizer: WhisperTokenizer,
        options: WhisperOptions,
        prompter: Prompter,
        decoder: WindowDecoder,
        language: str,
        rounds: Rounds | None = None,
    ) -> None:
        self._session = session
        self._mel = mel
        self._tokenizer = tokenizer
        self._options = options
        self._prompter = prompter
        self._decoder = decoder
        self._language = language
        self._rounds = rounds or Rounds()
        self._encoded_first: _core.Encoded | None = None

    def reuse(self, encoded: _core.Encoded) -> None:
        """Take an encoding of the recording's first full window instead of computing it again."""
        self._encoded_first = encoded

    def run(self) -> Iterator[tuple[list[Draft], int]]:
        """Yield (new drafts in the order of time, frames read so far) after every round of windows."""
        batch_size = max(1, self._options.batch_size)
        tracks = self._tracks(independent=batch_size > 1)
        waiting, active = deque(enumerate(tracks)), list[tuple[int, Track]]()
        held: dict[int, list[Draft]] = {i: [] for i in range(len(tracks))}
        next_out = 0
        while waiting or active:
            while waiting and len(active) < batch_size:
                active.append(waiting.popleft())
            active = [(i, track) for i, track in active if self._find_sound(track)]
            if active:
                for (i, _), drafts in zip(active, self._round([t for _, t in active]), strict=True):
                    held[i] += drafts
            # What follows an unfinished track waits for it.
            ready: list[Draft] = []
            unfinished = {i for i, track in (*active, *waiting) if track.next_window() is not None}
            while next_out < len(tracks):
                ready += held[next_out]
                held[next_out] = []
                if next_out in unfinished:
                    break
                next_out += 1
            done = tracks[next_out].seek if next_out < len(tracks) else self._mel.n_frames
            yield ready, min(done, self._mel.n_frames)

    # Where to read

    def _tracks(self, *, independent: bool) -> list[Track]:
        clips = clip_frames(self._options.clip_timestamps, self._mel.n_frames)
        carry = self._options.carry_initial_prompt
        if not independent:
            return [Track(clips, History(self._prompter, carry))]
        cuts = [piece for start, end in clips for piece in cut_at_quiet_places(self._mel, start, end)]
        return [Track([cut], History(self._prompter, carry), independent=True) for cut in cuts]

    def _size(self, seek: int, rest: int) -> int:
        """Frames of the next window, of `rest` that are left."""
        if rest > WINDOW_FRAMES and self._options.timestamps == "none":
            # No timestamp will say where the text of this window ends, so it has to end in silence.
            return quiet_place(self._mel, seek) - seek
        return min(WINDOW_FRAMES, rest)

    def _find_sound(self, track: Track) -> bool:
        """Move the track past windows of digital silence, where nothing can be said; False at its end."""
        while (place := track.next_window()) is not None:
            size = self._size(*place)
            if not self._mel.is_digital_silence(track.seek, size):
                return True
            track.seek += size
        return False

    # One round: a window of every track

    def _round(self, tracks: Sequence[Track]) -> list[list[Draft]]:
        places = []
        for track in tracks:
            place = track.next_window()
            assert place is not None, "a track in a round has something to read"
            places.append((place[0], self._size(*place)))
        heard = self._rounds.remember(
            ["whisper", places], list[tuple[Window, Decoding]], lambda: self._hear(tracks, places)
        )
        return [
            self._conclude(track, window, decoding)
            for track, (window, decoding) in zip(tracks, heard, strict=True)
        ]

    def _hear(
        self, tracks: Sequence[Track], places: Sequence[tuple[int, int]]
    ) -> list[tuple[Window, Decoding]]:
        """What is said in the windows; the tracks stay where they are."""
        encoded = self._encode(places)
        jobs = [
            Job(i, self._prompter.build(track.history.visible(), first=seek == 0 and not track.started), seek)
            for i, (track, (seek, _)) in enumerate(zip(tracks, places, strict=True))
        ]
        decodings = self._decoder.decode(encoded, jobs)
        windows = [
            self._window(i, place, decoding, track)
            for i, (place, decoding, track) in enumerate(zip(places, decodings, tracks, strict=True))
        ]
        if self._options.word_timestamps:
            align_windows(
                self._session,
                encoded,
                windows,
                self._tokenizer,
                self._options,
                self._prompter.sot_sequence,
                self._language,
                [track.last_speech for track in tracks],
            )
        return list(zip(windows, decodings, strict=True))

    def _encode(self, places: Sequence[tuple[int, int]]) -> _core.Encoded:
        known, self._encoded_first = self._encoded_first, None
        if known is not None and list(places) == [(0, WINDOW_FRAMES)]:
            return known
        return self._session.encode([self._mel.window(seek, size) for seek, size in places])

    def _window(self, index: int, place: tuple[int, int], decoding: Decoding, track: Track) -> Window:
        seek, size = place
        if decoding.silent:
            return Window(index, seek, size, [], seek + size, single_end=True)
        window = split_at_timestamps(index, seek, size, decoding, self._tokenizer)
        if track.independent and window.next_seek < seek + size:
            self._finish_stretch(window, decoding)
        return window

    def _finish_stretch(self, window: Window, decoding: Decoding) -> None:
        """Decide about the rest of a stretch that was cut in silence, after its last pair of timestamps."""
        written = sum(len(draft.tokens) for draft in window.drafts)
        rest = list(decoding.tokens[written:])
        end = window.seek + window.size
        if decoding.complete and self._tokenizer.text(rest).strip():
            # Its last sentence has no closing timestamp, but the model ended the text itself.
            start, stop = window.next_seek / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND
            window.drafts.append(Draft(start, stop, rest, self._tokenizer.text(rest), decoding))
        elif end - window.next_seek >= SHORTEST_REST and self._has_sound(window):
            return
        window.next_seek, window.single_end = end, True

    def _has_sound(self, window: Window) -> bool:
        """Whether the unread rest of a window is more than its background."""
        level = smoothed(self._mel.loudness(window.seek, window.size))
        rest = level[window.next_seek - window.seek :]
        quietest, loudest = float(level.min()), float(level.max())
        return len(rest) > 0 and float(rest.max()) > quietest + 0.5 * (loudest - quietest)

    def _conclude(self, track: Track, window: Window, decoding: Decoding) -> list[Draft]:
        """Move the track on, and note what was written."""
        options = self._options
        track.started = True
        previous = track.seek
        if decoding.silent:
            track.seek = window.next_seek
            return []
        seek = window.next_seek
        if options.word_timestamps:
            seek = self._seek_after_words(track, window)
            if options.hallucination_silence_threshold is not None:
                window.next_seek = seek
                seek, discarded = skip_hallucinations(
                    window, options.hallucination_silence_threshold, track.last_speech, self._mel.n_frames
                )
                if discarded:
                    track.seek = max(seek, previous + 1)
                    return []
            if window.last_word_end is not None:
                track.last_speech = window.last_word_end
        # Nothing may hold the loop in place, whatever the times say.
        track.seek = seek if seek > previous else previous + window.size
        drafts = [draft for draft in window.drafts if draft.start != draft.end and draft.text.strip()]
        for draft in drafts:
            track.history.add(draft.tokens)
        if (
            track.independent
            or not options.condition_on_previous_text
            or decoding.temperature > options.prompt_reset_on_temperature
        ):
            track.history.reset()
        return drafts

    def _seek_after_words(self, track: Track, window: Window) -> int:
        """The end of the last word, where it is known better than by the timestamps."""
        last = window.last_word_end
        if window.single_end or last is None or last <= window.offset:
            track.n_stalled = 0
            return window.next_seek
        seek = round(last * FRAMES_PER_SECOND)
        track.n_stalled = track.n_stalled + 1 if seek - window.seek < STALL_FRAMES else 0
        if track.n_stalled >= STALL_WINDOWS:
            track.n_stalled = 0
            return max(seek, window.next_seek)
        return seek


def split_at_timestamps(
    index: int, seek: int, size: int, decoding: Decoding, tokenizer: WhisperTokenizer
) -> Window:
    """Cut a window's tokens into segments at its pairs of timestamps, and say where to go on.

    A pair closes one segment and opens the next; text after the last pair is unfinished and will be
    read again, unless a single timestamp ends it.
    """
    offset = seek / FRAMES_PER_SECOND
    tokens = list(decoding.tokens)
    is_time = [tokenizer.is_timestamp(token) for token in tokens]
    single_end = is_time[-2:] == [False, True]

    def draft(part: list[int], start: float, end: float) -> Draft:
        return Draft(offset + start, offset + end, part, tokenizer.text(part), decoding)

    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not cuts:
        times = [token for token, timed in zip(tokens, is_time, strict=True) if timed]
        duration = size / FRAMES_PER_SECOND
        if times and times[-1] != tokenizer.special.timestamp_begin:
            duration = tokenizer.timestamp_seconds(times[-1])
        return Window(index, seek, size, [draft(tokens, 0.0, duration)], seek + size, single_end)

    drafts, first = [], 0
    for cut in cuts + ([len(tokens)] if single_end else []):
        part = tokens[first:cut]
        start, end = (tokenizer.timestamp_seconds(token) for token in (part[0], part[-1]))
        drafts.append(draft(part, start, end))
        first = cut
    if single_end:
        return Window(index, seek, size, drafts, seek + size, single_end)
    last = tokens[first - 1] - tokenizer.special.timestamp_begin
    return Window(index, seek, size, drafts, seek + last * FRAMES_PER_TIMESTAMP, single_end)


def clip_frames(clip_timestamps: Sequence[float], n_frames: int) -> list[tuple[int, int]]:
    """(first, end) frames of the parts to read; everything when none is named."""
    points = [min(round(seconds * FRAMES_PER_SECOND), n_frames) for seconds in clip_timestamps] or [0]
    if len(points) % 2:
        points.append(n_frames)
    return [(start, end) for start, end in zip(points[::2], points[1::2], strict=True) if start < end]


def cut_at_quiet_places(mel: LogMel, start: int, end: int) -> list[tuple[int, int]]:
    """Stretches of at most 30 s, in frames, that together are [start, end)."""
    pieces = []
    while end - start > WINDOW_FRAMES:
        cut = quiet_place(mel, start)
        pieces.append((start, cut))
        start = cut
    if start < end:
        pieces.append((start, end))
    return pieces


def quiet_place(mel: LogMel, start: int) -> int:
    """The frame, 22 to 30 s after `start`, in the middle of the quietest 0.3 s there."""
    first = start + WINDOW_FRAMES - QUIET_SEARCH
    level = smoothed(mel.loudness(first, QUIET_SEARCH))
    # The latest of equally quiet places, since long windows are fewer windows.
    return first + len(level) - 1 - int(np.argmin(level[::-1]))


def smoothed(level: NDArray[np.float32]) -> NDArray[np.float64]:
    """Running mean over 0.3 s, same length; at the ends over what there is."""
    width = min(QUIET_STRETCH, len(level))
    if width == 0:
        return np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(level, dtype=np.float64)])
    at = np.arange(len(level))
    low, high = np.maximum(at - width // 2, 0), np.minimum(at + (width + 1) // 2, len(level))
    mean: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return mean


__all__ = [
    "Track",
    "Transcriber",
    "clip_frames",
    "cut_at_quiet_places",
    "quiet_place",
    "smoothed",
    "split_at_timestamps",
]
