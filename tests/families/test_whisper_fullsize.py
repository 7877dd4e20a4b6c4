"""Large-v3-turbo at its full published size, random weights, against transformers in float32 (--run-slow).

The checkpoint is made here (benchmarks/turbo_checkpoint.py: 809 million parameters, 1.6 GB as F16, 3.2 GB as
the F32 model that is compared) in a temporary folder, or in the one that RUSTASR_TEST_TURBO names, where it
is kept. Needs torch and transformers, 8 GB of memory and some minutes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import turbo_checkpoint as turbo
import whisper_goldens as goldens

pytestmark = [pytest.mark.slow, pytest.mark.weights]
BLOCKS = {"encoder": (0, 16, 31), "decoder": (0, 2, 3)}
CROSS_HEADS = (0, 7, 19)
N_SAID = 8  # planted words that are given after the prompt
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def audio(jfk_path: Path) -> np.ndarray:
    """30 s of speech without a pause: jfk.flac again and again."""
    return np.ascontiguousarray(np.resize(goldens.samples(jfk_path), 480000))


@pytest.fixture(scope="module")
def checkpoint(base_ct2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Hugging Face folder."""
    kept = os.environ.get("RUSTASR_TEST_TURBO")
    folder = Path(kept) / "hf" if kept else tmp_path_factory.mktemp("turbo") / "hf"
    if not (folder / "model.safetensors").exists():
        turbo.make_checkpoint(folder, base_ct2 / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def tokens(checkpoint: Path) -> list[int]:
    words = json.loads((checkpoint / "words.json").read_text(encoding="utf-8"))
    return [*turbo.PROMPT, *words[:N_SAID]]


@pytest.fixture(scope="module")
def reference(checkpoint: Path, audio: np.ndarray, tokens: list[int]) -> Arrays:
    """What transformers computes in float32: mel, stages of the encoder and the decoder, logits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    mel = extractor(audio, sampling_rate=16000, return_tensors="pt").input_features
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    encoder, decoder = model.model.encoder, model.model.decoder
    kept: Arrays = {"mel": mel[0].numpy().T.copy(), "filters": np.asarray(extractor.mel_filters)}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            kept[name] = value.detach().numpy().reshape(-1, value.shape[-1]).copy()

        return hook

    def keep_input(_module: Any, inputs: Any) -> None:
        kept["conv"] = inputs[0][0].numpy().copy()

    encoder.layers[0].register_forward_pre_hook(keep_input)
    encoder.layer_norm.register_forward_hook(keep("output"))
    for side, stack in (("encoder", encoder), ("decoder", decoder)):
        for i in BLOCKS[side]:
            stack.layers[i].register_forward_hook(keep(f"{side}.{i}"))
    for i in BLOCKS["decoder"]:
        for part in ("q", "k"):
            projection = getattr(decoder.layers[i].encoder_attn, f"{part}_proj")
            projection.register_forward_hook(keep(f"cross.{i}.{part}"))
    with torch.inference_mode():
        result = model(input_features=mel, decoder_input_ids=torch.tensor([tokens]))
    kept["logits"] = result.logits[0].numpy().copy()
    kept["parameters"] = np.array(sum(p.numel() for p in model.parameters()))
    return kept


@pytest.fixture(scope="module")
def session(reference: Arrays, checkpoint: Path) -> Iterator[Any]:
    """Ours, converted to F32 (after the reference, so that the two are not in memory together)."""
    import rustasr
    from rustasr.convert import convert

    path = checkpoint.parent / "turbo-f32.gguf"
    if not path.exists():
        convert(checkpoint, path, qtype="f32")
    yield rustasr._core.Model(str(path), "cpu", 2).session()
    if "RUSTASR_TEST_TURBO" not in os.environ:
        path.unlink()


@pytest.fixture(scope="module")
def window(session: Any, audio: np.ndarray) -> np.ndarray:
    """Our normalised log mel: [3000, 128]."""
    import rustasr

    raw = session.features(audio)
    return np.asarray(rustasr._core.normalize_log_mel(raw, float(raw.max())))


def compare(name: str, found: np.ndarray, wanted: np.ndarray, absolute: float) -> None:
    """States both figures (pytest -s), then holds the absolute one."""
    assert found.shape == wanted.shape, name
    error = np.abs(found.astype(np.float64) - wanted)
    spread = wanted.std(dtype=np.float64)
    print(
        f"\n{name}: largest error {error.max():.2e}, mean {error.mean():.2e}, "
        f"values spread {spread:.3g} (largest {np.abs(wanted).max():.3g}), "
        f"largest error / spread {error.max() / spread:.1e}"
    )
    assert error.max() <= absolute, name


def test_the_size_is_the_published_one(reference: Arrays, session: Any) -> None:
    assert int(reference["parameters"]) == turbo.N_PARAMETERS == 808_878_080
    assert sum(math.prod(shape) for shape in turbo.shapes().values()) == turbo.N_PARAMETERS


def exact_mel(audio: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """The normalised log mel in float64: [3000, 128]."""
    padded = np.pad(audio.astype(np.float64), 200, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:3000]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    log = np.log10(np.maximum(power @ filters.astype(np.float64), 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def test_mel(reference: Arrays, audio: np.ndarray, window: np.ndarray) -> None:
    """transformers' float32 Fourier transform is itself 1.6e-5 off here, where quiet bins meet loud ones."""
    compare("mel", window, exact_mel(audio, reference["filters"]), 1e-5)
    compare("mel of transformers", window, reference["mel"], 4e-5)


def test_encoder(reference: Arrays, session: Any, window: np.ndarray) -> None:
    names = {"conv": "conv", "output": "output"}
    names.update({f"blocks.{i}": f"encoder.{i}" for i in BLOCKS["encoder"]})
    found = session.encode_taps([window], list(names))
    for ours, theirs in names.items():
        compare(theirs, np.asarray(found[ours]).reshape(1500, -1), reference[theirs], 2e-3)


def test_decoder(reference: Arrays, session: Any, window: np.ndarray, tokens: list[int]) -> None:
    """Blocks, cross-attention scores before the softmax, and logits of given tokens."""
    size = turbo.STATE // turbo.HEADS
    scores = {f"cross_qk.{i}.{head}": (i, head) for i in BLOCKS["decoder"] for head in CROSS_HEADS}
    blocks = {f"blocks.{i}": f"decoder.{i}" for i in BLOCKS["decoder"]}
    found = session.decode_taps(session.encode([window]), 0, tokens, ["logits", *blocks, *scores])
    for ours, theirs in blocks.items():
        compare(theirs, found[ours], reference[theirs], 2e-3)
    for name, (i, head) in scores.items():
        query, key = (reference[f"cross.{i}.{part}"][:, head * size : (head + 1) * size] for part in "qk")
        compare(name, found[name], query.astype(np.float64) @ key.T / math.sqrt(size), 2e-3)
    compare("logits", found["logits"], reference["logits"], 2e-3)
    np.testing.assert_array_equal(found["logits"].argmax(axis=1), reference["logits"].argmax(axis=1))


def test_greedy_decoding_says_the_planted_words(session: Any, window: np.ndarray, checkpoint: Path) -> None:
    import rustasr

    words = json.loads((checkpoint / "words.json").read_text(encoding="utf-8"))
    options = rustasr._core.DecodeOptions(timestamps=False)
    (result,) = session.decode(session.encode([window]), [0], [turbo.PROMPT], options)
    assert list(result.tokens) == words
