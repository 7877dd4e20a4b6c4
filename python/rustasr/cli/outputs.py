"""Where a result goes: standard output, one file, or a directory of files, all written atomically."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rustasr import writers
from rustasr.cli.inputs import STDIN

if TYPE_CHECKING:
    from rustasr.types import TranscriptionResult


@dataclass(slots=True)
class Outputs:
    """The plan: formats, and a file or directory to write them to (neither: standard output)."""

    formats: tuple[str, ...]
    file: Path | None = None
    directory: Path | None = None
    _taken: set[Path] = field(default_factory=set)

    @classmethod
    def plan(
        cls, formats: tuple[str, ...], file: str | None, directory: str | None, inputs: list[str]
    ) -> Outputs:
        """Check what was asked for; the format of -o FILE follows from its suffix when none is named."""
        if file is not None and directory is not None:
            raise click.UsageError("-o FILE and --output-dir exclude each other")
        if file == "-":
            file = None
        if file is not None:
            if len(inputs) > 1:
                raise click.UsageError(
                    f"-o FILE takes one recording, got {len(inputs)}: use --output-dir DIR"
                )
            if len(formats) > 1:
                raise click.UsageError(f"-o FILE takes one format, got {len(formats)}: use --output-dir DIR")
            if Path(file).is_dir():
                raise click.UsageError(f"-o: {file} is a directory: use --output-dir {file}")
            formats = formats or (_format_of(Path(file)),)
        return cls(
            formats or ("text",),
            None if file is None else Path(file),
            None if directory is None else Path(directory),
        )

    def paths(self, name: str) -> list[Path]:
        """The files for one recording, a format each; empty for standard output."""
        if self.file is not None:
            return [self.file]
        if self.directory is None:
            return []
        base = "stdin" if name == STDIN else Path(name).name
        stem = Path(base).stem
        # Two recordings of one name must not write to one file: talk.wav, talk.mp3 and other/talk.wav.
        for candidate in (stem, base, *(f"{stem}-{n}" for n in range(2, 1_000_000))):
            paths = [self.directory / f"{candidate}{writers.FORMATS[kind][0]}" for kind in self.formats]
            if not self._taken.intersection(paths):
                self._taken.update(paths)
                return paths
        raise AssertionError("a million recordings of one name")

    def write(self, result: TranscriptionResult, paths: list[Path], *, partial: bool = False) -> list[Path]:
        """Write a result in every format and say where; a partial one goes beside, as NAME.partial.SUFFIX."""
        if not paths:
            for kind in self.formats:
                click.echo(writers.render(result, kind), nl=False)
            return []
        written = []
        for kind, path in zip(self.formats, paths, strict=True):
            target = partial_path(path) if partial else path
            target.parent.mkdir(parents=True, exist_ok=True)
            writers.write_atomic(target, writers.render(result, kind))
            written.append(target)
            if not partial:
                partial_path(path).unlink(missing_ok=True)
        return written


def journal_path(path: Path) -> Path:
    """Where the rounds of an unfinished transcription are kept, from which --resume continues."""
    return path.with_name(f"{path.stem}.partial.jsonl")


def partial_path(path: Path) -> Path:
    """Where the finished part of an interrupted transcription goes."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _format_of(path: Path) -> str:
    by_suffix = {suffix: name for name, (suffix, _) in writers.FORMATS.items()}
    return by_suffix.get(path.suffix.lower(), "text")


__all__ = ["Outputs", "journal_path", "partial_path"]
