"""Whisper's tokenizer in one canonical form, whatever the checkpoint carried.

Sources: tokenizer.json; vocab.json (+ added_tokens.json); a `.tiktoken` rank file; the token bytes inside
a whisper.cpp `.bin`. All come down to the byte strings of the base tokens in id order, where the id is the
BPE rank, plus the languages; the special ids then follow in a fixed order (openai-whisper, tokenizer.py):

    base tokens | endoftext startoftranscript <languages> translate transcribe startoflm startofprev
                | nospeech notimestamps | 1501 timestamps 0.00 .. 30.00 s

Merges are derived from the ranks. That is what openai-whisper's own encoder does, and it repairs the
published multilingual tokenizer.json, whose merge list lacks its first entry (so " to" became two tokens).
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rustasr.convert.whisper_tables import LANGUAGES
from rustasr.errors import ModelFileError

N_TIMESTAMPS = 1501
_AFTER_LANGUAGES = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_OLD_NAMES = {"<|nocaptions|>": "<|nospeech|>", "<|iw|>": "<|he|>"}  # in tokenizers published in 2022
_N_FIXED = 2 + len(_AFTER_LANGUAGES)
_MAX_FILE_BYTES = 64 << 20
_MAX_TOKEN_BYTES = 512


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens; languages are startoftranscript + 1 + index."""

    endoftext: int
    startoftranscript: int
    translate: int
    transcribe: int
    startoflm: int
    startofprev: int
    nospeech: int
    notimestamps: int
    timestamp_begin: int


@dataclass(frozen=True)
class WhisperVocabulary:
    """Base tokens (bytes, index = id = rank), the languages in id order, and where it was read."""

    tokens: tuple[bytes, ...]
    languages: tuple[str, ...]
    where: str

    @property
    def n_vocab(self) -> int:
        """Rows of the embedding that this vocabulary needs."""
        return len(self.tokens) + _N_FIXED + len(self.languages) + N_TIMESTAMPS

    @property
    def special(self) -> SpecialTokens:
        """The special ids, which follow from the two lengths."""
        eot = len(self.tokens)
        after = eot + 2 + len(self.languages)
        ids = {name: after + index for index, name in enumerate(_AFTER_LANGUAGES)}
        return SpecialTokens(eot, eot + 1, timestamp_begin=after + len(_AFTER_LANGUAGES), **ids)

    @property
    def special_texts(self) -> list[str]:
        """`<|endoftext|>` ... `<|notimestamps|>` in id order."""
        return [
            f"<|{name}|>" for name in ("endoftext", "startoftranscript", *self.languages, *_AFTER_LANGUAGES)
        ]


@functools.cache
def byte_to_char() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself when printable Latin-1, else U+0100 upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in table)
    table.update({byte: chr(0x100 + index) for index, byte in enumerate(others)})
    return table


@functools.cache
def _char_to_byte() -> dict[str, int]:
    return {char: byte for byte, char in byte_to_char().items()}


def _to_text(token: bytes) -> str:
    table = byte_to_char()
    return "".join(table[byte] for byte in token)


def read_tokenizer(path: Path, n_vocab: int) -> WhisperVocabulary:
    """A tokenizer.json, vocab.json, `.tiktoken` file, or a folder with one of them, for `n_vocab` rows."""
    if path.is_dir():
        for name in ("tokenizer.json", "vocab.json"):
            if (path / name).is_file():
                return read_tokenizer(path / name, n_vocab)
        raise ModelFileError(f"{path}: expected tokenizer.json or vocab.json in this folder, found neither")
    if path.suffix == ".tiktoken":
        return from_tokens(read_ranks(path), n_vocab, str(path))
    data = _read_json(path)
    if isinstance(data.get("model"), dict):
        added = data.get("added_tokens")
        extra = (
            {_added_content(entry, path): entry.get("id") for entry in added}
            if isinstance(added, list)
            else {}
        )
        return _from_vocab(data["model"].get("vocab"), extra, path)
    beside = path.with_name("added_tokens.json")
    return _from_vocab(data, _read_json(beside) if beside.is_file() else {}, path)


