#!/usr/bin/env python3
"""Word-start error against the reader's phone times, on the 60 Russian sentences of festvox-ru.

    word_times.py MODEL.gguf AUDIO_FOLDER        (AUDIO_FOLDER holds ru_nsh/ru_0014.flac, ...)

Prints the median and the 90th percentile of |error| and the median of the signed error, over the words that
were heard right. The truth is tests/data/ru_nsh_word_starts.json.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests" / "helpers")]

import word_truth  # noqa: E402

import rustasr  # noqa: E402


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    model = rustasr.load_model(sys.argv[1])
    errors: list[float] = []
    for sentence in word_truth.starts():
        clip = Path(sys.argv[2]) / "ru_nsh" / f"{sentence}.flac"
        result = model.transcribe(clip, language="ru", timestamps="word")
        errors += word_truth.start_errors(sentence, [(w.text, w.start) for w in result.words])
    distances = sorted(abs(e) for e in errors)
    print(
        f"{len(errors)} words: median {1000 * statistics.median(distances):.0f} ms, "
        f"90 % within {1000 * distances[int(0.9 * len(distances))]:.0f} ms, "
        f"median of the signed error {1000 * statistics.median(errors):+.0f} ms"
    )


if __name__ == "__main__":
    main()
