"""Threads: several sessions of one model at once, any number of worker threads, and stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import whisper_goldens as goldens

pytestmark = pytest.mark.weights
Asr = Callable[[str, str], Any]


def test_two_threads_with_two_sessions_equal_one(asr: Asr, jfk_path: Path) -> None:
    model = asr("tiny.en", "q8_0")
    pcm = goldens.samples(jfk_path)
    clips = [pcm, pcm[32000:], pcm[:96000], np.tile(pcm, 3)] * 2
    alone = [model.transcribe(np.ascontiguousarray(clip)) for clip in clips]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda clip: model.transcribe(np.ascontiguousarray(clip)), clips))
    assert [r.segments for r in together] == [r.segments for r in alone]


def test_the_number_of_threads_does_not_change_the_text(
    gguf: Callable[[str, str], Path], jfk_path: Path
) -> None:
    import rustasr

    path = str(gguf("tiny.en", "f32"))
    results = [rustasr.load_model(path, device="cpu", threads=n).transcribe(jfk_path) for n in (1, 2, 4)]
    for other in results[1:]:
        assert [(s.start, s.end, s.text) for s in other.segments] == [
            (s.start, s.end, s.text) for s in results[0].segments
        ]


def test_runs_repeat_exactly(asr: Asr, jfk_path: Path) -> None:
    model = asr("tiny.en", "q8_0")
    first, second = (model.transcribe(jfk_path, timestamps="word") for _ in range(2))
    assert first.segments == second.segments


def test_sampling_repeats_with_the_same_seed(asr: Asr, jfk_path: Path) -> None:
    model = asr("tiny.en", "q8_0")
    texts = [model.transcribe(jfk_path, temperature=0.8, seed=seed).text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_cancel_from_another_thread_stops_the_call(core_model: Asr) -> None:
    """A long call ends soon after `cancel`, raises Cancelled, and the session works on."""
    from rustasr.errors import Cancelled

    session = core_model("base", "f32").session()
    windows = [np.zeros((3000, 80), np.float32)] * 8
    timer = threading.Timer(0.3, session.cancel)
    timer.start()
    began = time.perf_counter()
    with pytest.raises(Cancelled):
        while time.perf_counter() - began < 60:
            session.encode(windows)
    assert time.perf_counter() - began < 30
    timer.join()
    assert session.encode(windows[:1]).batch == 1


def test_other_python_threads_run_during_a_call(core_model: Asr) -> None:
    """Heavy calls release the interpreter lock."""
    session, ticks, done = core_model("base", "f32").session(), [], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.005)

    watcher = threading.Thread(target=tick)
    watcher.start()
    began = time.perf_counter()
    session.encode([np.zeros((3000, 80), np.float32)] * 4)
    ended = time.perf_counter()
    done.set()
    watcher.join()
    during = [t for t in ticks if began < t < ended]
    assert len(during) >= (ended - began) / 0.25
