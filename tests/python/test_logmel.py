"""The spectrogram of a stream: it must not show where the blocks ended, nor where it is kept."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rustasr.errors import ModelFileError
from rustasr.families.whisper_features import LogMel, read_log_mel

Floats = NDArray[np.float32]
N_FFT, HOP, N_MELS = 400, 160, 8
METADATA = {
    "frontend.n_fft": N_FFT,
    "frontend.hop_length": HOP,
    "frontend.n_mels": N_MELS,
    "frontend.floor": 1e-10,
}
FILTERS = np.abs(np.random.default_rng(7).normal(size=(N_MELS, N_FFT // 2 + 1)))


def log_mel(pcm: NDArray[np.floating[Any]]) -> Floats:
    """Frames of `pcm` [n] that lie inside it whole, by NumPy: Hann, power, filters, log10."""
    n_frames = (len(pcm) - N_FFT) // HOP + 1
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = np.stack([pcm[t * HOP : t * HOP + N_FFT] * window for t in range(n_frames)])
    power = np.abs(np.fft.rfft(frames.astype(np.float64))) ** 2
    return np.log10(np.maximum(power @ FILTERS.T, 1e-10)).astype(np.float32)


class NumpySession:
    """`Session.features` with its contract: frame t is centred on sample t * hop where it is padded."""

    def features(self, pcm: Floats, pad_left: bool = True, pad_right: bool = True) -> Floats:
        assert pcm.dtype == np.float32
        assert pcm.flags.c_contiguous
        return log_mel(np.pad(pcm, (N_FFT // 2 * pad_left, N_FFT // 2 * pad_right), mode="reflect"))


def normalize(frames: Floats, peak: float) -> Floats:
    return (np.maximum(frames, np.float32(peak - 8)) + 4) / 4


def whole(pcm: Floats) -> Floats:
    """As openai-whisper computes it: zeros appended, reflected at the start, all at once."""
    padded = np.concatenate([pcm, np.zeros(4000, np.float32)])
    return log_mel(np.pad(padded, (N_FFT // 2, 0), mode="reflect"))


def speech(n_samples: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(scale=0.1, size=n_samples).astype(np.float32)


def read(blocks: list[Floats], **options: Any) -> LogMel:
    mel, n_samples = read_log_mel(blocks, NumpySession(), METADATA, normalize, **options)
    assert n_samples == sum(map(len, blocks))
    return mel


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.booleans())
def test_frames_do_not_depend_on_the_blocks(sizes: list[int], spooled: bool) -> None:
    pcm = speech(sum(sizes))
    blocks = np.split(pcm, np.cumsum(sizes)[:-1])
    with read(blocks, memory_frames=5 if spooled else 10**6) as mel:
        wanted = whole(pcm)
        assert mel.n_frames == len(pcm) // HOP
        np.testing.assert_array_equal(mel.raw(0, mel.n_frames), wanted[: mel.n_frames])
        assert mel.peak == wanted.max()


def test_the_last_samples_count_for_the_peak_beyond_the_content() -> None:
    pcm = np.zeros(1600 + 159, np.float32)  # ten frames of content, and almost an eleventh
    pcm[-5:] = 1.0
    with read([pcm]) as mel:
        assert mel.n_frames == 10
        assert mel.raw(0, 10).max() < mel.peak == whole(pcm).max()


def test_a_window_is_normalised_by_the_whole_recording() -> None:
    pcm = np.concatenate([speech(16000) * 1e-3, speech(16000, 1)])
    with read([pcm]) as mel:
        wanted = normalize(whole(pcm), float(whole(pcm).max()))
        np.testing.assert_array_equal(mel.window(20, 50), wanted[20:70])
        assert mel.window(20, 50).flags.c_contiguous


def test_a_window_ends_where_the_content_ends() -> None:
    with read([speech(16000)]) as mel:
        assert mel.window(90, 3000).shape == (10, N_MELS)
        assert mel.window(100, 3000).shape == (0, N_MELS)
        assert mel.window(5000, 3000).shape == (0, N_MELS)


def test_silence_follows_for_language_detection() -> None:
    pcm = speech(16000)
    with read([pcm]) as mel:
        frames = mel.window_with_silence(0, 3000)
        assert frames.shape == (3000, N_MELS)
        peak = float(whole(pcm).max())
        np.testing.assert_array_equal(frames[:103], normalize(whole(pcm), peak)[:103])
        np.testing.assert_array_equal(frames[103:], normalize(np.full((2897, N_MELS), -10, np.float32), peak))


@pytest.mark.parametrize("n_samples", [1, 5, 159, 160, 399, 400, 401])
def test_the_shortest_recordings(n_samples: int) -> None:
    pcm = speech(n_samples)
    with read([pcm]) as mel:
        assert mel.n_frames == n_samples // HOP
        np.testing.assert_array_equal(mel.raw(0, mel.n_frames), whole(pcm)[: mel.n_frames])
        assert mel.peak == whole(pcm).max()


def test_digital_silence_has_a_peak_too() -> None:
    with read([np.zeros(16000, np.float32)]) as mel:
        assert mel.peak == -10.0
        np.testing.assert_array_equal(mel.window(0, 100), np.full((100, N_MELS), -1.5, np.float32))


@given(st.integers(0, 320), st.integers(0, 320))
def test_the_file_gives_what_the_memory_gives(start: int, size: int) -> None:
    blocks = [speech(700, seed) for seed in range(70)]
    with read(blocks) as kept, read(blocks, memory_frames=100) as spooled:
        np.testing.assert_array_equal(kept.window(start, size), spooled.window(start, size))
        np.testing.assert_array_equal(kept.loudness(start, size), spooled.loudness(start, size))


def test_long_recordings_go_to_a_file_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with read([speech(32000)], memory_frames=50) as mel:
        assert mel._blocks == []
        assert mel.window(100, 50).shape == (50, N_MELS)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_stream_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def blocks() -> Any:
        yield speech(32000)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        read_log_mel(blocks(), NumpySession(), METADATA, normalize, memory_frames=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", sorted(METADATA))
@pytest.mark.parametrize("value", [None, "400", 0, -1])
def test_bad_metadata_is_named(key: str, value: Any) -> None:
    with pytest.raises(ModelFileError, match=re.escape(key)):
        read_log_mel([speech(100)], NumpySession(), {**METADATA, key: value}, normalize)


def test_frames_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n, 8\]"):
        LogMel(8, normalize).append(np.zeros((3, 7), np.float32))


# --- the core's own frames --------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_core_computes_the_same_frames_in_blocks(core_model: Callable[[str, str], Any]) -> None:
    import rustasr

    model = core_model("tiny.en", "f16")
    session = model.session()
    pcm = speech(16000 * 7 + 77)
    want = session.features(np.concatenate([pcm, np.zeros(480000, np.float32)]))
    cuts = [1000, 1300, 40000, 40001, 90000]
    mel, n_samples = read_log_mel(
        np.split(pcm, cuts), session, model.metadata, rustasr._core.normalize_log_mel
    )
    with mel:
        assert n_samples == len(pcm)
        np.testing.assert_allclose(mel.raw(0, mel.n_frames), want[: mel.n_frames], atol=1e-6)
        assert mel.peak == pytest.approx(float(want.max()), abs=1e-6)
        whole_file = rustasr._core.normalize_log_mel(want, float(want.max()))
        np.testing.assert_allclose(mel.window_with_silence(0, 3000), whole_file[:3000], atol=1e-6)
