"""Byte-level BPE and Whisper's special ids, on a small vocabulary that is made here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.errors import ModelFileError, OptionError
from rustasr.tokenizer import ByteLevelBpe, WhisperTokenizer

SPECIALS = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|ja|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip
NAMES = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def byte_characters() -> list[str]:
    """GPT-2's 256 stand-ins, in the order of the bytes, from the library that defines them here."""
    from tokenizers.pre_tokenizers import ByteLevel

    split = ByteLevel(add_prefix_space=False, use_regex=False)
    table = {}
    for byte in range(128):
        table[byte] = split.pre_tokenize_str(chr(byte))[0][0]
    for byte in range(0x80, 0xC0):  # as the second byte of a two-byte character
        table[byte] = split.pre_tokenize_str(bytes([0xC2, byte]).decode())[0][0][1]
    rest = sorted(set(ByteLevel.alphabet()) - set(table.values()))
    lead = [split.pre_tokenize_str(bytes([b, 0x80]).decode())[0][0][0] for b in range(0xC2, 0xE0)]
    table |= dict(zip(range(0xC2, 0xE0), lead, strict=True))
    remaining = [b for b in range(256) if b not in table]
    unused = [c for c in rest if c not in lead]
    return [table.get(b) or unused[remaining.index(b)] for b in range(256)]


def document() -> str:
    """A complete tokenizer: 256 bytes, a few merges, special tokens after them."""
    pieces = sorted(byte_characters())
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w"), ("hell", "o"), ("Ã", "¤")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    first = len(vocabulary)
    added = [
        {"id": first + i, "content": text, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for i, text in enumerate(SPECIALS)
    ]  # fmt: skip
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return json.dumps({
        "version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": split,
        "post_processor": None, "decoder": split, "truncation": None, "padding": None,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [" ".join(m) for m in merges]},
    })  # fmt: skip


DOCUMENT = document()
BPE = ByteLevelBpe(DOCUMENT)
END = 256 + 6


def metadata(**changes: Any) -> dict[str, Any]:
    first = END + 5
    return {
        "tokenizer.huggingface.json": DOCUMENT,
        "whisper.multilingual": True,
        "whisper.languages": ["en", "de", "ja"],
        "whisper.suppress_tokens": [1, 2, 3],
        "whisper.token.endoftext": END,
        "whisper.token.startoftranscript": END + 1,
        **{f"whisper.token.{name}": first + i for i, name in enumerate(NAMES)},
        "whisper.token.timestamp_begin": first + len(NAMES),
        **changes,
    }


@given(TEXTS)
def test_decoding_what_was_encoded_gives_the_text(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text


@given(TEXTS)
def test_ids_are_those_of_the_tokenizers_library(text: str) -> None:
    from tokenizers import Tokenizer

    assert BPE.encode(text) == Tokenizer.from_str(DOCUMENT).encode(text, add_special_tokens=False).ids


def test_merges_are_applied() -> None:
    assert [BPE.token_bytes(token) for token in BPE.encode("hello w")] == [b"hello", b" w"]


@pytest.mark.parametrize("special", SPECIALS)
def test_text_that_looks_like_a_special_token_stays_text(special: str) -> None:
    tokens = BPE.encode(f"a {special} b")
    assert max(tokens) < END
    assert BPE.decode(tokens) == f"a {special} b"


def test_special_and_unknown_ids_have_no_text() -> None:
    assert BPE.decode([END, *BPE.encode("hello"), END + 3, 99999, -1]) == "hello"


@given(st.lists(st.integers(0, END + 20), max_size=40))
def test_pieces_lose_no_token_and_no_text(tokens: list[int]) -> None:
    for pieces in (BPE.split_on_characters(tokens), BPE.split_on_spaces(tokens)):
        assert [token for _, piece in pieces for token in piece] == tokens
        assert "".join(text for text, _ in pieces) == BPE.decode(tokens)
        assert all(piece for _, piece in pieces)


@given(TEXTS)
def test_pieces_of_valid_text_hold_whole_characters(text: str) -> None:
    pieces = BPE.split_on_characters(BPE.encode(text))
    for written, tokens in pieces:
        assert b"".join(map(BPE.token_bytes, tokens)).decode("utf-8") == written


def test_a_character_over_several_tokens_is_one_piece() -> None:
    tokens = BPE.encode("日本")  # three bytes each, none of them merged
    assert len(tokens) == 6
    assert [text for text, _ in BPE.split_on_characters(tokens)] == ["日", "本"]


def test_broken_bytes_do_not_swallow_what_follows() -> None:
    first_byte = BPE.encode("日")[:1]
    pieces = BPE.split_on_characters(first_byte + BPE.encode("ab"))
    assert [text for text, _ in pieces] == ["\ufffda", "b"]
    assert BPE.split_on_characters(first_byte) == [("\ufffd", first_byte)]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("hello world, it's on.", "en", ["hello", " world", ",", " it", "'s", " on", "."]),
        (" Straße (neu) 12", "de", [" Straße", " ", "(neu", ")", " 12"]),
        ("日本 語", "ja", ["日", "本", " ", "語"]),
        ("日本 語", "de", ["日本", " 語"]),
    ],
)
def test_words_of_a_language(text: str, language: str, expected: list[str]) -> None:
    words = [word for word, _ in BPE.split_to_words(BPE.encode(text), language)]
    assert words == expected


