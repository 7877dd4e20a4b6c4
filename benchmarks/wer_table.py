#!/usr/bin/env python3
"""Word error rates of every weight type beside openai-whisper's, over real speech with known words.

    wer_table.py --audio AUDIO_FOLDER --out results.jsonl tiny.en-f16=FILE.gguf base-q8_0=FILE.gguf ...
    wer_table.py --audio AUDIO_FOLDER --out results.jsonl --table        only print

AUDIO_FOLDER has MANIFEST.tsv (file, language, reference, how far the reference is to be trusted). English
clips are those of `en` and `en_ivr`, Russian ones of `ru`, `ru_nsh` and `ru_ivr`. Left out are clips without
a reference and those whose reference was itself written down from a Whisper model's output. Everybody runs
greedily with default options and the language given; openai-whisper's texts are the stored goldens.
Normaliser: wer.py. A clip counts only where both have a text. Results are appended as they come; a second
run continues.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from wer import Errors, word_errors  # noqa: E402 - beside this file

GOLDENS = HERE.parent / "tests" / "data" / "goldens" / "whisper"
FOLDERS = {"English": ("en", "en_ivr"), "Russian": ("ru", "ru_nsh", "ru_ivr")}
UNTRUSTED = ("heard with", "file name", "audio may stop")


def trusted(audio: Path) -> dict[str, dict[str, str]]:
    """Rows of the manifest that count, by file."""
    with (audio / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    folders = {folder for group in FOLDERS.values() for folder in group}
    return {
        r["file"]: r
        for r in rows
        if r["file"].split("/")[0] in folders
        and r["reference"].strip()
        and not any(mark in r["ref_kind"] for mark in UNTRUSTED)
    }


def transcribe(
    name: str, path: str, clips: dict[str, dict[str, str]], audio: Path, out: Path, threads: int
) -> None:
    """Append {system, clip, text} for every clip that `out` lacks."""
    import rustasr

    have = {(r["system"], r["clip"]) for r in read(out)}
    model = rustasr.load_model(path, threads=threads)
    english_only = name.startswith("tiny.en")
    with out.open("a", encoding="utf-8") as file:
        for clip, row in clips.items():
            if (name, clip) in have or (english_only and row["language"] != "en"):
                continue
            result = model.transcribe(audio / clip, language=row["language"])
            file.write(
                json.dumps({"system": name, "clip": clip, "text": result.text}, ensure_ascii=False) + "\n"
            )
            file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def reference_texts(size: str) -> dict[str, str]:
    """openai-whisper's text by clip."""
    return {row["clip"]: row["text"] for row in read(GOLDENS / f"{size}-greedy.jsonl")}


def table(clips: dict[str, dict[str, str]], out: Path) -> str:
    """One line a system: errors over the clips that it and openai-whisper both have."""
    texts: dict[str, dict[str, str]] = {}
    for row in read(out):
        texts.setdefault(row["system"], {})[row["clip"]] = row["text"]
    lines = [
        "| weights | language | clips | words | WER % | openai-whisper, same clips |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for system, found in texts.items():
        golden = reference_texts(system.rpartition("-")[0])
        for language, folders in FOLDERS.items():
            both = [c for c in clips if c in found and c in golden and c.split("/")[0] in folders]
            if not both:
                continue
            ours = sum((word_errors(clips[c]["reference"], found[c]) for c in both), Errors())
            theirs = sum((word_errors(clips[c]["reference"], golden[c]) for c in both), Errors())
            rates = f"{100 * ours.rate:.2f} | {100 * theirs.rate:.2f}"
            lines.append(f"| {system} | {language} | {len(both)} | {ours.words} | {rates} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only print what the results say")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores; 1 on a machine that is busy")
    parser.add_argument("models", nargs="*", metavar="NAME=GGUF")
    args = parser.parse_args()
    clips = trusted(args.audio)
    if not args.table:
        for given in args.models:
            name, _, path = given.partition("=")
            transcribe(name, path, clips, args.audio, args.out, args.threads)
    print(table(clips, args.out))


if __name__ == "__main__":
    main()
