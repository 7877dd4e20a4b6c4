"""Byte-level BPE from a tokenizer JSON, and Whisper's special ids on top of it.

`ByteLevelBpe` reads the vocabulary itself, since turning ids into text is all that most
transcriptions need: a piece is a string over 256 printable characters that stand for bytes (GPT-2's
mapping). The `tokenizers` library is loaded on the first `encode`, that is for prompts only.

`WhisperTokenizer` adds what the GGUF metadata says of special tokens. Timestamps are handled by id and
never by their text: a tokenizer file that stops before them is complete.
"""

from __future__ import annotations

import codecs
import json
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rustasr.errors import ModelFileError, OptionError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_KEY = "tokenizer.huggingface.json"
SECONDS_PER_TIMESTAMP = 0.02  # openai-whisper tokenizer.py: <|0.00|> to <|30.00|> in steps of 0.02

# Written without spaces between words: a word there is one complete character (openai-whisper).
UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class ByteLevelBpe:
    """Text to ids and ids to text with a byte-level BPE vocabulary.

    `tokenizer_json` is a complete `tokenizers` JSON; ModelFileError when it is not one. Ids of added
    (special) tokens have no bytes, and `encode` never produces them, whatever the text says.
    """

    def __init__(self, tokenizer_json: str, *, where: str = TOKENIZER_KEY) -> None:
        try:
            document: dict[str, Any] = json.loads(tokenizer_json)
            vocabulary: dict[str, int] = document["model"]["vocab"]
            added = {int(token["id"]) for token in document.get("added_tokens") or ()}
            pieces: list[str | None] = [None] * (1 + max(vocabulary.values()))
            for piece, token in vocabulary.items():
                if token not in added:
                    pieces[token] = piece
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{where}: expected a tokenizers JSON with model.vocab (piece to id), "
                f"found something else ({type(error).__name__}: {error}); convert the model again"
            ) from error
        # The parsed document takes ten times the memory of its text, and most calls never encode.
        self._json = tokenizer_json
        self._pieces = pieces
        self._bytes: dict[int, bytes] = {}
        self._encoder: Tokenizer | None = None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without any special token."""
        if self._encoder is None:
            from tokenizers import Tokenizer

            plain = json.loads(self._json) | {"added_tokens": [], "post_processor": None}
            self._encoder = Tokenizer.from_str(json.dumps(plain))
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; none for special and unknown ids."""
        known = self._bytes.get(token)
        if known is None:
            piece = self._pieces[token] if 0 <= token < len(self._pieces) else None
            known = self._bytes[token] = b"" if piece is None else _to_bytes(piece)
        return known

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of `tokens`; bytes that are no UTF-8 become U+FFFD, special tokens nothing."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", errors="replace")

    def split_on_characters(self, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Cut `tokens` into the smallest pieces that hold whole characters: (text, tokens) each.

        No token is lost: an unfinished character at the end is a piece of its own.
        """
        pieces: list[tuple[str, list[int]]] = []
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text, current = "", list[int]()
        for token in tokens:
            current.append(token)
            text += decoder.decode(self.token_bytes(token))
            if not decoder.getstate()[0]:  # no bytes wait for the rest of their character
                pieces.append((text, current))
                text, current = "", []
        if current:
            pieces.append((text + decoder.decode(b"", final=True), current))
        return pieces

    def split_on_spaces(self, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Cut `tokens` into words; a piece that begins no word joins the one before it.

        A piece begins a word when it starts with a space or is ASCII punctuation alone.
        """
        words: list[tuple[str, list[int]]] = []
        for text, piece in self.split_on_characters(tokens):
            # `in` on purpose: openai-whisper asks for a substring, so "()" counts and "..." does not.
            starts_word = text.startswith(" ") or text.strip() in string.punctuation
            if starts_word or not words:
                words.append((text, piece))
            else:
                before, held = words[-1]
                words[-1] = (before + text, held + piece)
        return words

    def split_to_words(self, tokens: Sequence[int], language: str) -> list[tuple[str, list[int]]]:
        """Cut text tokens into what `language` counts as words: (text, tokens) each, in order."""
        if language in UNSPACED_LANGUAGES:
            return self.split_on_characters(tokens)
        return self.split_on_spaces(tokens)


@dataclass(frozen=True, slots=True)
class WhisperTokens:
    """The ids of Whisper's special tokens, as the GGUF names them under `whisper.token.`."""

    endoftext: int
    startoftranscript: int
    translate: int
    transcribe: int
    startoflm: int
    startofprev: int
    nospeech: int
    notimestamps: int
    timestamp_begin: int

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> WhisperTokens:
        """Read all nine; ModelFileError names the one that is missing or no id."""
        return cls(**{name: _token_id(metadata, f"whisper.token.{name}") for name in cls.__slots__})

    @property
    def control(self) -> tuple[int, ...]:
        """Tokens that are never part of a transcript, whatever the suppression list says."""
        return (
            self.startoftranscript,
            self.translate,
            self.transcribe,
            self.startoflm,
            self.startofprev,
            self.nospeech,
        )


class WhisperTokenizer(ByteLevelBpe):
    """The vocabulary of one Whisper file with its special ids and languages."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        document = metadata.get(TOKENIZER_KEY)
        if not isinstance(document, str):
            raise ModelFileError(f"metadata key {TOKENIZER_KEY}: expected a string, found {document!r:.60}")
        super().__init__(document)
        self.special = WhisperTokens.from_metadata(metadata)
        self.multilingual = bool(metadata.get("whisper.multilingual", False))
        self.languages = tuple(str(code) for code in _sequence(metadata, "whisper.languages"))
        self.non_speech = tuple(int(token) for token in _sequence(metadata, "whisper.suppress_tokens"))
        if self.multilingual and not self.languages:
            raise ModelFileError(
                "metadata key whisper.languages: expected the languages of a multilingual model, found none"
            )

    def text(self, tokens: Iterable[int]) -> str:
        """The text in `tokens`, without specials and timestamps; spaces as the model wrote them."""
        end = self.special.endoftext
        return self.decode(token for token in tokens if token < end)

    def is_timestamp(self, token: int) -> bool:
        """Whether `token` is one of <|0.00|> to <|30.00|>."""
        return token >= self.special.timestamp_begin

    def timestamp_seconds(self, token: int) -> float:
        """Seconds, from the start of the window, that a timestamp token says."""
        return (token - self.special.timestamp_begin) * SECONDS_PER_TIMESTAMP

    def language_token(self, code: str) -> int:
        """The token of a language; OptionError when the model does not know it."""
        try:
            return self.special.startoftranscript + 1 + self.languages.index(code)
        except ValueError:
            raise OptionError(
                f"language: expected one of {', '.join(self.languages) or 'en'}, found {code!r}"
            ) from None

    def sot_sequence(self, language: str, task: str) -> list[int]:
        """Start of transcript, and for a multilingual model the language and the task."""
        if not self.multilingual:
            return [self.special.startoftranscript]
        task_token = self.special.translate if task == "translate" else self.special.transcribe
        return [self.special.startoftranscript, self.language_token(language), task_token]


def _byte_of_character() -> dict[str, int]:
    """GPT-2's stand-ins: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()


def _to_bytes(piece: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in piece)
    except KeyError:  # an added token that the vocabulary lists too: its text is literal
        return piece.encode("utf-8")


def _token_id(metadata: Mapping[str, object], key: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFileError(f"metadata key {key}: expected a token id, found {value!r}")
    return value


def _sequence(metadata: Mapping[str, object], key: str) -> Sequence[Any]:
    value = metadata.get(key)
    if value is None or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ModelFileError(f"metadata key {key}: expected an array, found {value!r:.60}")
    return list(value)


__all__ = [
    "SECONDS_PER_TIMESTAMP",
    "UNSPACED_LANGUAGES",
    "ByteLevelBpe",
    "WhisperTokenizer",
    "WhisperTokens",
]
