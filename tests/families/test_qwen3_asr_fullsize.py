"""The published sizes with random weights, against transformers' own classes in float32 (--run-slow).

A checkpoint is made here in the `-hf` layout (BF16: 1.6, 1.8 and 4.1 GB), in a temporary folder or in the
one that RUSTASR_TEST_QWEN names, where it is kept. Needs torch and transformers 5.23, and memory for the
weights in float32 (3.1, 3.7 and 8.2 GB).

Measured, largest error against the spread of the values: encoder 3e-6, decoder blocks and logits 6e-6.
"""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3_goldens as q

import tiny_qwen3 as tiny
from rustasr.convert.qwen3_tokenizer import RELEASED_ADDED

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3  # of the values' spread
AUDIO = {"n_window": 50, "n_window_infer": 800, "downsample_hidden_size": 480, "max_position_embeddings": 13}
TEXT = {
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 65536,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}  # fmt: skip
# encoder layers, width, heads, feed-forward; decoder width, feed-forward, rows; classes; unique parameters
# (Qwen3-ASR's model cards and config.json).
SIZES = {
    "asr-0.6b": (18, 896, 14, 3584, 1024, 3072, 151936, 0, 782_426_112),
    "aligner-0.6b": (24, 1024, 16, 4096, 1024, 3072, 152064, 5000, 917_728_896),
    "asr-1.7b": (24, 1024, 16, 4096, 2048, 6144, 151936, 0, 2_038_052_480),
}
SECONDS = (5, 20)
PAD, TIMESTAMP = RELEASED_ADDED["<|audio_pad|>"], RELEASED_ADDED["<timestamp>"]
BEFORE = [151644, 8948, 198, 151645, 198, 151644, 872, 198, 151669]
AFTER = [151670, 151645, 198, 151644, 77091, 198]
SLOTS = [9707, TIMESTAMP, TIMESTAMP, 14615, TIMESTAMP, TIMESTAMP]
Arrays = dict[str, np.ndarray]