def _added_content(entry: Any, path: Path) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise ModelFileError(
            f"{path}: added_tokens holds {entry!r:.80}, expected objects with content and id"
        )
    return str(entry["content"])


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes is no tokenizer (limit {_MAX_FILE_BYTES})")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ModelFileError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_ranks(path: Path) -> list[bytes]:
    """The tokens of a tiktoken file: lines "base64 rank", ranks ascending from 0."""
    tokens: list[bytes] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            # An empty token is written as "=" (id 50256 of the multilingual file).
            token, rank = (
                (b"" if parts[0] == b"=" else base64.b64decode(parts[0], validate=True)),
                int(parts[1]),
            )
        except (binascii.Error, ValueError, IndexError) as error:
            raise ModelFileError(
                f"{path}, line {number}: expected 'base64 rank', found {line[:60]!r}"
            ) from error
        if rank != len(tokens):
            raise ModelFileError(f"{path}, line {number}: expected rank {len(tokens)}, found {rank}")
        tokens.append(token)
    return tokens


def _from_vocab(vocab: Any, added: dict[str, Any], path: Path) -> WhisperVocabulary:
    """From token text -> id; special tokens may be in either mapping."""
    if not isinstance(vocab, dict):
        raise ModelFileError(f"{path}: expected a BPE vocabulary (an object token -> id), found none")
    merged: dict[int, str] = {}
    raw: str
    for raw, token_id in [*vocab.items(), *added.items()]:
        text = _OLD_NAMES.get(raw, raw)
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise ModelFileError(
                f"{path}: token {text!r:.60} has id {token_id!r}, expected a whole number >= 0"
            )
        if merged.setdefault(token_id, text) != text:
            raise ModelFileError(f"{path}: id {token_id} is both {merged[token_id]!r:.60} and {text!r:.60}")
    eot = next((token_id for token_id, text in merged.items() if text == "<|endoftext|>"), None)
    if eot is None:
        raise ModelFileError(f"{path}: no <|endoftext|> token, so not a Whisper tokenizer")
    missing = next((token_id for token_id in range(eot) if token_id not in merged), None)
    if missing is not None:
        raise ModelFileError(
            f"{path}: no token has id {missing}, expected every id below <|endoftext|> = {eot}"
        )
    table = _char_to_byte()
    try:
        tokens = tuple(bytes(table[char] for char in merged[token_id]) for token_id in range(eot))
    except KeyError as error:
        raise ModelFileError(
            f"{path}: a token holds {error.args[0]!r}, expected byte-level BPE text"
        ) from error
    result = WhisperVocabulary(_checked(tokens, str(path)), _languages(merged, eot), str(path))
    for offset, text in enumerate(result.special_texts):
        found = merged.get(eot + offset)
        if found != text:
            raise ModelFileError(
                f"{path}: id {eot + offset} is {found!r}, expected {text!r} in Whisper's order"
            )
    return result


def _languages(by_id: dict[int, str], eot: int) -> tuple[str, ...]:
    languages = []
    for token_id in range(eot + 2, eot + 2 + len(by_id)):
        text = by_id.get(token_id, "<|translate|>")
        if text == "<|translate|>":
            break
        languages.append(text.removeprefix("<|").removesuffix("|>"))
    return tuple(languages)


def from_tokens(tokens: Sequence[bytes], n_vocab: int, where: str) -> WhisperVocabulary:
    """From base tokens in rank order; the number of languages follows from `n_vocab`."""
    tokens = list(tokens)
    if tokens and tokens[-1] == b"<|endoftext|>":  # older whisper.cpp files list it with the base tokens
        tokens.pop()
    n_languages = n_vocab - len(tokens) - _N_FIXED - N_TIMESTAMPS
    if not 0 <= n_languages <= len(LANGUAGES):
        raise ModelFileError(
            f"{where}: {len(tokens)} base tokens and an embedding of {n_vocab} rows leave {n_languages} "
            f"languages, expected 0 to {len(LANGUAGES)}"
        )
    return WhisperVocabulary(_checked(tuple(tokens), where), LANGUAGES[:n_languages], where)


