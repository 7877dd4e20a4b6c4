"""The aligner's units, the words that they are again, and slot times put in order."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustasr.aligner import units as units_module
from rustasr.aligner.repair import repair
from rustasr.aligner.units import Unit, is_kept, units, written_words
from rustasr.families.qwen3_text import CODE_OF_NAME


def texts(found: list[Unit]) -> list[str]:
    return [unit.text for unit in found]


def words(text: str, found: list[Unit]) -> list[str]:
    return [text[start:end] for _, _, start, end in written_words(text, found)]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the optional packages."""
    monkeypatch.setitem(sys.modules, "nagisa", None)
    monkeypatch.setattr(units_module, "korean_dictionary", frozenset)


# --- units


def test_units_of_the_small_checkpoint(shared_micro: Path) -> None:
    stored = json.loads((shared_micro / "forced-aligner-micro" / "goldens.json").read_text(encoding="utf-8"))
    for item in stored["items"]:
        assert texts(units(item["text"], CODE_OF_NAME[item["language"]])) == item["units"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", "world"]),
        ("well-known  don't 'quoted'", ["wellknown", "don't", "'quoted'"]),
        ("3.50 € — a_b ½", ["350", "ab", "½"]),
        ("你好，world再见。", ["你", "好", "world", "再", "见"]),
        ("国家/地区", ["国", "家", "地", "区"]),
        ("Оставайтесь на линии.", ["Оставайтесь", "на", "линии"]),
        ("é e\u0301", ["é", "e"]),
        ("", []),
        (" — … !", []),
    ],
)
def test_units_between_spaces(text: str, expected: list[str]) -> None:
    for language in ("en", "zh", "yue", ""):
        found = units(text, language)
        assert texts(found) == expected
        for unit in found:
            assert "".join(filter(is_kept, text[unit.start : unit.end])) == unit.text


def test_japanese_without_the_package(alone: None) -> None:
    found = units("これはペンです。東京タワーに行きました、昨日。", "ja")
    assert texts(found) == ["これは", "ペンです", "東京タワーに", "行きました", "昨日"]


def test_japanese_words_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """nagisa writes full-width letters as narrow ones, composes, and turns spaces into wide ones."""
    tagged = ["ABC", "タワー", "　", "に", "行っ", "た", "。", "ガ"]
    fake = SimpleNamespace(tagging=lambda text: SimpleNamespace(words=tagged))
    monkeypatch.setitem(sys.modules, "nagisa", fake)
    text = "ＡＢＣﾀﾜｰ に行った。ｶﾞ"
    found = units(text, "ja")
    assert texts(found) == ["ABC", "タワー", "に", "行っ", "た", "ガ"]
    assert [text[unit.start : unit.end] for unit in found][:5] == ["ＡＢＣ", "ﾀﾜｰ", "に", "行っ", "た"]
    assert words(text, found) == ["ＡＢＣ", "ﾀﾜｰ ", "に", "行っ", "た。", "ｶﾞ"]


def test_japanese_with_the_real_package() -> None:
    pytest.importorskip("nagisa", exc_type=ImportError)
    found = units("これはペンです。", "ja")
    assert texts(found) == ["これ", "は", "ペン", "です"]


def test_korean_words_stay_whole_without_a_dictionary(alone: None) -> None:
    assert texts(units("학교에서 친구를, 만났다.", "ko")) == ["학교에서", "친구를", "만났다"]


def test_korean_words_are_cut_behind_the_longest_known_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    known = frozenset({"학교", "학", "친구", "친구를", "만나", "집에"})
    monkeypatch.setattr(units_module, "korean_dictionary", lambda: known)
    text = "학교에서 친구를, 집에 만났다."
    found = units(text, "ko")
    assert texts(found) == ["학교", "에서", "친구를", "집에", "만났다"]
    assert [unit.continues for unit in found] == [False, True, False, False, False]
    assert words(text, found) == ["학교에서 ", "친구를, ", "집에 ", "만났다."]


def test_the_official_dictionary_is_found_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "qwen_asr" / "inference" / "assets" / "korean_dict_jieba.dict"
    path.parent.mkdir(parents=True)
    path.write_text("학교 10 x\n친구 3 n\n\n", encoding="utf-8")
    (tmp_path / "qwen_asr" / "__init__.py").write_text("raise SystemExit('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    units_module.korean_dictionary.cache_clear()
    try:
        assert units_module.korean_dictionary() == {"학교", "친구"}
    finally:
        units_module.korean_dictionary.cache_clear()


# --- written words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello, ", "world!"]),
        (" “No,” he said (twice) — and left.", [" “No,” ", "he ", "said ", "(twice) — ", "and ", "left."]),
        ("他说：「我来。」好", ["他", "说：", "「我", "来。」", "好"]),
        ("well-known", ["well-known"]),
        ("... yes", ["... yes"]),
    ],
)
def test_words_keep_their_punctuation(text: str, expected: list[str]) -> None:
    assert words(text, units(text, "en")) == expected


@given(st.text(st.sampled_from("aB'1, .-“”（）「」\n每个项é"), max_size=40))
def test_words_are_the_text(text: str) -> None:
    found = units(text, "zh")
    assert "".join(words(text, found)) == (text if found else "")
    assert [first for first, *_ in written_words(text, found)] == list(range(len(found)))


# --- times in order


def test_official_repairs(shared_micro: Path) -> None:
    stored = json.loads((shared_micro / "forced-aligner-micro" / "goldens.json").read_text(encoding="utf-8"))
    cases = [*stored["repair_cases"], *stored["items"]]
    assert len(cases) == 31
    for case in cases:
        assert repair(case["raw_ms"]) == case["repaired_ms"]


@pytest.mark.parametrize(
    ("raw", "repaired"),
    [
        ([], []),
        ([5], [5]),
        ([2, 1], [2, 2]),
        ([0, 80, 9000, 160, 240], [0, 80, 80, 160, 240]),
        ([0, 900, 800, 100, 200], [0, 0, 100, 100, 200]),
        ([0, 900, 800, 700, 100, 200, 300], [0, 25, 50, 75, 100, 200, 300]),
        ([900, 800, 700, 100, 200, 300, 400], [100, 100, 100, 100, 200, 300, 400]),
        ([100, 200, 300, 400, 90, 80, 70], [100, 200, 300, 400, 400, 400, 400]),
        ([0, 10, 9, 8, 7, 11, 12], [0, 10, 10, 10, 10, 11, 12]),
    ],
)
def test_repairs(raw: list[int], repaired: list[int]) -> None:
    assert repair(raw) == repaired


@given(st.lists(st.integers(0, 50).map(lambda n: 80 * n), max_size=60))
def test_repaired_times_never_fall_and_good_ones_stay(raw: list[int]) -> None:
    repaired = repair(raw)
    assert len(repaired) == len(raw) and repaired == sorted(repaired)
    assert repair(sorted(raw)) == sorted(raw)
    assert set(repair(repaired)) == set(repaired)
