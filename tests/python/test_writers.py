"""Writers: the JSON schema holds, subtitles can be read, times keep their order, files are atomic."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcript_schema import SCHEMA, violations  # tests/helpers

from rustasr import subtitles, writers
from rustasr.errors import OptionError
from rustasr.types import Coverage, Segment, TranscriptionResult, Turn, Word

JFK = (
    "And so my fellow Americans, ask not what your country can do for you; "
    "ask what you can do for your country."
)


def result(*segments: Segment, duration: float = 60.0) -> TranscriptionResult:
    text = " ".join(s.text for s in segments)
    return TranscriptionResult(text, segments, "en", duration, 1.5, "whisper-tiny.en")


# --- properties, whatever a transcriber hands over

times = st.floats(-5, 80, allow_nan=False) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 60.0])
texts = st.text(max_size=120) | st.lists(
    st.sampled_from(["so", "country,", "ask.", "don't", "我们", "。", "สวัสดี", "x" * 60, "a&b<c>", "-->"]),
    max_size=40,
).map(" ".join)
words = st.lists(st.builds(Word, times, times, st.text(max_size=12), st.floats(0, 1)), max_size=6).map(tuple)
segments = st.lists(
    st.builds(
        Segment,
        times,
        times,
        texts,
        st.none() | words,
        st.none() | st.sampled_from(["mic", "Ann Lee", "x" * 60, "<&>"]),
        confidence=st.none() | st.floats(0, 1),
        avg_logprob=st.none() | st.floats(),
    ),
    max_size=5,
).map(tuple)
results = st.builds(
    TranscriptionResult,
    texts,
    segments,
    st.sampled_from(["", "en", "zh"]),
    st.sampled_from([0.0, 0.3, 60.0]),
    st.floats(0, 100),
    st.just("m"),
    coverage=st.none() | st.just(Coverage(9.0, 7.5, ((1.0, 2.5),))),
    turns=st.none() | st.just((Turn(0.0, 2.0, "mic"), Turn(1.0, 3.0, "Ann Lee"))),
)


@settings(deadline=None, max_examples=150)
@given(results)
def test_any_result_makes_a_valid_json_document(made: TranscriptionResult) -> None:
    text = writers.to_json(made)
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"JSON has no {name}"))
    assert violations(document, SCHEMA) == []


@settings(deadline=None, max_examples=150)
@given(results)
def test_times_never_overlap_run_backwards_or_leave_the_file(made: TranscriptionResult) -> None:
    now_of: dict[str | None, float] = {}
    for segment in writers.tidy(made).segments:
        assert now_of.get(segment.speaker, 0.0) <= segment.start <= segment.end <= made.duration
        inner = segment.start
        for word in segment.words or ():
            assert inner <= word.start <= word.end <= segment.end
            inner = word.end
        now_of[segment.speaker] = segment.end
    now = 0
    for cue in subtitles.cues(writers.tidy(made).segments, made.duration):
        assert now <= cue.start_ms <= cue.end_ms <= made.duration * 1000
        now = cue.end_ms


@settings(deadline=None, max_examples=150)
@given(results)
def test_subtitles_keep_every_character_within_reading_limits(made: TranscriptionResult) -> None:
    check_subtitles(made, names=False)
    check_subtitles(made, names=True)


def check_subtitles(made: TranscriptionResult, *, names: bool) -> None:
    cues = subtitles.cues(writers.tidy(made).segments, made.duration, names=names)
    written = "".join("".join(line.split()) for cue in cues for line in cue.lines)
    wanted = ""
    for segment in made.segments:
        if names and segment.speaker is not None and segment.text.strip():
            wanted += f"{segment.speaker}:"
        wanted += segment.text
    assert written == "".join(wanted.split())
    for cue in cues:
        assert 1 <= len(cue.lines) <= 2
        assert all(line == line.strip() and 0 < len(line) <= 42 for line in cue.lines)
        assert cue.end_ms - cue.start_ms <= 7000


@settings(deadline=None, max_examples=100)
@given(results)
def test_srt_and_vtt_can_be_parsed_back(made: TranscriptionResult) -> None:
    cues = subtitles.cues(writers.tidy(made).segments, made.duration, names=True)
    # A text may hold any control character, but a line feed is the writer's alone.
    blocks = [block for block in writers.to_srt(made).split("\n\n") if block.strip("\n")]
    assert [block.split("\n")[0] for block in blocks] == [str(i + 1) for i in range(len(cues))]
    assert all(len(block.strip("\n").split("\n")) in (3, 4) for block in blocks)
    assert writers.to_srt(made).count(" --> ") == len(cues)
    vtt = writers.to_vtt(made)
    voiceless = subtitles.cues(writers.tidy(made).segments, made.duration)
    assert vtt.startswith("WEBVTT\n") and vtt.count("-->") == len(voiceless)
    assert vtt.count("<v ") == vtt.count("</v>") == sum(cue.speaker is not None for cue in voiceless)


@settings(deadline=None, max_examples=60)
@given(results)
def test_tsv_has_as_many_columns_in_every_row(made: TranscriptionResult) -> None:
    rows = writers.to_tsv(made).removesuffix("\n").split("\n")
    has_speakers = any(segment.speaker for segment in made.segments)
    assert rows[0].split("\t") == ["start", "end", *(["speaker"] if has_speakers else []), "text"]
    assert len(rows) == len(made.segments) + 1
    for row in rows[1:]:
        start, end, *rest = row.split("\t")
        assert len(rest) == 1 + has_speakers
        assert 0 <= int(start) <= int(end) <= made.duration * 1000


# --- examples, where the result is known


def test_cues_end_at_punctuation_when_there_are_no_words() -> None:
    cues = subtitles.cues([Segment(0.0, 9.5, JFK)], 11.0)
    assert [" ".join(cue.lines).split()[-1] for cue in cues] == ["you;", "country."]
    assert cues[0].start_ms == 0 and cues[-1].end_ms == 9500


def test_cues_take_the_times_of_the_words() -> None:
    spoken = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    # Ten words, a second each, with a pause of a second after the fifth.
    words = tuple(Word(i + (i > 4), i + (i > 4) + 0.9, f" {w}", 0.9) for i, w in enumerate(spoken))
    cues = subtitles.cues([Segment(0.0, 11.0, " ".join(spoken), words)], 12.0)
    assert [(c.start_ms, c.end_ms, c.lines) for c in cues] == [
        (0, 4900, ("one two three four five",)),
        (6000, 10900, ("six seven eight nine ten",)),
    ]


def test_words_that_do_not_spell_the_text_give_way_to_even_times() -> None:
    cues = subtitles.cues([Segment(2.0, 4.0, "hello there", (Word(0, 1, "other", 1.0),))], 10.0)
    assert [(c.start_ms, c.end_ms) for c in cues] == [(2000, 4000)]


def test_text_without_spaces_is_cut_and_never_at_a_closing_mark() -> None:
    text = "我们今天要讨论的问题是，如何在没有空格的情况下把很长的中文句子分成可以阅读的字幕行。" * 4
    cues = subtitles.cues([Segment(0.0, 60.0, text)], 60.0)
    lines = [line for cue in cues for line in cue.lines]
    assert "".join(lines) == text and len(cues) >= 9
    assert all(subtitles.text_width(line) <= 42 for line in lines)
    assert not any(line[0] in "，。" for line in lines)


def test_a_short_cue_is_held_until_the_next_one() -> None:
    cues = subtitles.cues([Segment(0.0, 0.2, "Yes."), Segment(0.6, 0.8, "No.")], 1.5)
    assert [(c.start_ms, c.end_ms) for c in cues] == [(0, 600), (600, 1500)]


def test_a_sentence_stays_on_one_line_or_breaks_evenly() -> None:
    (cue,) = subtitles.cues(
        [Segment(0.0, 5.0, "ask what you can do for your country, my fellow citizens")], 5.0
    )
    assert cue.lines == ("ask what you can do for your country,", "my fellow citizens")


def test_srt_looks_like_srt() -> None:
    made = result(Segment(3661.5, 3663.0, "It is late --> go"), duration=3700.0)
    assert writers.to_srt(made) == "1\n01:01:01,500 --> 01:01:03,000\nIt is late -- > go\n"


def test_vtt_escapes_markup() -> None:
    made = result(Segment(0.0, 2.0, "a < b & c --> d"))
    assert "00:00:00.000 --> 00:00:02.000\na &lt; b &amp; c --&gt; d\n" in writers.to_vtt(made)


CALL = (
    Segment(0.0, 3.0, "Good morning, what can I do for you?", speaker="agent"),
    Segment(2.5, 3.5, "Hello.", speaker="caller"),
    Segment(4.0, 5.0, "(noise)"),
)


def test_speakers_are_in_every_format() -> None:
    made = replace(result(*CALL), turns=(Turn(0.0, 3.0, "agent"), Turn(2.5, 3.5, "caller")))
    assert writers.to_text(made) == "agent: Good morning, what can I do for you?\ncaller: Hello.\n(noise)\n"
    assert writers.to_tsv(made).split("\n")[:3] == [
        "start\tend\tspeaker\ttext",
        "0\t3000\tagent\tGood morning, what can I do for you?",
        "2500\t3500\tcaller\tHello.",
    ]
    assert "\nagent: Good morning,\nwhat can I do for you?\n" in writers.to_srt(made)
    assert "\ncaller: Hello.\n" in writers.to_srt(made)
    assert "\n<v agent>Good morning, what can I do for you?</v>\n" in writers.to_vtt(made)
    assert "\n(noise)\n" in writers.to_vtt(made)
    assert "[00:00:02.500 --> 00:00:03.500] caller: Hello.\n" in writers.to_verbose(made)
    document = writers.to_dict(made)
    assert [segment["speaker"] for segment in document["segments"]] == ["agent", "caller", None]
    assert document["segments"][1]["start"] == 2.5, "two speakers may talk at once"
    assert document["turns"][1] == {"start": 2.5, "end": 3.5, "speaker": "caller"}


def test_rttm_has_the_turns_or_else_the_segments() -> None:
    line = "SPEAKER call 1 {} <NA> <NA> {} <NA> <NA>\n".format
    made = result(*CALL)
    assert writers.to_rttm(made, "call") == line("0.000 3.000", "agent") + line("2.500 1.000", "caller")
    turned = replace(made, turns=(Turn(0.25, 3.5, "agent"),))
    assert writers.to_rttm(turned, "call") == line("0.250 3.250", "agent")


def test_a_name_too_long_for_its_line_is_broken_like_text() -> None:
    (cue,) = subtitles.cues([Segment(0, 4, "Yes.", speaker="A" * 43)], 5.0, names=True)
    assert cue.lines == ("A" * 42, "A: Yes.")


def test_coverage_is_written_with_its_gaps() -> None:
    made = replace(result(Segment(0, 4, "text")), coverage=Coverage(8.0, 6.0, ((5.0, 7.0),)))
    assert writers.to_dict(made)["coverage"] == {
        "speech_seconds": 8.0,
        "text_seconds": 6.0,
        "gaps": [{"start": 5.0, "end": 7.0}],
    }
    assert "speech    8.00 s, 75.0% with text\n" in writers.to_verbose(made)
    assert writers.to_dict(result())["coverage"] is None


def test_text_has_one_segment_a_line_and_no_blank_ones() -> None:
    assert writers.to_text(
        result(Segment(0, 1, " one "), Segment(1, 2, " "), Segment(2, 3, "two\nthree"))
    ) == ("one\ntwo three\n")
    assert writers.to_text(replace(result(), text="only text")) == "only text\n"
    assert writers.to_text(result()) == ""


def test_verbose_names_speed_memory_device_flags_and_warnings() -> None:
    made = replace(
        result(Segment(0, 1, "Thanks.", flags=("no_speech",))),
        warnings=("talk.wav is truncated",),
        language_probability=0.98,
    )
    text = writers.to_verbose(made)
    assert "[00:00:00.000 --> 00:00:01.000] Thanks.  (no_speech)" in text
    assert re.search(r"time +1\.50 s \(RTF 0\.0250\)", text)
    assert re.search(r"memory +\d+ MiB peak", text) and "en (98%)" in text and "talk.wav is truncated" in text


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match="text, json, srt, vtt, tsv, verbose"):
        writers.render(result(), "docx")


def test_the_schema_refuses_what_is_wrong() -> None:
    document = result(Segment(0, 1, "x")).to_dict()
    assert violations(document, SCHEMA) == []
    assert violations(document | {"version": 2}, SCHEMA)
    assert violations(document | {"extra": 1}, SCHEMA)
    assert violations({k: v for k, v in document.items() if k != "segments"}, SCHEMA)
    assert violations(document | {"segments": [{"start": "0"}]}, SCHEMA)


# --- files


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.txt"
    writers.write_atomic(target, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        writers.write_atomic(target, "new")
    assert target.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links as on POSIX")
def test_a_write_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    writers.write_atomic(target, "one")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o600)
    link.symlink_to(target)
    writers.write_atomic(link, "två")
    assert link.is_symlink() and target.read_bytes() == "två".encode()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/null")
def test_a_device_is_written_to_not_replaced() -> None:
    writers.write_atomic("/dev/null", "gone")
    assert not Path("/dev/null").is_file()


def test_a_lone_surrogate_does_not_stop_a_write(tmp_path: Path) -> None:
    writers.write_atomic(tmp_path / "x", "a\ud800b")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "a?b"
