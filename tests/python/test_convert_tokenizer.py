"""One canonical tokenizer from every form in which checkpoints carry it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rustasr.convert import convert
from rustasr.convert.whisper_tokenizer import (
    WhisperVocabulary,
    from_tokens,
    read_tokenizer,
    suppressed_tokens,
    tokenizers_json,
)
from rustasr.errors import ModelFileError
from tiny_whisper import make_checkpoint, make_vocabulary, write_hugging_face
from whisper_writers import write_openai_pt, write_whispercpp

# openai-whisper 20250625, Tokenizer.non_speech_tokens of both vocabularies.
NON_SPEECH_ENGLISH = (
    "1 2 7 8 9 10 14 25 26 27 28 29 31 58 59 60 61 62 63 90 91 92 93 357 366 438 532 685 705 796 930 "
    "1058 1220 1267 1279 1303 1343 1377 1391 1635 1782 1875 2162 2361 2488 3467 4008 4211 4600 4808 "
    "5299 5855 6329 7203 9609 9959 10563 10786 11420 11709 11907 13163 13697 13700 14808 15306 16410 "
    "16791 17992 19203 19510 20724 22305 22935 27007 30109 30420 33409 34949 40283 40493 40549 47282 "
    "49146"
)
NON_SPEECH_MULTILINGUAL = (
    "1 2 7 8 9 10 14 25 26 27 28 29 31 58 59 60 61 62 63 90 91 92 93 359 503 522 542 873 893 902 918 "
    "922 931 1350 1853 1982 2460 2627 3246 3253 3268 3536 3846 3961 4183 4667 6585 6647 7273 9061 "
    "9383 10428 10929 11938 12033 12331 12562 13793 14157 14635 15265 15618 16553 16604 18362 18956 "
    "20075 21675 22520 26130 26161 26435 28279 29464 31650 32302 32470 36865 42863 47425 49870 50254"
)
TEXTS = (" ask not what your country", "Привет, как дела?", "naïve 123 ♪♪", "  two  spaces\n", "don't I'll")


def write_tiktoken(path: Path, vocabulary: WhisperVocabulary) -> Path:
    lines = []
    for rank, token in enumerate(vocabulary.tokens):
        text = base64.b64encode(token).decode() if token else "="
        lines.append(f"{text} {rank}\n")
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("languages", [("en", "zh", "de"), ()], ids=["multilingual", "english"])
def test_every_form_gives_the_same_json(tmp_path: Path, languages: tuple[str, ...]) -> None:
    vocabulary = make_vocabulary(languages)
    reference = tokenizers_json(vocabulary)
    (tmp_path / "tokenizer.json").write_text(reference, encoding="utf-8")
    document = json.loads(reference)
    added = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    (tmp_path / "vocab.json").write_text(json.dumps(document["model"]["vocab"]))
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    tiktoken = write_tiktoken(tmp_path / "ranks.tiktoken", vocabulary)
    for path in (tmp_path / "tokenizer.json", tmp_path / "vocab.json", tiktoken, tmp_path):
        assert tokenizers_json(read_tokenizer(path, vocabulary.n_vocab)) == reference, path


def test_old_names_and_missing_merges_are_repaired(tmp_path: Path) -> None:
    vocabulary = make_vocabulary()
    reference = tokenizers_json(vocabulary)
    document = json.loads(reference.replace("<|nospeech|>", "<|nocaptions|>"))
    document["model"]["merges"] = document["model"]["merges"][1:]
    document["added_tokens"].append({"id": vocabulary.special.timestamp_begin, "content": "<|0.00|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert tokenizers_json(read_tokenizer(tmp_path, vocabulary.n_vocab)) == reference


def test_merges_reproduce_every_token_and_decode_round_trips() -> None:
    vocabulary = make_vocabulary()
    tokenizer = Tokenizer.from_str(tokenizers_json(vocabulary))
    for rank, token in enumerate(vocabulary.tokens):
        text = token.decode("utf-8", errors="replace")
        if text.removeprefix(" ").isalpha():  # the merges were counted across punctuation
            assert tokenizer.encode(text, add_special_tokens=False).ids == [rank], token
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.token_to_id("<|notimestamps|>") == vocabulary.special.notimestamps


def test_whispercpp_file_brings_its_tokenizer(tmp_path: Path) -> None:
    import gguf

    made = make_checkpoint()
    convert(write_whispercpp(tmp_path / "ggml.bin", made), tmp_path / "m.gguf")
    stored = gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.huggingface.json"].contents()
    expected = json.loads(tokenizers_json(make_vocabulary(("en", "zh", "de"))))
    assert json.loads(stored) == expected


def test_a_checkpoint_without_tokenizer_says_how_to_give_one(tmp_path: Path) -> None:
    path = write_openai_pt(tmp_path / "model.pt", make_checkpoint())
    with pytest.raises(ModelFileError, match="--tokenizer"):
        convert(path, tmp_path / "m.gguf")
    write_hugging_face(tmp_path / "hf", make_checkpoint())
    (tmp_path / "hf" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    convert(path, tmp_path / "m.gguf")  # beside the checkpoint is enough


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "hf", make_checkpoint())
    (folder / "tokenizer.json").write_text(tokenizers_json(make_vocabulary(())), encoding="utf-8")
    with pytest.raises(ModelFileError, match="do not belong together"):
        convert(folder, tmp_path / "m.gguf")


def test_special_ids_of_the_published_vocabularies() -> None:
    """The table of ids: eot, sot, translate, transcribe, startofprev, nospeech, notimestamps, first time."""
    alphabet = [bytes([byte]) for byte in range(256)]
    words = [
        bytes([65 + i // 26 // 26 // 26, 65 + i // 26 // 26 % 26, 65 + i // 26 % 26, 65 + i % 26])
        for i in range(50000)
    ]
    english, multilingual = [*alphabet, *words], [*alphabet, *words, b""]
    for tokens, n_vocab, ids, last in (
        (english, 51864, (50256, 50257, 50357, 50358, 50360, 50361, 50362, 50363), "su"),
        (multilingual, 51865, (50257, 50258, 50358, 50359, 50361, 50362, 50363, 50364), "su"),
        (multilingual, 51866, (50257, 50258, 50359, 50360, 50362, 50363, 50364, 50365), "yue"),
    ):
        vocabulary = from_tokens(tokens, n_vocab, "table")
        special = vocabulary.special
        assert vocabulary.languages[-1] == last
        assert ids == (
            special.endoftext, special.startoftranscript, special.translate, special.transcribe,
            special.startofprev, special.nospeech, special.notimestamps, special.timestamp_begin,
        )  # fmt: skip


@pytest.mark.parametrize("folder", ["tiny_en_ct2", "base_ct2"])
def test_suppression_lists_of_the_real_models(folder: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(folder)
    english = folder == "tiny_en_ct2"
    vocabulary = read_tokenizer(path, 51864 if english else 51865)
    suppress, begin = suppressed_tokens(tokenizers_json(vocabulary), vocabulary.special)
    config = json.loads((path / "config.json").read_text())
    assert suppress == config["suppress_ids"]
    assert begin == config["suppress_ids_begin"] == [220, 50256 if english else 50257]
    speech = NON_SPEECH_ENGLISH if english else NON_SPEECH_MULTILINGUAL
    assert [token for token in suppress if token < vocabulary.special.endoftext] == list(
        map(int, speech.split())
    )


def test_base_encodes_a_space_and_t_as_one_token(base_ct2: Path) -> None:
    """The published tokenizer.json lacks the merge of "Ġ" and "t"; openai-whisper's ranks have it."""
    tokenizer = Tokenizer.from_str(tokenizers_json(read_tokenizer(base_ct2, 51865)))
    assert tokenizer.encode(" to the", add_special_tokens=False).ids == [281, 264]
