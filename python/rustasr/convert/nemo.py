"""Reader of NeMo's `.nemo` archives: a tar, plain or gzipped, of configuration, weights and tokenizer.

    model_config.yaml   model_weights.ckpt   <md5>_tokenizer.model   <md5>_tokenizer.vocab   <md5>_vocab.txt

Nothing is unpacked into a folder: members are read where they lie. A gzipped archive is first inflated into
a nameless temporary file, up to a size that weights can have. (NVIDIA/NeMo, core/connectors/
save_restore_connector.py.)
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rustasr.convert.binary import MappedFile
from rustasr.errors import ModelFileError

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
GZIP_HEAD = b"\x1f\x8b\x08"
_MAX_MEMBERS = 4096
_MAX_CONFIG_BYTES = 16 << 20
_MAX_DEPTH = 64
# Weights hardly compress; an archive that grows more than this is not one of weights.
_MAX_GROWTH, _ALWAYS_ALLOWED = 16, 64 << 20
_CHUNK = 1 << 20


def looks_like(head: bytes) -> bool:
    """Whether the first 512 bytes of a file are those of a tar header, or of a gzip stream."""
    return head[257:262] == b"ustar" or head.startswith(GZIP_HEAD)


class NemoArchive:
    """The regular files of a `.nemo`, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = MappedFile(path)
        if file.read(0, len(GZIP_HEAD)) == GZIP_HEAD:
            file = _inflated(file, path)
        self.file = file
        self.members = self._read_members()

    def _read_members(self) -> dict[str, tuple[int, int]]:
        """name -> (offset, size). Only whole files count: no links, no devices, no holes."""
        members: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(fileobj=self.file.stream(), mode="r:") as archive:
                for number, entry in enumerate(archive):
                    if number >= _MAX_MEMBERS:
                        raise ModelFileError(f"{self.path}: more than {_MAX_MEMBERS} members: not a .nemo")
                    name = entry.name.removeprefix("./")
                    if not entry.isreg() or entry.issparse():
                        continue
                    if name in members:
                        raise ModelFileError(f"{self.path}: member {name!r:.80} is there twice")
                    if entry.size < 0 or entry.offset_data + entry.size > self.file.size:
                        raise ModelFileError(
                            f"{self.path}: {name!r:.80} has {entry.size} bytes at {entry.offset_data}, "
                            f"the archive {self.file.size}: truncated, fetch it again"
                        )
                    members[name] = (entry.offset_data, entry.size)
        except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError) as error:
            raise ModelFileError(f"{self.path}: not a complete tar archive: {error}") from error
        return members

    def part(self, name: str) -> MappedFile:
        """A member as a file; ModelFileError names the one that is missing."""
        if name not in self.members:
            there = ", ".join(sorted(self.members)[:6]) or "nothing"
            raise ModelFileError(f"{self.path}: member {name!r:.80} is missing; found {there:.300}")
        offset, size = self.members[name]
        if size == 0:
            raise ModelFileError(f"{self.path}: member {name!r:.80} is empty")
        return self.file.part(offset, size, f"{self.path}: {name}")

    def content(self, name: str, limit: int) -> bytes:
        """All bytes of a member of at most `limit` bytes."""
        part = self.part(name)
        if part.size > limit:
            raise ModelFileError(f"{part.path}: {part.size} bytes, expected at most {limit}")
        return part.read(0, part.size)

    def config(self) -> dict[str, Any]:
        """model_config.yaml; only plain YAML values, no Python objects."""
        import yaml

        text = self.content(CONFIG, _MAX_CONFIG_BYTES)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            self._check_depth(yaml.parse(text, Loader=loader))
            data = yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader, in C where it is built
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(f"{self.path}: {CONFIG} is not valid YAML: {reason:.300}") from error
        if not isinstance(data, dict):
            raise ModelFileError(f"{self.path}: {CONFIG} holds a {type(data).__name__}, expected keys")
        return data

    def _check_depth(self, events: Iterator[Any]) -> None:
        """The loader recurses for every level, in C without a limit; the parser does not."""
        depth = 0
        for event in events:
            depth += str(type(event).__name__).endswith("StartEvent")
            depth -= str(type(event).__name__).endswith("EndEvent")
            if depth > _MAX_DEPTH:
                raise ModelFileError(f"{self.path}: {CONFIG} is nested deeper than {_MAX_DEPTH} levels")


def _inflated(file: MappedFile, path: Path) -> MappedFile:
    """The content of a gzip file in a temporary file that vanishes with the last reference to it."""
    limit = max(_ALWAYS_ALLOWED, _MAX_GROWTH * file.size)
    out = tempfile.TemporaryFile(prefix="rustasr-")  # noqa: SIM115 - the mapping takes it over
    try:
        with gzip.GzipFile(fileobj=file.stream()) as stream:
            while block := stream.read(_CHUNK):
                if out.tell() + len(block) > limit:
                    raise ModelFileError(
                        f"{path}: {file.size} bytes inflate to more than {limit}: not an archive of weights"
                    )
                out.write(block)
        return MappedFile(path, out)
    except (OSError, EOFError, zlib.error) as error:
        raise ModelFileError(f"{path}: not a complete gzip archive: {error}") from error
    finally:
        out.close()
