"""Voice activity: spans join and split without loss, and the rules are those of the official detectors."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.audio import load_audio
from rustasr.errors import OptionError
from rustasr.vad import (
    SileroOptions,
    SileroVad,
    Span,
    Vad,
    WebRtcOptions,
    WebRtcVad,
    arrange,
    flags_to_spans,
    load_vad,
    speech_timestamps,
    touching,
)
from vad_tracks import random_track

DATA = Path(__file__).parent.parent / "data"
GOLDENS = json.loads((DATA / "goldens/vad/silero.json").read_text())

spans = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(1, 300)).map(lambda pair: Span(pair[0], sum(pair))),
    max_size=20,
)


def covered(found: Iterable[Span]) -> set[int]:
    return {sample for span in found for sample in range(*span)}


# --- arrange


@settings(deadline=None)
@given(spans, st.randoms(use_true_random=False))
def test_joining_loses_and_adds_nothing_whatever_the_order(given_spans: list[Span], shuffler: Any) -> None:
    joined = arrange(given_spans)
    assert covered(joined) == covered(given_spans)
    assert all(a.end < b.start for a, b in itertools.pairwise(joined)), "touching spans join"
    shuffled = list(given_spans)
    shuffler.shuffle(shuffled)
    assert arrange(shuffled) == joined == arrange(joined)


@settings(deadline=None)
@given(spans, st.integers(-50, 2400), st.integers(0, 400))
def test_what_touches_a_stretch_is_found(given_spans: list[Span], start: int, length: int) -> None:
    apart, end = arrange(given_spans), start + length
    assert list(touching(apart, start, end)) == [s for s in apart if s.start < end and s.end > start]


@settings(deadline=None)
@given(spans, st.integers(0, 200))
def test_joining_fills_just_the_short_gaps(given_spans: list[Span], gap: int) -> None:
    apart, joined = arrange(given_spans), arrange(given_spans, gap=gap)
    assert all(b.start - a.end > gap for a, b in itertools.pairwise(joined))
    gaps = [Span(a.end, b.start) for a, b in itertools.pairwise(apart)]
    filled = covered(between for between in gaps if between.length <= gap)
    assert covered(joined) == covered(apart) | filled


@settings(deadline=None)
@given(spans, st.integers(1, 250))
def test_splitting_cuts_what_is_too_long_and_nothing_else(given_spans: list[Span], longest: int) -> None:
    whole, pieces = arrange(given_spans), arrange(given_spans, longest=longest)
    assert covered(pieces) == covered(whole)
    assert sum(piece.length for piece in pieces) == len(covered(whole)), "no sample twice"
    assert all(0 < piece.length <= longest for piece in pieces)
    ends = {span.end for span in whole}
    assert all(piece.length == longest or piece.end in ends for piece in pieces)


@pytest.mark.parametrize("wrong", [{"gap": -1}, {"longest": -1}])
def test_a_negative_length_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="found .*-1"):
        arrange([], **wrong)


# --- Silero

NAMES = {
    "min_silence_at_max_speech": "min_silence_at_max_speech_ms",
    "use_max_poss_sil_at_max_speech": "use_longest_pause",
}


def options_of(official: dict[str, Any]) -> SileroOptions:
    """The official function's arguments as ours."""
    values = {NAMES.get(name, name): value for name, value in official.items() if name != "sampling_rate"}
    return SileroOptions(**{name: math.inf if value == "inf" else value for name, value in values.items()})


@pytest.mark.parametrize("name", GOLDENS["recordings"])
def test_real_probabilities_give_the_official_spans(name: str) -> None:
    golden = GOLDENS["recordings"][name]
    for case in golden["cases"]:
        found = speech_timestamps(golden["probabilities"], golden["n_samples"], options_of(case["options"]))
        assert [list(span) for span in found] == case["spans"], case["options"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [(5152, 36320), (52256, 71136), (86048, 122848), (130592, 169952)]),
        ({"max_speech_duration_s": 3}, [(5152, 36320), (52256, 71136), (86048, 122848), (130592, 169952)]),
        (
            {"max_speech_duration_s": 5, "min_silence_duration_ms": 2000},
            [(5152, 36320), (52256, 122848), (130592, 176000)],
        ),
    ],
)
def test_jfk_gives_the_known_spans(options: dict[str, Any], wanted: list[tuple[int, int]]) -> None:
    golden = GOLDENS["recordings"]["jfk"]
    found = speech_timestamps(golden["probabilities"], golden["n_samples"], SileroOptions(**options))
    assert found == wanted


def test_random_probabilities_give_the_official_spans() -> None:
    n_spans = 0
    for case in GOLDENS["random"]:
        rate = case["options"]["sampling_rate"]
        track, n_samples = random_track(case["seed"], rate)
        found = speech_timestamps(track, n_samples, options_of(case["options"]), rate)
        assert [list(span) for span in found] == case["spans"], case["options"]
        n_spans += len(found)
    assert n_spans > 500


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0, 1), max_size=120),
    st.integers(0, 511),
    st.sampled_from([0.0, 30.0, 200.0]),
    st.sampled_from([math.inf, 1.0]),
)
def test_spans_rise_stay_apart_and_inside(track: list[float], short: int, pad: float, longest: float) -> None:
    n_samples = max(0, len(track) * 512 - short)
    options = SileroOptions(speech_pad_ms=pad, max_speech_duration_s=longest, min_speech_duration_ms=0)
    now = 0
    for span in speech_timestamps(track, n_samples, options):
        assert now <= span.start < span.end <= n_samples
        now = span.end


