"""Who speaks when, and who said what: error rates over recordings whose speakers are known.

    python benchmarks/diarize_table.py --audio ../shared/audio --models tiny.en.gguf,base.gguf
    python benchmarks/diarize_table.py --audio ../shared/audio --overlap none

Two tables. By voice: the diarization error rate of every recording with an `.rttm` beside it, with the
number of speakers estimated and given. By channel: the share of the words of stereo calls that are on the
right side, which needs a model for the words, and the turns with their words (`NAME.turns.tsv`).

Conventions: NIST collar (0.25 s on each side of a reference boundary), overlap scored, inside the `.uem`
where there is one, otherwise over the whole recording; figures of a group are sums over its files, not means
of percentages. A word is on the right side when the reference word that it is aligned with (over the whole
talk, in order of time) is that side's; words that are aligned with none are counted apart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import rustasr
from rustasr.audio import load_audio
from rustasr.diarization import DiarizationOptions, diarize, find_turns, read_rttm
from rustasr.diarization.report import said
from rustasr.diarization.transcript import PAD_MS
from rustasr.scoring import SpeakerErrors, normalized, read_uem, speaker_errors
from rustasr.vad import SileroOptions, load_vad

# On the right of this call two people speak: by voice the turn of the first one is another speaker's.
OTHER_VOICES = {("en_call_lj_jfk_mono", 10.555): "right, first voice"}
GROUPS = {
    "calls and meeting, built": ("calls/*_mono.flac",),
    "AMI": ("multi/ami_*.flac",),
    "telephone": ("multi/pyannote_sample.flac",),
}


def detector() -> Any:
    return load_vad("silero", SileroOptions(speech_pad_ms=PAD_MS))


def by_voice(path: Path, encoder: Any, overlap: Any) -> dict[str, Any]:
    """Errors with the number of speakers estimated and given."""
    reference = [
        replace(turn, speaker=OTHER_VOICES.get((path.stem, turn.start), turn.speaker))
        for turn in next(iter(read_rttm(path.with_suffix(".rttm").read_text()).values()))
    ]
    uem = path.with_suffix(".uem")
    seconds = len(load_audio(path)) / 16000
    regions = next(iter(read_uem(uem.read_text()).values())) if uem.exists() else [(0.0, seconds)]
    inside = [t for t in reference if any(t.start < end and t.end > start for start, end in regions)]
    n_speakers = len({turn.speaker for turn in inside})
    errors = {}
    for name, count in (("estimated", None), ("given", n_speakers)):
        options = DiarizationOptions(speaker_mode="cluster", num_speakers=count)
        found = find_turns(str(path), detector(), encoder, options, overlap=overlap)
        errors[name] = speaker_errors(reference, found.turns, regions)
    return {"file": path.stem, **errors}


def line(name: str, errors: SpeakerErrors) -> str:
    parts = (errors.rate, *(p / errors.speech for p in (errors.missed, errors.false_alarm, errors.confusion)))
    figures = " | ".join(f"{100 * part:.1f}" for part in parts)
    return f"{name} | {errors.found} of {errors.speakers} | {figures}"


def voice_table(audio: Path, encoder: Any, overlap: Any) -> Iterator[dict[str, Any]]:
    print("| recording | number | speakers found | DER % | missed | false alarm | confusion |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for group, patterns in GROUPS.items():
        sums: dict[str, SpeakerErrors] = {}
        files = sorted(
            p for pattern in patterns for p in audio.glob(pattern) if p.with_suffix(".rttm").exists()
        )
        for path in files:
            row = by_voice(path, encoder, overlap)
            for number in ("estimated", "given"):
                print("|", line(f"{path.stem} | {number}", row[number]), "|", flush=True)
                sums[number] = row[number] if number not in sums else sums[number] + row[number]
            yield row
        for number, errors in sums.items():
            print("|", line(f"**{group}** | {number}", errors), "|", flush=True)


def sides(path: Path, model: Any, vad: Any, language: str) -> dict[str, Any]:
    """How many words of a stereo call are on the right side."""
    import jiwer

    columns = [row.split("\t") for row in turns_file(path).read_text(encoding="utf-8").splitlines()[1:]]
    order = list(dict.fromkeys(column[0] for column in columns))
    side = {speaker: ("left", "right")[i] for i, speaker in enumerate(order)}
    reference = [(w, side[c[0]]) for c in columns for w in normalized(c[3], language).split()]
    options = DiarizationOptions(speaker_mode="channel", left_name="left", right_name="right")
    result = diarize(model, str(path), options, vad=vad, language=language)
    found = [(w, s.speaker) for s in said(result) for w in normalized(s.text, language).split()]
    aligned = jiwer.process_words(" ".join(w for w, _ in reference), " ".join(w for w, _ in found))
    right = wrong = 0
    for chunk in aligned.alignments[0]:
        if chunk.type in ("equal", "substitute"):
            for i in range(chunk.ref_end_idx - chunk.ref_start_idx):
                same = reference[chunk.ref_start_idx + i][1] == found[chunk.hyp_start_idx + i][1]
                right, wrong = right + same, wrong + (not same)
    return {
        "file": path.stem,
        "model": model.name,
        "words": len(reference),
        "aligned": right + wrong,
        "right_side": right / max(1, right + wrong),
        "inserted": aligned.insertions,
        "wer": aligned.wer,
    }


def turns_file(path: Path) -> Path:
    """The reference turns of a call: a copy of it in another format has the same."""
    own = path.with_name(f"{path.stem}.turns.tsv")
    return own if own.exists() else path.with_name(f"{path.stem.split('_stereo')[0]}_stereo.turns.tsv")


def channel_table(audio: Path, models: list[Any]) -> Iterator[dict[str, Any]]:
    print("\n| call | model | words | aligned | on the right side % | inserted | WER % |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for path in sorted(audio.glob("calls/*_stereo*.flac")):
        language = path.stem[:2]
        for model in models:
            if language in model.supported_languages:
                row = sides(path, model, detector(), language)
                figures = (row["words"], row["aligned"], f"{100 * row['right_side']:.1f}", row["inserted"])
                print("|", " | ".join(map(str, (row["file"], row["model"], *figures))), end=" | ")
                print(f"{100 * row['wer']:.1f} |", flush=True)
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder with calls/ and multi/")
    parser.add_argument("--encoder", help="speaker encoder; default: the usual one")
    parser.add_argument("--overlap", help="what finds two voices at once, or none; default: the usual one")
    parser.add_argument("--models", default="", help="models for the words of the calls, by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="all figures as JSON")
    arguments = parser.parse_args()
    encoder = rustasr.load_speaker_encoder(arguments.encoder, threads=arguments.threads)
    overlap = None
    if arguments.overlap != "none":
        overlap = rustasr.load_overlap_detector(arguments.overlap, threads=arguments.threads)
    table = voice_table(arguments.audio, encoder, overlap)
    rows = [{key: vars_of(value) for key, value in row.items()} for row in table]
    models = [rustasr.load_model(n, threads=arguments.threads) for n in arguments.models.split(",") if n]
    words = list(channel_table(arguments.audio, models)) if models else []
    if arguments.out:
        arguments.out.write_text(json.dumps({"voices": rows, "channels": words}, indent=2) + "\n")


def vars_of(value: Any) -> Any:
    if not isinstance(value, SpeakerErrors):
        return value
    names = ("speech", "missed", "false_alarm", "confusion", "speakers", "found", "rate")
    return {name: getattr(value, name) for name in names}


if __name__ == "__main__":
    main()
