"""Finds the tokenizer of a checkpoint that may not carry one (an OpenAI `.pt` does not)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from rustasr.convert.sources import Detected
from rustasr.convert.whisper import FIRST_MULTILINGUAL_VOCAB, WhisperSource
from rustasr.convert.whisper_tokenizer import WhisperVocabulary, from_tokens, read_tokenizer
from rustasr.errors import ModelFileError, RustAsrError


def find_vocabulary(found: Detected, source: WhisperSource, explicit: Path | None) -> WhisperVocabulary:
    """In this order: the one given, the tokens inside the file, files beside it, an installed
    openai-whisper's, and that of a model in the cache or the package index with the same ranks."""
    n_vocab = source.dims.n_vocab
    if explicit is not None:
        if not explicit.exists():
            raise ModelFileError(f"tokenizer {explicit}: no such file or folder")
        return read_tokenizer(explicit, n_vocab)
    if source.tokens:
        return from_tokens(source.tokens, n_vocab, source.where)
    for path in (found.folder / "tokenizer.json", found.folder / "vocab.json"):
        if path.is_file() and found.kind != "torch":
            return read_tokenizer(path, n_vocab)
    for path in _elsewhere(found.folder, n_vocab):
        vocabulary = read_tokenizer(path, n_vocab)
        # Every multilingual Whisper has the same ranks; only the number of languages differs.
        return from_tokens(vocabulary.tokens, n_vocab, str(path))
    return _borrowed(source)


def _elsewhere(folder: Path, n_vocab: int) -> Iterator[Path]:
    ranks = "multilingual.tiktoken" if n_vocab >= FIRST_MULTILINGUAL_VOCAB else "gpt2.tiktoken"
    spec = importlib.util.find_spec("whisper")
    assets = Path(spec.origin).parent / "assets" if spec is not None and spec.origin else None
    places: list[Path] = [folder / "tokenizer.json", folder / "vocab.json", folder / ranks]
    if assets is not None:
        places.append(assets / ranks)
    yield from (path for path in places if path.is_file())


def _borrowed(source: WhisperSource) -> WhisperVocabulary:
    advice = (
        f"{source.where} carries no tokenizer. Give one with --tokenizer (tokenizer.json, vocab.json or a "
        ".tiktoken file of the same model), or put it beside the weights"
    )
    if source.dims.n_vocab < FIRST_MULTILINGUAL_VOCAB - 1:
        raise ModelFileError(advice)
    from rustasr import hub

    try:
        return hub.borrow_vocabulary(source.dims.n_vocab)
    except RustAsrError as error:
        raise ModelFileError(f"{advice}. None could be fetched either: {error}") from error