def test_a_network_sees_every_sample_once_and_its_length_ends_the_last_span() -> None:
    seen = list[float]()

    def network(blocks: Iterable[np.ndarray[Any, Any]]) -> Iterator[float]:
        for block in blocks:
            seen.extend(block.tolist())
        yield from [0.9] * 20

    vad: Vad = SileroVad(network)
    samples = np.arange(10_000, dtype=np.float32)
    assert vad.speech([samples[:3000], samples[3000:3001], samples[3001:]]) == [Span(0, 10_000)]
    assert seen == samples.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5},
        {"threshold": 0.5, "neg_threshold": 0.6},
        {"max_speech_duration_s": 0},
        {"speech_pad_ms": -1},
        {"min_silence_duration_ms": "100"},
    ],
)
def test_silero_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{list(wrong)[-1]}: expected .*found"):
        SileroOptions(**wrong)


def test_another_sample_rate_is_refused() -> None:
    with pytest.raises(OptionError, match="expected 8000 or 16000, found 44100"):
        speech_timestamps([], 0, sample_rate=44100)


# --- WebRTC


def blocks_of(samples: np.ndarray[Any, Any], size: int) -> list[np.ndarray[Any, Any]]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


@pytest.mark.parametrize(
    ("mode", "n_voiced", "wanted"),
    [
        (0, 351, [(0, 126240), (128160, 175680)]),
        (1, 350, [(0, 125760), (128160, 175680)]),
        (2, 340, [(0, 124800), (128640, 175680)]),
        (3, 325, [(0, 74400), (78240, 124800), (128640, 175680)]),
    ],
)
def test_jfk_gives_the_known_webrtc_spans(mode: int, n_voiced: int, wanted: list[tuple[int, int]]) -> None:
    pytest.importorskip("webrtcvad")
    vad = WebRtcVad(WebRtcOptions(mode=mode))
    samples = load_audio(DATA / "jfk.flac")
    flags = list(vad.flags([samples]))
    assert (len(flags), sum(flags)) == (366, n_voiced)
    if mode == 2:
        assert flags[:40] == [False] * 3 + [True] * 37
    assert vad.speech([samples]) == wanted
    assert vad.speech(blocks_of(samples, 777)) == wanted, "where blocks are cut makes no difference"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("mode", "n_voiced", "start"), [(0, 96, 480), (1, 96, 480), (2, 90, 960), (3, 68, 1440)]
)
def test_another_voice_gives_the_known_webrtc_spans(
    mode: int, n_voiced: int, start: int, shared_audio: Path
) -> None:
    pytest.importorskip("webrtcvad")
    vad = WebRtcVad(WebRtcOptions(mode=mode))
    samples = load_audio(shared_audio / "en/LDC93S1.flac")
    flags = list(vad.flags([samples]))
    assert (len(flags), sum(flags)) == (97, n_voiced)
    assert vad.speech([samples]) == [(start, 46560)]


def runs(*lengths: int) -> list[bool]:
    """Flags that begin with silence: so many off, so many on, ..."""
    return [bool(i % 2) for i, length in enumerate(lengths) for _ in range(length)]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (runs(20, 9, 20), []),  # 270 ms are too short
        (runs(20, 10, 20), [(15, 35)]),
        (runs(20, 10, 6, 1, 20), [(15, 42)]),  # 180 ms do not end it
        (runs(20, 10, 7, 9, 20), [(15, 35)]),  # 210 ms do, and what follows is too short again
        (runs(0, 10, 6), [(0, 16)]),  # the end of the recording is not waited for
        (runs(20, 10, 10, 10, 20), [(15, 55)]),  # paddings that touch join
        (runs(20, 10, 11, 10, 20), [(15, 35), (36, 56)]),
        ([], []),
    ],
)
def test_durations_decide_in_whole_frames(flags: list[bool], wanted: list[tuple[int, int]]) -> None:
    assert flags_to_spans(flags, WebRtcOptions()) == [(a * 480, b * 480) for a, b in wanted]


def test_long_speech_is_cut_to_pieces() -> None:
    found = flags_to_spans([True] * 100, WebRtcOptions(max_segment_s=1.3))
    assert found == [(0, 20800), (20800, 41600), (41600, 48000)]
    assert flags_to_spans([True] * 100, WebRtcOptions(max_segment_s=0)) == [(0, 48000)]


@pytest.mark.parametrize(
    "wrong", [{"mode": 4}, {"mode": True}, {"frame_ms": 15}, {"pad_ms": -1}, {"max_segment_s": math.nan}]
)
def test_webrtc_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(wrong))}: expected .*found"):
        WebRtcOptions(**wrong)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    with pytest.raises(OptionError, match=r"webrtcvad-wheels.*rustasr\[vad\]"):
        WebRtcVad()


# --- by name


def test_a_detector_is_loaded_by_its_name() -> None:
    pytest.importorskip("webrtcvad")
    vad = load_vad("webrtc", WebRtcOptions(mode=3))
    samples = load_audio(DATA / "jfk.flac")
    assert vad.speech([samples]) == [(0, 74400), (78240, 124800), (128640, 175680)]


def test_options_of_another_detector_are_refused() -> None:
    with pytest.raises(OptionError, match="vad webrtc: expected WebRtcOptions, found SileroOptions"):
        load_vad("webrtc", SileroOptions())
