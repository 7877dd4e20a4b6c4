"""Qwen's byte-level BPE in one canonical form, whichever of its file layouts the checkpoint carries.

Sources: tokenizer.json (the `-hf` repositories); vocab.json + merges.txt + tokenizer_config.json (the
original ones); a `.tiktoken` rank file, whose merges follow from the ranks. All come down to base tokens in
id order, merges in order, and the added tokens; the JSON that is written is the same for all.

The normaliser (NFC) and the split pattern are Qwen2's, from transformers 5.23, tokenization_qwen2.py. A file
with another pattern gets Qwen2's and a warning: some exports carry Mistral's by mistake.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustasr.convert.whisper_tokenizer import byte_to_char, derive_merges
from rustasr.errors import ModelFileError

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Ids of the added tokens that the released models use, for a rank file, which lists base tokens only
# (tokenizer_config.json of the Qwen3-ASR repositories). `<asr_text>` and `<timestamp>` are not special:
# decoding keeps them.
RELEASED_ADDED = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|audio_start|>": 151669,
    "<|audio_end|>": 151670,
    "<|audio_pad|>": 151676,
    "<asr_text>": 151704,
    "<timestamp>": 151705,
}
_NOT_SPECIAL = ("<asr_text>", "<timestamp>")
_MAX_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in text before BPE; `special` ones vanish when text is decoded."""

    id: int
    content: str
    special: bool


@dataclass(frozen=True)
class QwenVocabulary:
    """Base tokens as text over GPT-2's stand-ins for bytes (index = id), merges in order, added tokens."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    added: tuple[AddedToken, ...]
    where: str
    warnings: tuple[str, ...] = ()

    def find(self, content: str) -> int | None:
        """Id of an added token, or None."""
        return next((token.id for token in self.added if token.content == content), None)

    def need(self, content: str) -> int:
        """Id of an added token; ModelFileError when there is none."""
        found = self.find(content)
        if found is None:
            raise ModelFileError(f"{self.where}: no added token {content!r}, so not a Qwen3-ASR tokenizer")
        return found


def read_tokenizer(path: Path) -> QwenVocabulary:
    """A tokenizer.json, a vocab.json with its companions, a `.tiktoken` file, or a folder with either."""
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.json"):
            if (path / name).is_file():
                return read_tokenizer(path / name)
        raise ModelFileError(f"{path}: expected tokenizer.json, or vocab.json and merges.txt; found neither")
    if path.suffix == ".tiktoken":
        return _from_ranks(path)
    data = _read_json(path)
    if isinstance(data.get("model"), dict):
        return _from_tokenizers(data, path)
    return _from_files(data, path)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ModelFileError(f"{path} is missing: it belongs to the tokenizer, copy it beside the weights")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes is no tokenizer (limit {_MAX_FILE_BYTES})")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ModelFileError(f"{path}: not UTF-8: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def _from_tokenizers(data: dict[str, Any], path: Path) -> QwenVocabulary:
    model, where = data["model"], str(path)
    if model.get("type", "BPE") != "BPE":
        raise ModelFileError(f"{where}: model.type is {model['type']!r:.40}, expected 'BPE'")
    added = data.get("added_tokens")
    entries = added if isinstance(added, list) else []
    warnings = () if SPLIT_PATTERN in _patterns(data.get("pre_tokenizer")) else (_OTHER_PATTERN,)
    return _checked(
        model.get("vocab"),
        _merge_pairs(model.get("merges"), where),
        [_added(entry.get("id") if isinstance(entry, dict) else None, entry, where) for entry in entries],
        where,
        warnings,
    )


_OTHER_PATTERN = "the tokenizer file splits text by another pattern than Qwen2's: Qwen2's is written"


def _patterns(node: Any) -> list[str]:
    """Every regular expression inside a pre-tokenizer's description."""
    if isinstance(node, dict):
        own = [node["Regex"]] if isinstance(node.get("Regex"), str) else []
        return own + [pattern for value in node.values() for pattern in _patterns(value)]
    if isinstance(node, list):
        return [pattern for value in node for pattern in _patterns(value)]
    return []


def _merge_pairs(merges: Any, where: str) -> list[tuple[str, str]]:
    """`["a b", ...]` or `[["a", "b"], ...]`"""
    if not isinstance(merges, list):
        raise ModelFileError(f"{where}: expected a list of BPE merges, found {type(merges).__name__}")
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) and part for part in parts)
        ):
            raise ModelFileError(f"{where}: merge {merge!r:.60} is not a pair of tokens")
        pairs.append((parts[0], parts[1]))
    return pairs


