"""Channel mode: a side is what its own channel hears, and the echo of the other side is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rustasr.audio import FileSource, StereoArray, load_audio, open_audio
from rustasr.diarization import ChannelOptions, DiarizationOptions, find_turns, read_rttm
from rustasr.diarization.channels import are_duplicates, channel_speech
from rustasr.errors import AudioError, OptionError
from rustasr.types import Turn
from rustasr.vad import Span, WebRtcVad
from speakers import RATE, LevelEncoder, LevelVad, error_rate, level

DATA = Path(__file__).parent.parent / "data"
SHARED = Path(os.environ.get("RUSTASR_SHARED_AUDIO", Path(__file__).parents[3] / "shared/audio"))
Array = np.ndarray[Any, Any]


def stereo(left: Array, right: Array) -> StereoArray:
    return StereoArray(np.stack([left, right], axis=1).astype(np.float32))


class Cut(StereoArray):
    """Channels that are read in blocks of another size."""

    def __init__(self, samples: Array, block_s: float) -> None:
        super().__init__(samples)
        self.block_s = block_s

    def pairs(self, _: float) -> Any:
        return super().pairs(self.block_s)


def noise(seconds: float, seed: int) -> Array:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def delayed(samples: Array, n: int) -> Array:
    return np.concatenate([np.zeros(n, samples.dtype), samples[: len(samples) - n]])


# --- one recording in both channels


@settings(deadline=None, max_examples=20)
@given(st.integers(-480, 480), st.floats(0.01, 3), st.floats(0.05, 3), st.booleans())
def test_a_delayed_or_louder_copy_is_a_duplicate(lag: int, gain: float, block_s: float, minus: bool) -> None:
    sound = noise(2, 1)
    pad = 500  # silence on both sides, so that no lag loses samples
    sound = np.concatenate([np.zeros(pad), sound, np.zeros(pad)]).astype(np.float32)
    copy = np.roll(sound, lag) * gain * (-1 if minus else 1)
    assert are_duplicates(Cut(np.stack([sound, copy.astype(np.float32)], axis=1), block_s))


@pytest.mark.parametrize(
    ("left", "right", "wanted"),
    [
        (noise(5, 1), noise(5, 1), True),
        (noise(5, 1), noise(5, 2), False),
        (noise(5, 1), noise(5, 1) + 0.5 * noise(5, 2), False),
        (noise(5, 1), delayed(noise(5, 1), 600), False),  # beyond 30 ms
        (np.zeros(RATE), np.zeros(RATE), True),
        (noise(1, 1), np.zeros(RATE), False),
    ],
)
def test_only_one_sound_in_both_channels_is_a_duplicate(left: Array, right: Array, wanted: bool) -> None:
    assert are_duplicates(stereo(left, right)) is wanted


def test_a_longer_delay_is_found_when_it_is_looked_for() -> None:
    sound = stereo(noise(5, 1), delayed(noise(5, 1), 600))
    assert are_duplicates(sound, ChannelOptions(echo_ms=40))


# --- cross-talk


class HalfVad(LevelVad):
    """Speech is every stretch that is not silent, however weak it is."""

    def speech(self, blocks: Any) -> list[Span]:
        samples = np.concatenate(list(blocks))
        loud = np.abs(samples).reshape(-1, RATE // 10).max(axis=1) > 0
        edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int))).reshape(-1, 2)
        return [Span(int(a) * RATE // 10, int(b) * RATE // 10) for a, b in edges]


def call(leak_db: float | None, delay: int = 160) -> StereoArray:
    """Left speaks from 1 to 4 s and from 9 to 12 s, right from 5 to 8 s and from 10 to 11 s."""
    sides = [np.zeros(13 * RATE, np.float32) for _ in range(2)]
    for side, start, end in ((0, 1, 4), (1, 5, 8), (0, 9, 12), (1, 10, 11)):
        sides[side][start * RATE : end * RATE] = noise(end - start, 10 * start + side)
    if leak_db is None:
        return stereo(*sides)
    gain = 10 ** (leak_db / 20)
    return stereo(*(a + gain * delayed(b, delay) for a, b in (sides, sides[::-1])))


@pytest.mark.parametrize("leak_db", [None, -40, -20, -10])
def test_an_echo_is_cleared_and_double_talk_stays(leak_db: float | None) -> None:
    found = channel_speech(call(leak_db), HalfVad())
    for spans, wanted in ((found.left, [(1, 4), (9, 12)]), (found.right, [(5, 8), (10, 11)])):
        assert [(s.start / RATE, s.end / RATE) for s in spans] == [
            pytest.approx(span, abs=0.25) for span in wanted
        ]
    assert found.likeness < 0.1


def test_an_echo_beyond_the_longest_delay_stays() -> None:
    late = call(-20, delay=1600)
    assert sum(span.length for span in channel_speech(late, HalfVad()).right) > 8 * RATE
    patient = channel_speech(late, HalfVad(), ChannelOptions(echo_ms=120)).right
    assert sum(span.length for span in patient) < 5 * RATE


@settings(deadline=None, max_examples=15)
@given(st.floats(0.3, 12))
def test_where_blocks_are_read_makes_no_difference(block_s: float) -> None:
    sound = call(-20)
    cut = Cut(np.stack([load_audio(sound.side(0)), load_audio(sound.side(1))], axis=1), block_s)
    whole = channel_speech(sound, HalfVad())
    found = channel_speech(cut, HalfVad())
    assert (found.left, found.right) == (whole.left, whole.right)
    assert found.likeness == pytest.approx(whole.likeness, abs=1e-6)


def test_a_channel_with_hardly_any_speech_is_empty() -> None:
    quiet = np.zeros(3 * RATE, np.float32)
    quiet[:4000] = 0.2
    found = channel_speech(stereo(noise(3, 1), quiet), HalfVad())
    assert (len(found.left), found.right) == (1, [])


# --- which mode


def test_sides_are_named_and_say_their_channel() -> None:
    found = find_turns(call(-20), HalfVad(), options=DiarizationOptions(left_name="agent"))
    assert found.mode == "channel"
    assert found.speakers == ["agent", "system"]
    assert found.channels == {"agent": 0, "system": 1}
    wanted = [Turn(1, 4, "agent"), Turn(5, 8, "system"), Turn(9, 12, "agent"), Turn(10, 11, "system")]
    assert error_rate(wanted, found.turns, 13.0, collar=0.1) < 0.05


def room() -> StereoArray:
    """Both voices in both channels, a little to one side."""
    left, right = (load_audio(call(None).side(channel)) for channel in (0, 1))
    return stereo(left + 0.7 * right, 0.7 * left + right)


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (noise(4, 1), "one channel"),
        (stereo(noise(4, 1), noise(4, 1)), "the same sound in both"),
        (stereo(noise(4, 1), np.zeros(4 * RATE)), "speech in one of them only"),
        (room(), "everybody in both"),
    ],
)
def test_auto_goes_by_voice_where_channels_are_no_sides(sound: Any, reason: str) -> None:
    assert find_turns(sound, HalfVad(), LevelEncoder()).mode == "cluster"
    if reason in ("one channel", "the same sound in both"):
        with pytest.raises(AudioError, match=f"channel expects two channels.*found {reason}"):
            find_turns(sound, HalfVad(), options=DiarizationOptions(speaker_mode="channel"))
    else:
        asked = DiarizationOptions(speaker_mode="channel")
        assert find_turns(sound, HalfVad(), options=asked).mode == "channel"


def test_cluster_mode_mixes_the_channels() -> None:
    left, right = np.zeros(12 * RATE, np.float32), np.zeros(12 * RATE, np.float32)
    left[RATE : 5 * RATE], right[6 * RATE : 11 * RATE] = 2 * level(0), 2 * level(1)
    options = DiarizationOptions(speaker_mode="cluster")
    found = find_turns(stereo(left, right), LevelVad(), LevelEncoder(), options)
    assert found.turns == (Turn(1, 5, "speaker_0"), Turn(6, 11, "speaker_1"))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, ["mic", "system", "system"]),
        ({"right_num_speakers": 2}, ["mic", "system-spk1", "system-spk2"]),
        ({"right_speaker_names": ("Ann", "Bob")}, ["mic", "system-Ann", "system-Bob"]),
        ({"right_num_speakers": 2, "right_speaker_names": ("Ann",)}, ["mic", "system-Ann", "system-spk2"]),
    ],
)
def test_the_right_side_may_have_several_voices(options: dict[str, Any], wanted: list[str]) -> None:
    left, right = np.zeros(16 * RATE, np.float32), np.zeros(16 * RATE, np.float32)
    left[: 4 * RATE] = level(5)
    right[5 * RATE : 9 * RATE], right[11 * RATE : 15 * RATE] = level(0), level(1)
    found = find_turns(stereo(left, right), LevelVad(), LevelEncoder(), DiarizationOptions(**options))
    assert [turn.speaker for turn in found.turns] == wanted
    assert found.channels == {name: int(name != "mic") for name in wanted}


def test_voices_of_the_right_side_need_an_encoder() -> None:
    with pytest.raises(OptionError, match="needs a speaker encoder"):
        find_turns(call(None), HalfVad(), options=DiarizationOptions(right_num_speakers=2))


@pytest.mark.parametrize("wrong", [{"echo": 2}, {"echo_ms": 300}, {"duplicate": -1}, {"echo_db": "6"}])
def test_channel_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(wrong))}: expected"):
        ChannelOptions(**wrong)


# --- files


def test_a_file_gives_its_channels_apart_at_16_khz(tmp_path: Path) -> None:
    samples = np.stack([noise(3, 1), noise(3, 2)], axis=1)[: 2 * 8000]
    soundfile.write(tmp_path / "call.wav", samples, 8000, subtype="FLOAT")
    source = open_audio(tmp_path / "call.wav")
    assert isinstance(source, FileSource)
    assert source.is_stereo
    assert not source.side(1).is_stereo
    pairs = list(source.pairs(0.7))
    for channel in (0, 1):
        apart = np.concatenate([pair[channel] for pair in pairs])
        assert np.array_equal(apart, load_audio(source.side(channel)))
    assert [len(left) for left, _ in pairs] == [11200, 11200, 9600]
    soundfile.write(tmp_path / "mono.wav", samples[:, 0], 8000)
    with pytest.raises(AudioError, match="expected at least two channels, found one"):
        next(FileSource(tmp_path / "mono.wav", "mono.wav").pairs(1.0))


def test_a_stereo_array_has_two_columns() -> None:
    with pytest.raises(AudioError, match=r"shape \[n, 2\]"):
        StereoArray(np.zeros((2, 100), np.float32))


LEFT, RIGHT = (86_048, 122_848), (130_592, 169_952)  # samples of jfk.flac without a pause inside


@pytest.mark.parametrize("leak_db", [None, -20])
def test_a_spoken_call_is_told_apart(leak_db: float | None) -> None:
    """Sentences of one speech on two channels, one after the other and then both at once."""
    pytest.importorskip("webrtcvad")
    speech = load_audio(DATA / "jfk.flac")
    sides = [np.zeros(14 * RATE, np.float32) for _ in range(2)]
    wanted = list[Turn]()
    for side, at, (start, end) in ((0, 1, LEFT), (1, 6, RIGHT), (0, 9, LEFT), (1, 10, RIGHT)):
        sides[side][at * RATE : at * RATE + end - start] = speech[start:end]
        wanted.append(Turn(at, at + (end - start) / RATE, ("mic", "system")[side]))
    left, right = sides
    if leak_db is not None:
        gain = 10 ** (leak_db / 20)
        left, right = left + gain * delayed(right, 160), right + gain * delayed(left, 160)
    found = find_turns(stereo(left, right), WebRtcVad())
    assert error_rate(wanted, found.turns, 14.0) < 0.03


CALLS = ("en_call_lj_jfk_stereo", "en_call_lj_jfk_stereo_8k_alaw", "ru_call_nsh_ivr_stereo",
         "ru_call_nsh_ivr_stereo_8k_alaw")  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_told_apart(name: str) -> None:
    pytest.importorskip("webrtcvad")
    recording = SHARED / "calls" / f"{name}.flac"
    if not recording.exists():
        pytest.skip(f"no {recording}")
    rttm = SHARED / "calls" / f"{name.removesuffix('_8k_alaw')}.rttm"
    (reference,) = read_rttm(rttm.read_text()).values()
    found = find_turns(recording, WebRtcVad())
    assert found.mode == "channel"
    source = open_audio(recording)
    assert source.duration is not None
    assert error_rate(reference, found.turns, source.duration) < 0.03
