"""A journal gives back what it was given, continues its own work only, and loses nothing silently."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rustasr.audio import ArraySource, open_audio
from rustasr.journal import Journal, Rounds, RoundsWithin, build, model_identity, plain, recording_identity
from rustasr.types import Segment, Token, Word

OURS = {"recording": "r", "model": "m", "set of options": "o"}


def journal(path: Path, patience_s: float = 0.0, **other: str) -> Journal:
    return Journal(path, lambda: {**OURS, **other}, lambda: 1.5, patience_s)


def ask(rounds: Rounds, *keys: int) -> list[int]:
    """The keys that had to be computed."""
    computed = []
    for key in keys:
        value = rounds.remember(["round", key], list[int], lambda key=key: [computed.append(key) or key, key])
        assert value == [key, key]
    rounds.close()
    return computed


def test_what_is_known_is_not_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert ask(journal(path), 1, 2, 3) == [1, 2, 3]
    again = journal(path)
    assert ask(again, 1, 2, 3, 4, 5) == [4, 5]
    assert (again.known_seconds, again.warnings) == (1.5, ())
    assert ask(journal(path), 1, 2, 3, 4, 5, 6) == [6]
    assert ask(Rounds(), 1, 2) == [1, 2]


def test_the_rounds_of_a_part_are_kept_with_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def work() -> list[list[int]]:
        whole = journal(path)
        done = [ask(RoundsWithin(whole, part), 1, 2) for part in ("left", "right")]
        whole.close()
        return done

    assert work() == [[1, 2], [1, 2]]
    assert work() == [[], []]
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:3]))
    assert work() == [[], [1, 2]]


def test_short_work_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.jsonl"
    assert ask(journal(path, 60.0), 1, 2, 3) == [1, 2, 3]
    assert not path.exists()


def test_every_cut_of_the_file_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ask(journal(path), 1, 2, 3)
    whole = path.read_bytes()
    ends = [n for n, byte in enumerate(whole, 1) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        known = max(0, sum(end <= cut for end in ends) - 1)  # the header is one of the lines
        continued = journal(path)
        assert ask(continued, 1, 2, 3) == [1, 2, 3][known:]
        assert continued.warnings == ()
        assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_damaged_file_is_kept_aside_and_named(tmp_path: Path, line: int) -> None:
    path = tmp_path / "a.jsonl"
    ask(journal(path), 1, 2, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"round", b"rOund").replace(b"recording", b"rEcording")
    path.write_bytes(b"".join(lines))
    anew = journal(path)
    assert ask(anew, 1, 2, 3) == [1, 2, 3]
    (warning,) = anew.warnings
    assert f"it is damaged in line {line + 1}" in warning
    assert "kept as a.jsonl.1" in warning
    assert (tmp_path / "a.jsonl.1").read_bytes() == b"".join(lines)
    assert ask(journal(path), 1, 2, 3) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"recording": "x"}, "it was written for another recording;"),
        ({"model": "x", "set of options": "y"}, "for another model and another set of options;"),
    ],
)
def test_other_work_is_kept_aside_and_named(tmp_path: Path, other: dict[str, str], says: str) -> None:
    path = tmp_path / "a.jsonl"
    ask(journal(path, **other), 1)
    before = path.read_bytes()
    (tmp_path / "a.jsonl.1").write_text("someone's")
    anew = journal(path)
    assert ask(anew, 1) == [1]
    assert says in anew.warnings[0]
    assert (tmp_path / "a.jsonl.2").read_bytes() == before


@pytest.mark.parametrize("content", [b"text\nof mine\n", b'{"a": 1}\n{"a": 2}\n', bytes(100) + b"\nx"])
def test_a_file_that_is_no_journal_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    anew = journal(path)
    assert ask(anew, 1) == [1]
    assert "damaged in line 1" in anew.warnings[0]
    assert (tmp_path / "a.jsonl.1").read_bytes() == content


def test_rounds_that_do_not_follow_are_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ask(journal(path), 1, 2, 3)
    anew = journal(path)
    assert ask(anew, 1, 7, 8) == [7, 8]
    assert "is not the one that follows here" in anew.warnings[0]
    assert ask(journal(path), 1, 7, 8) == []
    assert b'["round",3]' in (tmp_path / "a.jsonl.1").read_bytes()


def test_where_it_cannot_be_written_the_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    without = journal(tmp_path / "file" / "a.jsonl")
    assert ask(without, 1, 2) == [1, 2]
    assert len(without.warnings) == 1
    assert "cannot be written" in without.warnings[0]


# --- values


class Pair(NamedTuple):
    first: int
    second: int


@dataclasses.dataclass
class Bag:
    segments: list[Segment]
    pairs: tuple[Pair, ...]
    one: tuple[str, float]
    maybe: Segment | None
    by_name: dict[str, Word]


floats = st.floats(allow_nan=False)
texts = st.text(max_size=8)
words = st.builds(Word, floats, floats, texts, floats)
tokens = st.builds(Token, st.integers(), texts, floats, floats, floats)
segments = st.builds(
    Segment,
    floats,
    floats,
    texts,
    words=st.none() | st.lists(words, max_size=3).map(tuple),
    timed_tokens=st.none() | st.lists(tokens, max_size=3).map(tuple),
    tokens=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    flags=st.lists(texts, max_size=2).map(tuple),
    temperature=st.none() | floats,
)
bags = st.builds(
    Bag,
    st.lists(segments, max_size=3),
    st.lists(st.builds(Pair, st.integers(), st.integers()), max_size=3).map(tuple),
    st.tuples(texts, floats),
    st.none() | segments,
    st.dictionaries(texts, words, max_size=3),
)


@given(bags)
def test_values_come_back_exactly(bag: Bag) -> None:
    text = json.dumps(plain(bag))
    assert build(Bag, json.loads(text)) == bag


def test_numpys_numbers_are_kept_exactly(tmp_path: Path) -> None:
    value = [Word(np.float32(0.1), np.float64(0.1), "a", 1.0)]
    path = tmp_path / "a.jsonl"
    for _ in range(2):
        rounds = journal(path)
        assert rounds.remember(["a"], list[Word], lambda: value) == value
        rounds.close()


# --- identities


def test_a_recording_is_known_by_its_content(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (16000, 2)).astype(np.float32)
    first, second, other = (tmp_path / f"{name}.wav" for name in "abc")
    soundfile.write(first, samples, 16000)
    soundfile.write(second, samples, 16000)
    soundfile.write(other, samples * 0.5, 16000)
    known: dict[str, Any] = {
        "first": open_audio(first),
        "left": open_audio(first, "left"),
        "other": open_audio(other),
        "array": ArraySource(np.ascontiguousarray(samples[:, 0])),
    }
    assert len({recording_identity(source) for source in known.values()}) == len(known)
    assert recording_identity(open_audio(second)) == recording_identity(known["first"])
    with open(first, "rb") as file:
        assert recording_identity(open_audio(file)) == recording_identity(known["first"])


def test_a_model_is_known_by_its_content(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(1).bytes(6 << 20))
    path = tmp_path / "m.gguf"
    seen = set()
    for place in (0, 3 << 20, len(content) * 63 // 64):
        path.write_bytes(content)
        seen.add(model_identity(path))
        content[place] ^= 1
    path.write_bytes(content[:-1])
    seen.add(model_identity(path))
    assert len(seen) == 4