def _added(token_id: Any, entry: Any, where: str) -> AddedToken:
    fields = entry if isinstance(entry, dict) else {}
    content, special = fields.get("content"), fields.get("special")
    if type(token_id) is not int or not isinstance(content, str) or not isinstance(special, bool):
        raise ModelFileError(
            f"{where}: added token {entry!r:.80} (id {token_id!r:.20}): expected an id, content and special"
        )
    return AddedToken(token_id, content, special)


def _from_files(vocab: dict[str, Any], path: Path) -> QwenVocabulary:
    merges = path.with_name("merges.txt")
    lines = _read_text(merges).splitlines()
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    config = path.with_name("tokenizer_config.json")
    decoder = _read_json(config).get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        raise ModelFileError(f"{config}: no added_tokens_decoder (id -> token)")
    added = [
        _added(int(key) if key.isdecimal() else key, entry, str(config)) for key, entry in decoder.items()
    ]
    return _checked(vocab, _merge_pairs([line for line in lines if line], str(merges)), added, str(path))


def _from_ranks(path: Path) -> QwenVocabulary:
    from rustasr.convert.whisper_tokenizer import read_ranks

    ranks = read_ranks(path)
    if len(ranks) != min(RELEASED_ADDED.values()):
        raise ModelFileError(f"{path}: {len(ranks)} ranks, Qwen's file has {min(RELEASED_ADDED.values())}")
    merges = [(_to_text(left), _to_text(right)) for left, right in derive_merges(ranks, str(path))]
    added = [
        AddedToken(token_id, content, content not in _NOT_SPECIAL)
        for content, token_id in RELEASED_ADDED.items()
    ]
    return _checked({_to_text(token): rank for rank, token in enumerate(ranks)}, merges, added, str(path))


def _to_text(token: bytes) -> str:
    table = byte_to_char()
    return "".join(table[byte] for byte in token)


def _checked(
    vocab: Any,
    merges: list[tuple[str, str]],
    added: list[AddedToken],
    where: str,
    warnings: Sequence[str] = (),
) -> QwenVocabulary:
    """Base ids without a gap from 0, all 256 bytes among them, every merge made of tokens and making one,
    added tokens behind them."""
    if not isinstance(vocab, dict) or not all(type(token_id) is int for token_id in vocab.values()):
        raise ModelFileError(f"{where}: expected a BPE vocabulary (token -> id), found none")
    extra = {token.content: token.id for token in added}
    if len(extra) != len(added) or len(set(extra.values())) != len(added):
        raise ModelFileError(f"{where}: an added token or its id appears twice")
    base = {text: token_id for text, token_id in vocab.items() if extra.get(text) != token_id}
    by_id = {token_id: text for text, token_id in base.items()}
    if len(by_id) != len(base) or (by_id and (min(by_id) != 0 or max(by_id) != len(by_id) - 1)):
        raise ModelFileError(f"{where}: the ids of the base tokens are not 0..{len(base) - 1}, each once")
    missing = [char for char in byte_to_char().values() if char not in base]
    if missing:
        raise ModelFileError(f"{where}: no token for the byte {missing[0]!r}: not a byte-level BPE")
    _check_merges(base, merges, where)
    low = min(extra.values(), default=len(base))
    if low < len(base):
        raise ModelFileError(f"{where}: added token id {low} is that of a base token")
    return QwenVocabulary(
        tuple(by_id[token_id] for token_id in range(len(by_id))),
        tuple(merges),
        tuple(sorted(added, key=lambda token: token.id)),
        where,
        tuple(warnings),
    )


def _check_merges(base: Mapping[str, int], merges: list[tuple[str, str]], where: str) -> None:
    for left, right in merges:
        if left not in base or right not in base or left + right not in base:
            raise ModelFileError(f"{where}: merge {left!r:.40} + {right!r:.40} is not among the tokens")
    if len(merges) < len(base) - 256:
        raise ModelFileError(f"{where}: {len(merges)} merges cannot make {len(base)} tokens")


def tokenizers_json(vocabulary: QwenVocabulary) -> str:
    """The complete tokenizers JSON."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {
        "type": "Split",
        "pattern": {"Regex": SPLIT_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token.id, "content": token.content, **flags, "special": token.special}
            for token in vocabulary.added
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": {text: token_id for token_id, text in enumerate(vocabulary.tokens)},
            "merges": [f"{left} {right}" for left, right in vocabulary.merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