def test_whisper_prompt_of_a_multilingual_model() -> None:
    tokenizer = WhisperTokenizer(metadata())
    special = tokenizer.special
    assert tokenizer.sot_sequence("de", "transcribe") == [END + 1, END + 3, special.transcribe]
    assert tokenizer.sot_sequence("ja", "translate") == [END + 1, END + 4, special.translate]
    with pytest.raises(OptionError, match="en, de, ja.*'fr'"):
        tokenizer.sot_sequence("fr", "transcribe")


def test_whisper_prompt_of_an_english_model() -> None:
    tokenizer = WhisperTokenizer(metadata(**{"whisper.multilingual": False, "whisper.languages": []}))
    assert tokenizer.sot_sequence("en", "transcribe") == [END + 1]


def test_timestamps_go_by_id() -> None:
    tokenizer = WhisperTokenizer(metadata())
    begin = tokenizer.special.timestamp_begin
    assert tokenizer.is_timestamp(begin)
    assert not tokenizer.is_timestamp(begin - 1)
    assert tokenizer.timestamp_seconds(begin + 1500) == pytest.approx(30.0)
    assert tokenizer.text([begin, *tokenizer.encode(" hello"), begin + 50, END]) == " hello"


@pytest.mark.parametrize("name", ["endoftext", "startoftranscript", "timestamp_begin", *NAMES])
@pytest.mark.parametrize("value", [None, "x", -1, True])
def test_a_bad_special_id_is_named(name: str, value: Any) -> None:
    with pytest.raises(ModelFileError, match=f"whisper.token.{name}"):
        WhisperTokenizer(metadata(**{f"whisper.token.{name}": value}))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"model": {}}', '{"model": {"vocab": {}}}', '{"model": {"vocab": {"a": "b"}}}'],
)
def test_a_broken_tokenizer_is_a_model_error(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"tokenizer\.huggingface\.json"):
        WhisperTokenizer(metadata(**{"tokenizer.huggingface.json": text}))


@pytest.mark.parametrize(
    "key", ["tokenizer.huggingface.json", "whisper.languages", "whisper.suppress_tokens"]
)
def test_a_missing_key_is_named(key: str) -> None:
    given = metadata()
    del given[key]
    with pytest.raises(ModelFileError, match=key):
        WhisperTokenizer(given)


# --- the real vocabularies --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def real(request: pytest.FixtureRequest, gguf: Any) -> WhisperTokenizer:
    import rustasr

    return WhisperTokenizer(rustasr._core.GgufFile(str(gguf(request.param, "f16"))).metadata)


@pytest.mark.weights
def test_real_vocabulary_writes_every_language(real: WhisperTokenizer) -> None:
    for text in [
        " And so my fellow Americans",
        " Привет, мир!",
        " 日本語の音声",
        " Grüße aus Köln…",
        " 🙂 ok",
    ]:
        assert real.text(real.encode(text)) == text


@pytest.mark.weights
def test_real_ids_are_the_published_ones(real: WhisperTokenizer) -> None:
    if real.multilingual:
        assert real.encode(" And so my fellow Americans,") == [400, 370, 452, 7177, 6280, 11]
        assert (real.special.endoftext, real.special.timestamp_begin) == (50257, 50364)
        assert real.language_token("en") == 50259
        assert len(real.languages) == 99
    else:
        assert real.encode(" And so my fellow Americans ask") == [843, 523, 616, 5891, 3399, 1265]
        assert (real.special.endoftext, real.special.timestamp_begin) == (50256, 50363)
