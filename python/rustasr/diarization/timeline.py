"""A picture of a recording: who speaks when, and which speech has text. SVG, without scripts or styles.

A lane for every speaker, then one for the text where a detector listened: green where speech has text, red
where it has none. Time runs to the right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from rustasr.diarization.turns import speakers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rustasr.types import Coverage, TranscriptionResult, Turn

WIDTH, LABELS, LANE, BAR = 1000, 150, 30, 18  # pixels: the picture, names, a lane, what is drawn in it
TOP, BOTTOM, RIGHT = 12, 34, 20
# Okabe and Ito: told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
WITH_TEXT, WITHOUT_TEXT = "#9bc99b", "#d62728"
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # seconds between marks
MOST_MARKS = 12
NAME_LENGTH = 18


def to_svg(result: TranscriptionResult) -> str:
    """The picture of a result with turns."""
    turns = result.turns or ()
    speakers = speakers_of(turns)
    duration = max(result.duration, *(turn.end for turn in turns), 1e-3) if turns else result.duration or 1e-3
    n_lanes = len(speakers) + (result.coverage is not None)
    bottom = TOP + max(1, n_lanes) * LANE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + BOTTOM}" '
        f'viewBox="0 0 {WIDTH} {bottom + BOTTOM}" font-family="sans-serif" font-size="13">',
        "<title>Who speaks when</title>",
        f'<rect width="{WIDTH}" height="{bottom + BOTTOM}" fill="#ffffff"/>',
        *_marks(duration, bottom),
    ]
    for lane, speaker in enumerate(speakers):
        colour = COLOURS[lane % len(COLOURS)]
        own = [turn for turn in turns if turn.speaker == speaker]
        parts += [_label(lane, speaker), _bars(((t.start, t.end) for t in own), lane, duration, colour)]
    if result.coverage is not None:
        parts += _text_lane(result.coverage, turns, len(speakers), duration)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text_lane(coverage: Coverage, turns: Sequence[Turn], lane: int, duration: float) -> Iterator[str]:
    yield _label(lane, f"text ({100 * coverage.share:.0f} %)")
    yield _bars(((turn.start, turn.end) for turn in turns), lane, duration, WITH_TEXT)
    yield _bars(coverage.gaps, lane, duration, WITHOUT_TEXT)


def _label(lane: int, text: str) -> str:
    short = text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "…"
    y = TOP + lane * LANE + LANE / 2 + 5
    return f'<text x="{LABELS - 10}" y="{y:g}" text-anchor="end">{escape(short)}</text>'


def _bars(spans: Iterable[tuple[float, float]], lane: int, duration: float, colour: str) -> str:
    """All bars of a lane as one path; the shortest is one pixel wide."""
    y, pixels = TOP + lane * LANE + (LANE - BAR) / 2, _pixels_per_second(duration)
    boxes = (
        f"M{LABELS + start * pixels:.1f} {y:g}h{max(1.0, (end - start) * pixels):.1f}v{BAR}"
        f"H{LABELS + start * pixels:.1f}z"
        for start, end in spans
    )
    return f'<path fill="{colour}" d="{"".join(boxes)}"/>'


def _marks(duration: float, bottom: int) -> Iterator[str]:
    """Lines through all lanes with their times below."""
    step = next(
        (s for s in STEPS if duration / s <= MOST_MARKS), STEPS[-1] * -(-duration // (STEPS[-1] * 12))
    )
    for i in range(int(duration / step) + 1):
        x = LABELS + i * step * _pixels_per_second(duration)
        yield f'<path stroke="#dddddd" d="M{x:.1f} {TOP}V{bottom}"/>'
        yield (
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555555">'
            f"{_clock(round(i * step))}</text>"
        )


def _pixels_per_second(duration: float) -> float:
    return (WIDTH - LABELS - RIGHT) / duration


def _clock(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


__all__ = ["to_svg"]
