"""Damaged Qwen3-ASR checkpoints and GGUFs: a typed error that names the place, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_edit import edited

import tiny_qwen3 as tiny
from rustasr.convert import convert
from rustasr.errors import ModelError, ModelFileError, UnsupportedModelError

Damage = Callable[[Path], Any]


def edit(name: str, *path: str, value: Any = ...) -> Damage:
    """Sets a value of a JSON file; `...` removes the key."""

    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        part = data
        for key in path[:-1]:
            part = part[key]
        if value is ...:
            del part[path[-1]]
        else:
            part[path[-1]] = value
        (folder / name).write_text(json.dumps(data), encoding="utf-8")

    return damage


def audio(key: str, value: Any = ...) -> Damage:
    return edit("config.json", "thinker_config", "audio_config", key, value=value)


def text(key: str, value: Any = ...) -> Damage:
    return edit("config.json", "thinker_config", "text_config", key, value=value)


def header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Changes the header of model.safetensors."""

    def damage(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        names = json.loads(raw[8 : 8 + length])
        change(names)
        out = json.dumps(names).encode()
        (folder / "model.safetensors").write_bytes(len(out).to_bytes(8, "little") + out + raw[8 + length :])

    return damage


def rename(old: str, new: str) -> Damage:
    return header(lambda names: names.__setitem__(new, names.pop(old)))


def other_head(folder: Path) -> None:
    """The stored output matrix differs from the embedding in its last bit."""
    raw = bytearray((folder / "model.safetensors").read_bytes())
    length = int.from_bytes(raw[:8], "little")
    begin, _ = json.loads(raw[8 : 8 + length])["thinker.lm_head.weight"]["data_offsets"]
    raw[8 + length + begin] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


def write(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def replace_text(name: str, old: str, new: str) -> Damage:
    return lambda folder: write(name, (folder / name).read_text(encoding="utf-8").replace(old, new, 1))(
        folder
    )


TOWER, MODEL = "thinker.audio_tower.", "thinker.model."
ADDED = str(tiny.N_BASE)
Damaged, Unsupported = ModelFileError, UnsupportedModelError
SOURCES: dict[str, tuple[Damage, type[ModelError], str]] = {
    "no thinker_config": (edit("config.json", "thinker_config"), Damaged, "text_config.*missing"),
    "no audio_config": (edit("config.json", "thinker_config", "audio_config"), Damaged, "audio_config"),
    "text_config a list": (edit("config.json", "thinker_config", "text_config", value=[]), Damaged, "text"),
    **{
        f"audio {key}={value}": (audio(key, value), Damaged, key)
        for key, value in (
            ("d_model", 33), ("d_model", 0), ("encoder_layers", 3.0), ("encoder_ffn_dim", -1),
            ("n_window", "8"), ("n_window_infer", 40), ("num_mel_bins", 1 << 40),
            ("downsample_hidden_size", None),
        )
    },
    **{
        f"text {key}={value}": (text(key, value), Damaged, key)
        for key, value in (
            ("num_key_value_heads", 0), ("head_dim", 12), ("head_dim", True), ("vocab_size", 1 << 30),
            ("rms_norm_eps", 0), ("rms_norm_eps", "small"), ("rope_theta", -1),
            ("max_position_embeddings", []),
        )
    },
    "no rope_theta": (text("rope_theta"), Damaged, "rope_parameters.*missing"),
    "relu": (audio("activation_function", "relu"), Unsupported, "activation_function"),
    "biases": (text("attention_bias", True), Unsupported, "attention_bias"),
    "sliding window": (text("use_sliding_window", True), Unsupported, "use_sliding_window"),
    "scaled rope": (text("rope_scaling", {"rope_type": "yarn"}), Unsupported, "rope_type"),
    "languages a number": (edit("config.json", "support_languages", value=3), Damaged, "support_lang"),
    "another audio token": (
        edit("config.json", "thinker_config", "audio_token_id", value=7), Damaged, "audio_token_id is 7"
    ),
    "more layers than tensors": (audio("encoder_layers", 3), Damaged, "missing.*blocks.2"),
    "fewer layers than tensors": (text("num_hidden_layers", 1), Damaged, "unexpected.*blocks.1"),
    "another width": (text("intermediate_size", 128), Damaged, r"gate.*\[96, 64\], expected \[128, 64\]"),
    "a tensor missing": (
        header(lambda names: names.pop("thinker.model.norm.weight")), Damaged, "byte|norm"
    ),
    "a tensor renamed": (rename(f"{MODEL}norm.weight", f"{MODEL}norm.gain"), Damaged, "norm"),
    "a stranger": (rename(f"{MODEL}norm.weight", "visual.norm.weight"), Damaged, "unexpected.*visual"),
    "both layouts": (
        rename(f"{TOWER}ln_post.bias", "model.audio_tower.ln_post.weight"), Damaged, "both layouts"
    ),
    "an untied head": (other_head, Unsupported, "lm_head"),
    "cut": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-100]
        ),
        Damaged, "safetensors",
    ),
    "no merges": (lambda folder: (folder / "merges.txt").unlink(), Damaged, "merges.txt is missing"),
    "merges cut": (write("merges.txt", "#version: 0.2\n"), Damaged, "0 merges cannot make"),
    "a merge of three": (replace_text("merges.txt", "\n", "\na b c\n"), Damaged, "not a pair"),
    "a merge of strangers": (replace_text("merges.txt", "\n", "\nQX ZJ\n"), Damaged, "not among the tokens"),
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), Damaged, "vocab.json"),
    "vocabulary a list": (write("vocab.json", "[]"), Damaged, "expected a JSON object"),
    "an id missing": (edit("vocab.json", "a"), Damaged, "ids|byte"),
    "an id as text": (edit("vocab.json", "a", value="3"), Damaged, "vocabulary"),
    "an id twice": (edit("vocab.json", "a", value=3), Damaged, "each once"),
    "no added tokens": (
        edit("tokenizer_config.json", "added_tokens_decoder"), Damaged, "no added_tokens_decoder"
    ),
    "an added token without text": (
        edit("tokenizer_config.json", "added_tokens_decoder", ADDED, "content"), Damaged, "added token"
    ),
    "an added id of a base token": (
        edit(
            "tokenizer_config.json", "added_tokens_decoder", "5", value={"content": "<|x|>", "special": True}
        ),
        Damaged, "added token id 5",
    ),
    "an added id beyond the embedding": (
        edit(
            "tokenizer_config.json", "added_tokens_decoder", "9999",
            value={"content": "<|x|>", "special": True},
        ),
        Damaged, "9999 is beyond",
    ),
    "no asr_text": (
        replace_text("tokenizer_config.json", "<asr_text>", "<other>"), Damaged, "<asr_text>"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> tiny.Checkpoint:
    return tiny.make()


@pytest.mark.parametrize("case", SOURCES)
def test_damaged_checkpoints_are_refused(case: str, tmp_path: Path, made: tiny.Checkpoint) -> None:
    damage, error, match = SOURCES[case]
    folder = tiny.write_original(tmp_path / "source", made)
    damage(folder)
    with pytest.raises(error, match=match):
        convert(folder, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (edit("config.json", "id2label"), "num_labels"),
        (edit("config.json", "id2label", value={}), "num_labels"),
        (edit("config.json", "num_labels", value=7), r"head.*\[50, 64\], expected \[7, 64\]"),
        (edit("config.json", "timestamp_token_id"), "timestamp_token_id"),
        (edit("config.json", "timestamp_token_id", value=3), "timestamp_token_id is 3"),
        (edit("processor_config.json", "timestamp_segment_time"), "timestamp_segment_time"),
        (edit("processor_config.json", "feature_extractor", "n_fft", value=512), "n_fft"),
        (rename("score.weight", "score.bias"), "head"),
        (edit("tokenizer.json", "model", "type", value="Unigram"), "BPE"),
        (edit("tokenizer.json", "model", "merges", value=5), "merges"),
        (edit("tokenizer.json", "added_tokens", value=[3]), "added token 3"),
    ],
)
def test_damaged_aligners_are_refused(damage: Damage, match: str, tmp_path: Path) -> None:
    folder = tiny.write_hf(tmp_path / "source", tiny.make(aligner=True))
    damage(folder)
    with pytest.raises(ModelError, match=match):
        convert(folder, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- the file itself ---


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, made: tiny.Checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return convert(tiny.write_hf(folder / "source", made), folder / "tiny.gguf", qtype="f32").output


def load(path: Path) -> Any:
    import rustasr

    return rustasr._core.Model(str(path), "cpu", 1)


def test_the_file_that_is_damaged_below_is_sound(gguf: Path, made: tiny.Checkpoint) -> None:
    """It runs, and its chunks of 16 frames and windows of two chunks are those of its metadata."""
    import rustasr

    model = load(gguf)
    session = model.session()
    random = np.random.default_rng(0)
    mels = [random.standard_normal((n, 16)).astype(np.float32) for n in (5, 16, 33, 70)]
    encoded = session.encode(mels)
    assert encoded.lengths == [1, 2, 5, 9]
    pad = model.metadata["qwen3_asr.token.audio_pad"]
    prompts = [[1, *[pad] * n, 2] for n in encoded.lengths]
    options = rustasr._core.DecodeOptions(max_tokens=5)
    found = session.decode(encoded, [0, 1, 2, 3], prompts, options)
    for i, mel in enumerate(mels):
        (alone,) = session.decode(session.encode([mel]), [0], [prompts[i]], options)
        np.testing.assert_allclose(found[i].logprobs, alone.logprobs, rtol=0, atol=1e-4)


KEYS = (
    "task", "stop_tokens", "token.audio_pad", "audio.n_layer", "audio.d_model", "audio.n_head", "audio.d_ff",
    "audio.conv_channels", "audio.chunk_frames", "audio.window_frames", "text.n_vocab", "text.n_layer",
    "text.d_model", "text.n_head", "text.n_kv_head", "text.d_head", "text.d_ff", "text.n_ctx",
    "text.rope_base", "text.norm_eps",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_needed(key: str, gguf: Path, tmp_path: Path) -> None:
    path = edited(gguf, tmp_path / "wrong.gguf", fields={f"qwen3_asr.{key}": ...})
    with pytest.raises(ModelFileError, match=f"qwen3_asr.{key}"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("task", "translate", UnsupportedModelError),
        ("task", "align", ModelFileError),  # and no number of classes
        ("stop_tokens", [], ModelFileError),
        ("stop_tokens", [99999], ModelFileError),
        ("stop_tokens", [-1], ModelFileError),
        ("token.audio_pad", 1 << 20, ModelFileError),
        ("audio.n_layer", 0, ModelFileError),
        ("audio.n_layer", 3, ModelFileError),
        ("audio.n_layer", 1, ModelFileError),
        ("audio.n_layer", 1 << 31, ModelFileError),
        ("audio.n_head", 3, ModelFileError),
        ("audio.d_ff", 65, ModelFileError),
        ("audio.conv_channels", 31, ModelFileError),
        ("audio.chunk_frames", 24, ModelFileError),
        ("audio.window_frames", 31, ModelFileError),
        ("text.n_vocab", 7, ModelFileError),
        ("text.d_model", 32, ModelFileError),
        ("text.n_kv_head", 3, ModelFileError),
        ("text.d_head", 31, ModelFileError),
        ("text.n_head", 1 << 30, ModelFileError),
        ("text.rope_base", 0.0, ModelFileError),
        ("text.rope_base", float("nan"), ModelFileError),
        ("text.norm_eps", -1.0, ModelFileError),
    ],
)
def test_wrong_values_are_refused(
    key: str, value: Any, error: type[ModelError], gguf: Path, tmp_path: Path
) -> None:
    path = edited(gguf, tmp_path / "wrong.gguf", fields={f"qwen3_asr.{key}": value})
    with pytest.raises(error, match="qwen3_asr|tensor"):
        load(path)


TENSORS = (
    "frontend.window", "audio_tower.conv1.kernel", "audio_tower.conv2.weight", "audio_tower.conv_out.weight",
    "audio_tower.positional_embedding", "audio_tower.blocks.1.attn.qkv.bias",
    "audio_tower.blocks.0.mlp.2.weight",
    "audio_tower.ln_post.bias", "projector.2.weight", "language_model.token_embedding.weight",
    "language_model.blocks.1.attn.q_norm.weight", "language_model.blocks.0.mlp.gate_up.weight",
    "language_model.norm.weight",
)  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_are_checked(name: str, gguf: Path, tmp_path: Path) -> None:
    for changes in (
        {"tensors": {name: None}},
        {"tensors": {name: lambda values: values[..., :-1]}},
        {"rename": {name: f"{name}.x"}},
    ):
        with pytest.raises(ModelFileError, match=name):
            load(edited(gguf, tmp_path / "wrong.gguf", **changes))


def test_an_untied_head_is_no_tensor_of_a_recogniser(gguf: Path, tmp_path: Path) -> None:
    path = edited(gguf, tmp_path / "wrong.gguf", rename={"language_model.norm.weight": "head.weight"})
    with pytest.raises(ModelFileError, match="norm"):
        load(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(part: float, gguf: Path, tmp_path: Path) -> None:
    raw = gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(ModelFileError):
        load(tmp_path / "cut.gguf")


def test_weights_that_are_not_numbers_are_an_error_not_a_text(gguf: Path, tmp_path: Path) -> None:
    import rustasr
    from rustasr.errors import TranscriptionError

    def broken(values: np.ndarray) -> np.ndarray:
        return values * np.float32(1e38)

    path = edited(gguf, tmp_path / "wrong.gguf", tensors={"language_model.norm.weight": broken})
    model = load(path)
    session = model.session()
    encoded = session.encode([np.ones((16, 16), np.float32)])
    prompt = [1, *[model.metadata["qwen3_asr.token.audio_pad"]] * 2]
    with pytest.raises(TranscriptionError, match="not numbers"):
        session.decode(encoded, [0], [prompt], rustasr._core.DecodeOptions())