def make_checkpoint(folder: Path, size: str) -> int:
    """Random weights that keep signals of size one; returns the number of parameters."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    n_layer, d, n_head, d_ff, d_text, d_text_ff, n_vocab, n_classes, _ = SIZES[size]
    config = transformers.Qwen3ASRConfig(
        audio_config={
            "model_type": "qwen3_asr_encoder", **AUDIO, "encoder_layers": n_layer, "d_model": d,
            "encoder_attention_heads": n_head, "encoder_ffn_dim": d_ff, "output_dim": d_text,
        },
        text_config={
            "model_type": "qwen3", **TEXT, "vocab_size": n_vocab, "hidden_size": d_text,
            "intermediate_size": d_text_ff, "tie_word_embeddings": not n_classes,
        },
        audio_token_id=PAD, timestamp_token_id=TIMESTAMP, tie_word_embeddings=not n_classes,
        **({"num_labels": n_classes} if n_classes else {}),
    )  # fmt: skip
    kind = "TokenClassification" if n_classes else "ConditionalGeneration"
    torch.manual_seed(0)
    model = getattr(transformers, f"Qwen3ASRFor{kind}")(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                is_norm = name.endswith("norm.weight") or "ln_post.weight" in name
                weight.normal_(1.0 if is_norm else 0.0, 0.1)
            else:
                weight.normal_(0.0, 1.0 if "embed_tokens" in name else math.prod(weight.shape[1:]) ** -0.5)
    n_parameters = sum(weight.numel() for weight in model.parameters())
    model.save_pretrained(folder)
    extractor = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000, "min_length": 8000, "dither": 0.0}
    processor = {"feature_extractor": extractor, "timestamp_segment_time": 80}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    # Of the vocabulary only the added tokens matter here.
    small = tiny.write_hf(folder / "tiny", tiny.make())
    tokenizer = json.loads((small / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in tokenizer["added_tokens"]:
        entry["id"] = RELEASED_ADDED[entry["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return n_parameters


@pytest.fixture(scope="module", params=SIZES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kept = os.environ.get("RUSTASR_TEST_QWEN")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("qwen")
    source = folder / request.param
    if not (source / "tokenizer.json").exists():
        n_parameters = make_checkpoint(source, request.param)
        (source / "parameters").write_text(str(n_parameters), encoding="utf-8")
    yield source
    if not kept:
        for path in (*source.glob("*.safetensors"), source.with_name(f"{source.name}.gguf")):
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def audio(jfk_path: Path) -> dict[int, np.ndarray]:
    import soundfile

    pcm = soundfile.read(jfk_path, dtype="float32")[0]
    return {n: np.ascontiguousarray(np.resize(pcm, n * 16000)) for n in SECONDS}


def prompt_of(size: str, n_audio: int) -> list[int]:
    if SIZES[size][7]:
        return [151669, *[PAD] * n_audio, 151670, *SLOTS]
    return [*BEFORE, *[PAD] * n_audio, *AFTER]


@pytest.fixture(scope="module")
def reference(checkpoint: Path, audio: dict[int, np.ndarray]) -> dict[int, Arrays]:
    """What transformers computes in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind = "TokenClassification" if SIZES[checkpoint.name][7] else "ConditionalGeneration"
    model = getattr(transformers, f"Qwen3ASRFor{kind}").from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    kept: Arrays = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            kept[name] = value.detach().numpy().reshape(-1, value.shape[-1]).copy()

        return hook

    tower, decoder = model.model.audio_tower, model.model.language_model
    last = {"encoder": len(tower.layers) - 1, "decoder": len(decoder.layers) - 1}
    for side, stack in (("encoder", tower.layers), ("decoder", decoder.layers)):
        for i in (0, last[side]):
            stack[i].register_forward_hook(keep(f"{side}.{i}"))
    model.model.multi_modal_projector.register_forward_hook(keep("output"))
    extractor = transformers.Qwen3ASRFeatureExtractor()
    results = {}
    for seconds, pcm in audio.items():
        found = extractor(
            pcm, sampling_rate=16000, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        ids = torch.tensor([prompt_of(checkpoint.name, 13 * seconds)])
        with torch.inference_mode():
            result = model(
                input_ids=ids,
                input_features=found["input_features"].float(),
                input_features_mask=found["attention_mask"],
                attention_mask=torch.ones_like(ids),
            )
        mel = found["input_features"][0].numpy().T[: 100 * seconds].copy()
        logits = result.logits[0].numpy()
        results[seconds] = {**kept, "mel": mel, "logits": logits[-len(SLOTS) :].copy()}
    del model, tower, decoder
    gc.collect()
    return results


@pytest.fixture(scope="module")
def session(reference: Any, checkpoint: Path) -> Any:
    """Ours, converted to F32 (after the reference, so that the two are not in memory together)."""
    import rustasr
    from rustasr.convert import convert

    path = checkpoint.with_name(f"{checkpoint.name}.gguf")
    if not path.exists():
        convert(checkpoint, path, qtype="f32")
    return rustasr._core.Model(str(path), "cpu", 2).session()


def compare(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """States the figures (pytest -s), then holds the relative one."""
    assert found.shape == wanted.shape, name
    error, spread = np.abs(found.astype(np.float64) - wanted).max(), wanted.std(dtype=np.float64)
    print(f"\n{name}: largest error {error:.2e}, spread {spread:.3g}, relative {error / spread:.1e}")
    assert error <= TOLERANCE * spread, name


def test_the_size_is_the_published_one(checkpoint: Path) -> None:
    from rustasr.convert.qwen3_asr import expected_tensors, read_source
    from rustasr.convert.sources import detect, open_source

    published = SIZES[checkpoint.name][-1]
    assert int((checkpoint / "parameters").read_text(encoding="utf-8")) == published
    source = read_source(open_source(detect(checkpoint)))
    assert sum(math.prod(shape) for shape in expected_tensors(source).values()) == published


@pytest.mark.parametrize("seconds", SECONDS)
def test_encoder_and_logits(
    seconds: int, checkpoint: Path, reference: dict[int, Arrays], session: Any, audio: dict[int, np.ndarray]
) -> None:
    wanted = reference[seconds]
    mel = q.features(session, audio[seconds])
    np.testing.assert_allclose(mel, wanted["mel"], rtol=0, atol=1e-4)
    n_layer = SIZES[checkpoint.name][0]
    names = {"blocks.0": "encoder.0", f"blocks.{n_layer - 1}": f"encoder.{n_layer - 1}", "output": "output"}
    found = session.encode_taps([mel], list(names))
    for ours, theirs in names.items():
        compare(f"{checkpoint.name} {seconds} s {theirs}", found[ours], wanted[theirs])
    encoded, prompt = session.encode([mel]), prompt_of(checkpoint.name, 13 * seconds)
    assert encoded.lengths == [13 * seconds]
    decoded = session.decode_taps(encoded, 0, prompt, ["blocks.0", "blocks.27", "logits"])
    for ours, theirs in (("blocks.0", "decoder.0"), ("blocks.27", "decoder.27")):
        compare(f"{checkpoint.name} {seconds} s {theirs}", decoded[ours], wanted[theirs])
    compare(f"{checkpoint.name} {seconds} s logits", decoded["logits"][-len(SLOTS) :], wanted["logits"])
    assert decoded["logits"][-1].argmax() == wanted["logits"][-1].argmax()