def _checked(tokens: tuple[bytes, ...], where: str) -> tuple[bytes, ...]:
    """All 256 bytes first in some order, then longer tokens, none twice: what ranks of a byte BPE are."""
    if len(tokens) < 256 or len(set(tokens[:256])) != 256 or any(len(token) != 1 for token in tokens[:256]):
        raise ModelFileError(f"{where}: the first 256 tokens are not the 256 bytes: not a byte-level BPE")
    if len(set(tokens)) != len(tokens):
        raise ModelFileError(f"{where}: a token appears twice")
    longest = max(map(len, tokens))
    if longest > _MAX_TOKEN_BYTES:
        raise ModelFileError(f"{where}: a token of {longest} bytes, expected at most {_MAX_TOKEN_BYTES}")
    return tokens


def derive_merges(tokens: Sequence[bytes], where: str) -> list[tuple[bytes, bytes]]:
    """The BPE merges that made the tokens, in rank order: each token's two parts under the ranks below it."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = []
    for rank in range(256, len(tokens)):
        if not tokens[rank]:
            continue  # the empty token (multilingual 50256) is an id without text
        parts = _split(tokens[rank], ranks, rank)
        if len(parts) != 2:
            raise ModelFileError(
                f"{where}: token {rank} ({tokens[rank]!r}) is not a merge of two earlier tokens"
            )
        merges.append((parts[0], parts[1]))
    return merges


def _split(token: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """`token` encoded with the merges of rank < limit only."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(parts[index] + parts[index + 1], limit) for index in range(len(parts) - 1)]
        best = min(pairs)
        if best >= limit:
            break
        index = pairs.index(best)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts


def tokenizers_json(vocabulary: WhisperVocabulary) -> str:
    """The complete tokenizers JSON: byte-level BPE plus the special tokens up to notimestamps."""
    special = {
        text: vocabulary.special.endoftext + offset for offset, text in enumerate(vocabulary.special_texts)
    }
    vocab = {_to_text(token): rank for rank, token in enumerate(vocabulary.tokens)}
    vocab["<|endoftext|>"] = vocabulary.special.endoftext
    merges = derive_merges(vocabulary.tokens, vocabulary.where)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token_id, "content": text, **flags} for text, token_id in special.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": [f"{_to_text(left)} {_to_text(right)}" for left, right in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def suppressed_tokens(tokenizer_json: str, special: SpecialTokens) -> tuple[list[int], list[int]]:
    """(ids never sampled, ids not sampled first), by openai-whisper's rule (tokenizer.py, decoding.py).

    Never: signs that stand for sounds and speaker labels rather than words. A sign is suppressed, with and
    without a space before it, when it is one token; musical notes by their first token in any case; hyphen
    and apostrophe only at the start of a word. And the special tokens that only prompts hold.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(tokenizer_json)

    def encode(text: str) -> list[int]:
        return list(encoder.encode(text, add_special_tokens=False).ids)

    single = list('"#()*+/:;<=>@[\\]^_`{|}~「」『』')
    repeated = ["<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))"]
    repeated += ["[[", "]]", "{{", "}}", "♪♪", "♪♪♪"]
    notes = [chr(code) for code in range(0x2669, 0x2670)]
    found = {encode(" -")[0], encode(" '")[0]}
    for sign in [*single, *repeated, *notes]:
        for ids in (encode(sign), encode(" " + sign)):
            if len(ids) == 1 or sign in notes:
                found.add(ids[0])
    found.update((special.transcribe, special.translate, special.startoftranscript, special.startofprev))
    found.update((special.startoflm, special.nospeech))
    return sorted(found), [encode(" ")[0], special.endoftext]
