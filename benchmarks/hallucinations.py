"""Words that models make up where nobody speaks, with and without voice activity detection.

    python benchmarks/hallucinations.py AUDIO MODEL... [--vad none --vad webrtc --vad silero]

AUDIO is the folder of recordings, with those without speech in nonspeech/. Each is transcribed by itself, and
once more between two sentences (`--speech FILE`), where only words further than MARGIN_S from the sentences
count. Counted are the words in the result, and those about which it has no doubt: no flag on their segment.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from wer import normalize

import rustasr
from rustasr.audio import SAMPLE_RATE, load_audio
from rustasr.second_look import HEARD_AGAIN

MARGIN_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("audio", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--vad", action="append", choices=["none", "webrtc", "silero"])
    parser.add_argument("--speech", type=Path, help="a sentence to put around the clips")
    parser.add_argument("--window-seconds", type=float, help="windows of Qwen3-ASR")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    clips = {path.stem: load_audio(path) for path in sorted((args.audio / "nonspeech").glob("*.flac"))}
    speech = load_audio(args.speech) if args.speech else None
    hours = sum(map(len, clips.values())) / SAMPLE_RATE / 3600
    print(f"{len(clips)} clips, {hours * 60:.1f} minutes\n")
    print("| model | detector | clips | words per hour | unflagged |")
    print("| --- | --- | --- | --: | --: |")
    for name in args.models:
        model = rustasr.load_model(name, device="cpu", threads=args.threads)
        for vad in args.vad or ["none", "webrtc"]:
            options: dict[str, Any] = {} if vad == "none" else {"vad": vad}
            if args.window_seconds is not None:
                options["window_seconds"] = args.window_seconds
            for where in ["alone"] if speech is None else ["alone", "with speech"]:
                kept, unflagged = 0, list[str]()
                for clip, samples in clips.items():
                    spoken = speech if where == "with speech" else None
                    for words, flags in made_up(model, samples, spoken, options):
                        kept += len(words)
                        if words and not set(flags) - {HEARD_AGAIN, "estimated_times"}:
                            unflagged += [f"{clip}: {' '.join(words)}"]
                rate = sum(len(text.split(": ", 1)[1].split()) for text in unflagged) / hours
                print(
                    f"| {Path(name).stem} | {vad} | {where} | {kept / hours:.0f} | {rate:.0f} |", flush=True
                )
                for text in unflagged:
                    print(f"  unflagged: {text}")


def made_up(
    model: Any, samples: Any, speech: Any, options: dict[str, Any]
) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """(words, flags of their segment) of what is written where nobody speaks."""
    timestamps = "segment" if model.model_type == "qwen3" else "word"
    if speech is None:
        result = model.transcribe(samples, timestamps=timestamps, **options)
        for segment in result.segments:
            yield normalize(segment.text), segment.flags
        return
    joined = np.concatenate([speech, samples, speech])
    low = len(speech) / SAMPLE_RATE + MARGIN_S
    high = low + len(samples) / SAMPLE_RATE - 2 * MARGIN_S
    for segment in model.transcribe(joined, timestamps=timestamps, **options).segments:
        parts = segment.words or (segment,)
        text = " ".join(part.text for part in parts if low < (part.start + part.end) / 2 < high)
        yield normalize(text), segment.flags


if __name__ == "__main__":
    main()
