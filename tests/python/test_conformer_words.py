"""Tokens to words and segments: the official groupings, on the stored outputs of the official code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rustasr.families.conformer import Heard
from rustasr.families.gigaam import Gigaam
from rustasr.families.parakeet import Parakeet
from rustasr.families.parakeet_languages import ALPHABETS, tokens_outside
from rustasr.pieces import PieceTable

MICRO = Path(os.environ.get("RUSTASR_SHARED_MICRO", Path(__file__).resolve().parents[3] / "shared" / "micro"))


def goldens(name: str) -> dict[str, Any]:
    path = MICRO / name / "goldens.json"
    if not path.exists():
        pytest.skip(f"no stored outputs at {path} (RUSTASR_SHARED_MICRO names another folder)")
    return json.loads(path.read_text(encoding="utf-8"))


def core(architecture: str, pieces: list[str], **metadata: Any) -> Any:
    kind = "characters" if all(len(piece) == 1 for piece in pieces) else "sentencepiece"
    types = [2 if piece == "<unk>" else 4 if piece.startswith("<") else 1 for piece in pieces]
    fields = {
        "tokenizer.kind": kind,
        "tokenizer.pieces": pieces,
        "tokenizer.piece_types": types,
        f"{architecture}.languages": ["ru"],
        f"{architecture}.max_seconds": 0.0,
        "frontend.hop_length": 160,
        "frontend.sample_rate": 16000,
        "conformer.subsampling_factor": 8,
        **metadata,
    }
    return SimpleNamespace(metadata=fields, device="cpu")


@pytest.mark.parametrize("name", ["gigaam-micro-ctc", "gigaam-micro-e2e-rnnt"])
def test_gigaam_words_are_those_of_the_official_code(name: str) -> None:
    stored = goldens(name)
    characters = [" ", *map(chr, range(0x430, 0x450))]
    model = Gigaam(core("gigaam", stored.get("pieces", characters)), name=name)
    for clip in [*stored["clips"], stored["long"]["single_pass"]]:
        frame_s = clip["frame_shift_s"]
        heard = Heard(clip["token_ids"], clip["token_frames"], [1] * len(clip["token_ids"]), [], frame_s)
        found = [(w.text, w.start * frame_s, w.end * frame_s) for w in model.words(heard)]
        expected = [(w["text"], w["start"], w["end"]) for w in clip["words"]]
        assert [w[0] for w in found] == [w[0] for w in expected]
        assert found == [(t, pytest.approx(a), pytest.approx(b)) for t, a, b in expected]
        assert model.text(clip["token_ids"]) == clip["text"]


def test_parakeet_words_and_segments_are_nemos() -> None:
    stored = goldens("parakeet-micro-tdt")
    model = Parakeet(core("parakeet", stored["pieces"], **{"head.type": "tdt"}), name="micro")
    assert sorted(model.pieces.punctuation) == stored["supported_punctuation"]
    for clip in [*stored["clips"], stored["long"]]:
        heard = Heard(clip["token_ids"], clip["token_frames"], clip["token_durations"], [], 0.08)
        found = [(w.text, w.start, w.end) for w in model.words(heard)]
        assert found == [(w["word"], w["start_offset"], w["end_offset"]) for w in clip["words"]]
        assert model.text(clip["token_ids"]) == clip["text"]


def table(*pieces: str) -> PieceTable:
    return PieceTable(core("parakeet", list(pieces)).metadata)


def test_a_language_lock_forbids_other_letters_only() -> None:
    pieces = table("<unk>", "▁the", "▁и", "é", "ł", ".", "5", "▁Straße", "▁Ω")
    allowed = {
        code: [p for i, p in enumerate(pieces.pieces) if i not in tokens_outside(pieces, code)]
        for code in ("en", "ru", "pl", "de", "el")
    }
    assert allowed["en"] == ["<unk>", "▁the", "é", ".", "5"]
    assert allowed["ru"] == ["<unk>", "▁и", ".", "5"]
    assert allowed["pl"] == ["<unk>", "▁the", "ł", ".", "5"]
    assert allowed["de"] == ["<unk>", "▁the", "é", ".", "5", "▁Straße"]
    assert allowed["el"] == ["<unk>", ".", "5", "▁Ω"]
    assert len(ALPHABETS) == 25


def scored(model: str, **scores: float) -> PieceTable:
    fields = core("parakeet", ["<unk>", *scores]).metadata
    return PieceTable({**fields, "tokenizer.scores": [0.0, *scores.values()], "tokenizer.model_type": model})


def test_bpe_merges_by_score_and_unigram_takes_the_likeliest() -> None:
    letters = dict.fromkeys("▁abc", -100.0)
    bpe = scored("bpe", **{"ab": 0.0, "▁a": 0.0, "bc": 0.0, "▁ab": 0.0}, **letters)
    assert [bpe.pieces[i] for i in bpe.encode("abc") or ()] == ["▁ab", "c"]
    unigram = scored("unigram", **letters, **{"▁a": -1.0, "bc": -1.0, "▁ab": -1.5})
    assert [unigram.pieces[i] for i in unigram.encode("abc") or ()] == ["▁a", "bc"]
    assert bpe.encode("abz") is None
