"""AUDIO arguments to recordings: files, directories, patterns, "-"; and the turns that belong to one."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from rustasr.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rustasr.types import Turn

STDIN = "-"

# What is taken from a directory; a file that is named may be called anything.
SUFFIXES = frozenset(
    ".3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .caf .flac .flv .gsm .m4a .m4b .m4v .mka .mkv "
    ".mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .oga .ogg .ogv .opus .ra .rf64 .snd .spx .tak .ts .tta .w64 .wav "
    ".webm .wma .wmv .wv".split()
)


def expand(arguments: Iterable[str]) -> list[str | AudioError]:
    """The recordings that the arguments mean, in order and each once.

    An argument that means nothing becomes an AudioError in its place: the others are still to be done.
    """
    found: list[str | AudioError] = []
    for argument in arguments:
        try:
            names = _expand_one(argument)
        except AudioError as error:
            found.append(error)
            continue
        found += [name for name in names if name not in found]
    return found


def _expand_one(argument: str) -> list[str]:
    if argument == STDIN:
        return [STDIN]
    path = Path(argument)
    if path.is_dir():
        return _recordings_in(path)
    if not path.exists() and glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        names = [name for match in matches for name in _directory_or_file(match)]
        if not names:
            raise AudioError(f"{argument}: expected files that match this pattern, found none")
        return names
    return [argument]


def _directory_or_file(name: str) -> list[str]:
    if not Path(name).is_dir():
        return [name]
    return [str(path) for path in _audio_files(Path(name))]


def _recordings_in(directory: Path) -> list[str]:
    names = [str(path) for path in _audio_files(directory)]
    if not names:
        raise AudioError(
            f"{directory}: expected recordings in this directory, found no file with a known suffix "
            "(.wav, .mp3, .flac, .m4a, ...); name the files instead"
        )
    return names


def _audio_files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def turns_of(path: Path, recording: str) -> list[Turn]:
    """The turns that an RTTM file has for a recording: under its name, or of the only one in the file."""
    from rustasr.diarization import read_rttm

    try:
        found = read_rttm(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise AudioError(f"{path}: expected RTTM, a UTF-8 text file: {error}") from error
    stem = Path(recording).stem
    if stem in found:
        return found[stem]
    if len(found) == 1:
        return next(iter(found.values()))
    there = ", ".join(sorted(found)[:5]) or "no turn at all"
    raise AudioError(f"{path}: expected turns of {stem}, found {there}")


__all__ = ["STDIN", "expand", "turns_of"]
