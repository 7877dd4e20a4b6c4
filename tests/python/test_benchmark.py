"""The benchmark: its statistics, its reports, and a run that measures a real model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from rustasr import benchmark
from rustasr.audio import load_audio
from rustasr.errors import AudioError, ModelError
from rustasr.scoring import SpeakerErrors
from rustasr.types import Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def measurement(model: str = "a", seconds: tuple[float, ...] = (2.0, 1.0, 4.0)) -> benchmark.Measurement:
    return benchmark.Measurement(model, "cpu", 0.2, None, 10.0, seconds, 200 << 20, "0" * 64)


def test_the_median_round_is_reported_with_its_range() -> None:
    made = measurement()
    assert made.rtf == pytest.approx(0.2) and made.rtf_range == pytest.approx((0.1, 0.4))
    report = made.to_dict()
    assert report["rtf_min"] == pytest.approx(0.1) and json.dumps(report)


def test_the_plot_is_well_formed_and_has_a_bar_for_each_model() -> None:
    root = ET.fromstring(benchmark.to_svg([measurement("a<b&c"), measurement("fast", (0.5, 0.5))]))
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 2 and float(bars[1].attrib["width"]) > float(bars[0].attrib["width"])


def test_the_plot_shows_the_error_rates_that_are_known() -> None:
    made = replace(measurement("known"), wer=0.05, speakers=SpeakerErrors(10.0, 1.0, 0.5, 0.5, 2, 2))
    other = replace(measurement("other"), wer=0.0)
    root = ET.fromstring(benchmark.to_svg([made, other]))
    tag = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in root.findall(f"{tag}text")]
    titles = [text for text in texts if "," in text]
    assert [title.split(",")[0] for title in titles] == ["Speed", "Word error rate", "Diarization error rate"]
    widths = [float(bar.attrib["width"]) for bar in root.findall(f"{tag}rect")]
    assert widths == pytest.approx([240, 240, 480, 0, 480]), "speed of two, WER of two, DER of one"
    assert texts[texts.index(titles[2]) + 1 :] == ["known", "20.0"]
    lowest = max(float(text.attrib["y"]) for text in root.findall(f"{tag}text"))
    assert lowest < float(root.attrib["height"])


@pytest.mark.weights
def test_a_run_measures_a_model_and_reports_one_that_fails(
    tiny_en_gguf: Callable[[str], Path], jfk_path: Path, tmp_path: Path
) -> None:
    model = str(tiny_en_gguf("q8_0"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    broken, missing = str(tmp_path / "broken.gguf"), str(tmp_path / "missing.gguf")
    seen: list[tuple[int, int, str]] = []
    text = "And so, my fellow Americans: ask not what your country can do for you, "
    text += "ask what you can do for your country."
    job = benchmark.Job((str(jfk_path),), (text,), "cpu", 2, 2, {"beam_size": 1, "temperature": (0.0, 0.4)})
    results = benchmark.run([model, broken, missing], job, lambda *step: seen.append(step))
    made = results[model]
    assert isinstance(made, benchmark.Measurement)
    assert made.audio_seconds == pytest.approx(11.0, abs=0.1) and len(made.seconds) == 2
    assert 0 < made.rtf < 20 and made.peak_rss_bytes is not None and made.peak_rss_bytes > 40 << 20
    assert made.wer is None or made.wer < 0.2
    assert made.first_text_seconds is None or made.first_text_seconds <= max(made.seconds)
    assert isinstance(results[broken], ModelError) and "broken.gguf" in str(results[broken])
    assert isinstance(results[missing], ModelError) and "missing.gguf" in str(results[missing])
    assert seen[-1][:2] == (6, 6)
    document = json.loads(benchmark.to_json(results, job))
    assert document["schema"] == "rustasr.benchmark" and len(document["results"]) == 3
    assert "error" in document["results"][2] and document["machine"]["core"]["ggml"]


@pytest.mark.weights
def test_a_recording_that_cannot_be_read_is_an_audio_error(
    tiny_en_gguf: Callable[[str], Path], tmp_path: Path
) -> None:
    job = benchmark.Job((str(tmp_path / "missing.wav"),), repeat=1)
    model = str(tiny_en_gguf("q8_0"))
    assert isinstance(benchmark.run([model], job)[model], AudioError)


@pytest.mark.weights
def test_speakers_are_scored_where_their_turns_are_known(
    tiny_en_gguf: Callable[[str], Path], jfk_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyannote.metrics", reason="the bench extra is not installed")
    pytest.importorskip("webrtcvad", reason="the vad extra is not installed")
    speech = load_audio(jfk_path)
    silence = np.zeros_like(speech)
    sides = [np.concatenate([speech, silence]), np.concatenate([silence, speech])]
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack(sides, axis=1), 16000)
    model = str(tiny_en_gguf("q8_0"))
    for names, wrong in ((("mic", "system"), False), (("mic", "mic"), True)):
        turns = (Turn(0.3, 10.6, names[0]), Turn(11.3, 21.6, names[1]))
        job = benchmark.Job((str(path),), (), "cpu", 2, 1, {}, (turns,), "webrtc")
        made = benchmark.run([model], job)[model]
        assert isinstance(made, benchmark.Measurement) and made.der is not None and made.speakers is not None
        assert (made.der > 0.4) == wrong and made.speakers.found == 2
        assert made.to_dict()["der"] == made.der and json.dumps(made.to_dict())
