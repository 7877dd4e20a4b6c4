"""Qwen3-ASR's words: its vocabulary and prompt, its names of languages, and what its answer means.

::

    <|im_start|>system\\n CONTEXT <|im_end|>\\n
    <|im_start|>user\\n <|audio_start|> <|audio_pad|> × vectors <|audio_end|><|im_end|>\\n
    <|im_start|>assistant\\n [language NAME<asr_text>]      the last part forces a language
      → "language English<asr_text>Hello."                  "language None<asr_text>": nothing is said

Follows qwen-asr 0.0.6, inference/utils.py (`parse_asr_output`, `detect_and_fix_repetitions`) and
inference/qwen3_asr.py (`_build_text_prompt`).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rustasr.errors import ModelFileError
from rustasr.languages import language_code
from rustasr.tokenizer import TOKENIZER_KEY, ByteLevelBpe

ASR_TEXT = "<asr_text>"

# Codes of the languages by the names that the model says (transformers 5.23, processing_qwen3_asr.py).
_TABLE = """
Chinese:zh English:en Cantonese:yue Arabic:ar German:de French:fr Spanish:es Portuguese:pt Indonesian:id
Italian:it Korean:ko Russian:ru Thai:th Vietnamese:vi Japanese:ja Turkish:tr Hindi:hi Malay:ms Dutch:nl
Swedish:sv Danish:da Finnish:fi Polish:pl Czech:cs Filipino:fil Persian:fa Greek:el Romanian:ro
Hungarian:hu Macedonian:mk
"""
CODE_OF_NAME = dict(entry.split(":") for entry in _TABLE.split())
_NAME_OF_CODE = {code: name for name, code in CODE_OF_NAME.items()}


def language_name(language: str) -> str | None:
    """The model's name of a language given by code ("de", "de-AT") or English name; None if it has none."""
    wanted = language.strip()
    name = _canonical(wanted)
    if name in CODE_OF_NAME:
        return name
    code = wanted.lower().replace("_", "-").split("-", 1)[0]
    shared = language_code(wanted)
    # The shared table knows Filipino by its older name and code.
    return _NAME_OF_CODE.get(code) or _NAME_OF_CODE.get("fil" if shared == "tl" else shared or "")


def code_of(name: str) -> str:
    """The code of a language that the model named; "" for a name that nobody knows."""
    return CODE_OF_NAME.get(name) or language_code(name) or ""


def _canonical(name: str) -> str:
    return name[:1].upper() + name[1:].lower()


# --- vocabulary and prompt


class QwenTokenizer(ByteLevelBpe):
    """The vocabulary of one file with the ids that prompts need."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        document = metadata.get(TOKENIZER_KEY)
        if not isinstance(document, str):
            raise ModelFileError(f"metadata key {TOKENIZER_KEY}: expected a string, found {document!r:.60}")
        super().__init__(document)

        def token(name: str) -> int:
            key = f"qwen3_asr.token.{name}"
            value = metadata.get(key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ModelFileError(f"metadata key {key}: expected a token id, found {value!r}")
            return value

        self.im_start, self.im_end = token("im_start"), token("im_end")
        self.audio_start, self.audio_end = token("audio_start"), token("audio_end")
        self.audio_pad = token("audio_pad")
        self.asr_text, self.timestamp = token("asr_text"), token("timestamp")

    def token_bytes(self, token: int) -> bytes:
        """Bytes of a token. Special tokens have none, but the tag before the text is written out."""
        return ASR_TEXT.encode() if token == self.asr_text else super().token_bytes(token)

    def prompt(self, n_audio: int, context: str = "", language: str | None = None) -> list[int]:
        """All that stands before the answer. `language` is the model's name of the one to force.

        What is written in `context` is text in any case: it cannot spell special tokens.
        """
        answer = self.encode(f"assistant\n{f'language {language}' if language else ''}")
        return [
            self.im_start,
            *self.encode(f"system\n{context}"),
            self.im_end,
            *self.encode("\n"),
            self.im_start,
            *self.encode("user\n"),
            *self.audio(n_audio),
            self.im_end,
            *self.encode("\n"),
            self.im_start,
            *answer,
            *([self.asr_text] if language else []),
        ]

    def audio(self, n_audio: int) -> list[int]:
        """The place of a clip's vectors."""
        return [self.audio_start, *[self.audio_pad] * n_audio, self.audio_end]

    def text_tokens(self, tokens: Sequence[int], *, forced: bool) -> range:
        """Where in an answer the tokens of its text are: behind the tag, if it has one."""
        if not forced and self.asr_text in tokens:
            return range(tokens.index(self.asr_text) + 1, len(tokens))
        return range(len(tokens))


# --- the answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says. `language` is the model's name of it, "" when it gave none; `repaired`: a
    repetition was cut out of it."""

    language: str
    text: str
    repaired: bool = False


def parse(raw: str, forced: str | None = None) -> Answer:
    """The meaning of a decoded answer; `forced` is the language that the prompt has forced."""
    stripped = raw.strip()
    answer = fix_repetitions(stripped)
    repaired = answer != stripped
    if forced or not answer:
        return Answer(forced if forced and answer else "", answer, repaired)
    meta, tag, text = answer.partition(ASR_TEXT)
    if not tag:
        return Answer("", answer, repaired)
    return Answer(_language_of(meta), text.strip(), repaired)


def _language_of(meta: str) -> str:
    """The language in what stands before the tag, "" for none."""
    if "language none" in meta.lower():
        return ""
    for line in meta.splitlines():
        if line.strip().lower().startswith("language "):
            return _canonical(line.strip()[len("language ") :].strip())
    return ""


# More than 20 of one character in a row are one; then 20 or more repeats of up to 20 characters are one
# repeat, looked for where at least 40 characters follow.
_REPEATED_CHARACTER = re.compile(r"(.)\1{20,}", re.DOTALL)
_REPEATED_PATTERN = re.compile(r"(?=.{40})(.{1,20}?)\1{19,}", re.DOTALL)


def fix_repetitions(text: str) -> str:
    """`text` with endless repetitions cut to one instance (qwen-asr's `detect_and_fix_repetitions`)."""
    return _REPEATED_PATTERN.sub(r"\1", _REPEATED_CHARACTER.sub(r"\1", text))


class Growing:
    """The text of an answer while its tokens come in."""

    def __init__(self, tokenizer: QwenTokenizer, *, forced: bool) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_text = forced
        self._text = ""

    def add(self, token: int) -> str | None:
        """The text so far, when this token has made it longer."""
        if token == self._tokenizer.asr_text and not self._is_text:
            self._is_text = True
            return None
        if not self._is_text:
            return None
        before = self._text.strip()
        self._text += self._decoder.decode(self._tokenizer.token_bytes(token))
        after = self._text.strip()
        return after if after != before else None


__all__ = [
    "ASR_TEXT",
    "CODE_OF_NAME",
    "Answer",
    "Growing",
    "QwenTokenizer",
    "code_of",
    "fix_repetitions",
    "language_name",
    "parse",
]
