"""Qwen3-ASR 0.6B at its published size with random weights, in the original layout and in transcribe-cpp's.

The arithmetic of a network does not depend on its values, so random ones time as the real ones do; only when
decoding stops does. Therefore the decoder's residual branches are made small, and a chain of tokens is
planted in the tied embedding: each makes the next the likeliest, so that greedy decoding says the same words
everywhere. The chain begins after the newline that ends the prompt; after a forced language comes the end.

NumPy is all that the checkpoint takes. Run this file by itself to make transcribe-cpp's file, with the peers'
Python and a checkout of github.com/handy-computer/transcribe.cpp, whose converter is used:
qwen3_checkpoint.py HF_FOLDER OUT_GGUF bf16|q8_0 TRANSCRIBE_CPP_SOURCE
"""

from __future__ import annotations

import itertools
import json
import string
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

N_PARAMETERS, N_WORDS = 782_426_112, 200
AUDIO = {
    "encoder_layers": 18, "d_model": 896, "encoder_attention_heads": 14, "encoder_ffn_dim": 3584,
    "num_mel_bins": 128, "downsample_hidden_size": 480, "output_dim": 1024, "max_source_positions": 1500,
    "n_window": 50, "n_window_infer": 800, "conv_chunksize": 500, "activation_function": "gelu",
    "scale_embedding": False,
}  # fmt: skip
TEXT = {
    "num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "rope_theta": 1000000, "max_position_embeddings": 65536, "tie_word_embeddings": True,
    "vocab_size": 151936,
}  # fmt: skip
LANGUAGES = [
    "Chinese", "English", "Cantonese", "Arabic", "German", "French", "Spanish", "Portuguese", "Indonesian",
    "Italian", "Korean", "Russian", "Thai", "Vietnamese", "Japanese", "Turkish", "Hindi", "Malay", "Dutch",
    "Swedish", "Danish", "Finnish", "Polish", "Czech", "Filipino", "Persian", "Greek", "Romanian",
    "Hungarian", "Macedonian",
]  # fmt: skip
# Base tokens, added tokens by id, and the last of the ids that have a name.
N_BASE, LAST_ADDED = 151643, 151705
ADDED = {
    151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151669: "<|audio_start|>",
    151670: "<|audio_end|>", 151676: "<|audio_pad|>", 151704: "<asr_text>", 151705: "<timestamp>",
}  # fmt: skip
NEWLINE, IM_END, ASR_TEXT = 198, 151645, 151704
EMBEDDING, FINAL_NORM = "thinker.model.embed_tokens.weight", "thinker.model.norm.weight"
Floats = npt.NDArray[np.float32]


# --- weights ---


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of Qwen3-ASR-0.6B under its original name."""
    d, ff, c = AUDIO["d_model"], AUDIO["encoder_ffn_dim"], AUDIO["downsample_hidden_size"]
    h, m, head = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["head_dim"]
    n_query, n_kv = head * TEXT["num_attention_heads"], head * TEXT["num_key_value_heads"]
    out: dict[str, tuple[int, ...]] = {}

    def affine(name: str, *shape: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = shape, shape[:1]

    tower = "thinker.audio_tower."
    for name, n_in in (("conv2d1", 1), ("conv2d2", c), ("conv2d3", c)):
        affine(tower + name, c, n_in, 3, 3)
    out[tower + "conv_out.weight"] = (d, 16 * c)
    for i in range(AUDIO["encoder_layers"]):
        layer = f"{tower}layers.{i}."
        affine(layer + "self_attn_layer_norm", d)
        affine(layer + "final_layer_norm", d)
        for part in ("q", "k", "v", "out"):
            affine(f"{layer}self_attn.{part}_proj", d, d)
        affine(layer + "fc1", ff, d)
        affine(layer + "fc2", d, ff)
    affine(tower + "ln_post", d)
    affine(tower + "proj1", d, d)
    affine(tower + "proj2", AUDIO["output_dim"], d)
    out[EMBEDDING] = (TEXT["vocab_size"], h)
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"thinker.model.layers.{i}."
        out[layer + "input_layernorm.weight"] = out[layer + "post_attention_layernorm.weight"] = (h,)
        out[layer + "self_attn.q_norm.weight"] = out[layer + "self_attn.k_norm.weight"] = (head,)
        out[layer + "self_attn.q_proj.weight"] = (n_query, h)
        out[layer + "self_attn.k_proj.weight"] = out[layer + "self_attn.v_proj.weight"] = (n_kv, h)
        out[layer + "self_attn.o_proj.weight"] = (h, n_query)
        out[layer + "mlp.gate_proj.weight"] = out[layer + "mlp.up_proj.weight"] = (m, h)
        out[layer + "mlp.down_proj.weight"] = (h, m)
    out[FINAL_NORM] = (h,)
    return out


def normal(name: str, shape: tuple[int, ...]) -> Floats:
    """Reproducible values of variance one; the stream depends on the name alone."""
    return np.random.Generator(np.random.SFC64(zlib.crc32(name.encode()))).standard_normal(shape, np.float32)


def values(name: str, shape: tuple[int, ...]) -> Floats:
    """The values of a tensor, scaled by its role."""
    noise = normal(name, shape)
    if name == FINAL_NORM:
        # Signs: without them the product of two embeddings is the same either way, and so is what comes next.
        return np.copysign(1 + np.float32(0.02) * noise, normal("signs", shape))
    if len(shape) == 1:
        is_norm = name.endswith("norm.weight") or "ln_post.weight" in name
        return np.float32(0.02) * noise + np.float32(is_norm)
    if name == EMBEDDING:
        return np.float32(0.5) * noise
    if ".model." in name and name.endswith(("o_proj.weight", "down_proj.weight")):
        return np.float32(2e-4) * noise
    return noise * np.float32(np.prod(shape[1:]) ** -0.5)


def plant(embedding: Floats, chain: list[int]) -> None:
    """Makes each token of `chain` the likeliest after the one before it."""
    norm = values(FINAL_NORM, embedding.shape[1:])
    signs = np.sign(norm)
    for before, after in itertools.pairwise(chain):
        state = norm * embedding[before]
        fresh = normal(f"chain{before}-{after}", embedding.shape[1:])
        fresh -= state * (state @ fresh) / (state @ state)
        length = np.linalg.norm(embedding[before])
        embedding[after] = 0.9 * signs * embedding[before] + 0.19**0.5 * length * fresh / np.linalg.norm(
            fresh
        )
        embedding[after] *= np.float32(1.012)
    # A forced language leaves the state of the last word: nothing is said. A little shorter, so that the word
    # itself is said where it should.
    embedding[ASR_TEXT] = np.float32(0.98) * embedding[chain[-2]]
    states = norm * embedding[chain[:-1]]
    assert ((states @ embedding.T).argmax(axis=1) == chain[1:]).all()


def planted() -> list[int]:
    """The tokens that are said after the prompt: a newline, words, the end."""
    words = np.random.Generator(np.random.PCG64(3)).choice(np.arange(1000, N_BASE), N_WORDS, replace=False)
    return [NEWLINE, *(int(word) for word in words), IM_END]


def bf16(tensor: Floats) -> npt.NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(tensor).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# --- vocabulary ---


def byte_characters() -> list[str]:
    """The characters that stand for bytes in GPT-2's vocabularies, in the order of their ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) of a byte-level BPE of the published size: words of the prompt, and of nobody."""
    tokens, merges = byte_characters(), list[str]()
    known, letters = set(tokens), string.ascii_lowercase

    def add(stem: str, letter: str) -> None:
        if stem + letter not in known and len(tokens) < N_BASE:
            known.add(stem + letter)
            tokens.append(stem + letter)
            merges.append(f"{stem} {letter}")

    for word in ("system", "user", "assistant"):
        for end in range(1, len(word)):
            add(word[:end], word[end])
    stems = [*letters, "\u0120"]  # with and without a space before
    while len(tokens) < N_BASE:
        longer = [(stem, letter) for stem in stems for letter in letters]
        for stem, letter in longer:
            add(stem, letter)
        stems = [stem + letter for stem, letter in longer]
    return tokens, merges


def planted_text() -> str:
    tokens, _ = vocabulary()
    return "".join(tokens[i] for i in planted()[1:-1]).replace("\u0120", " ").strip()


def write_tokenizer(folder: Path) -> None:
    tokens, merges = vocabulary()
    save = {"vocab": {token: i for i, token in enumerate(tokens)}}
    names = {i: ADDED.get(i, f"<|extra_{i}|>") for i in range(N_BASE, LAST_ADDED + 1)}
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    save["tokenizer_config"] = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "bos_token": None, "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>",
        "audio_token": "<|audio_pad|>", "model_max_length": 131072,
        "added_tokens_decoder": {
            str(i): {"content": name, "special": i != ASR_TEXT, **plain} for i, name in names.items()
        },
    }  # fmt: skip
    for stem, content in save.items():
        (folder / f"{stem}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


# --- the checkpoint ---


def make_checkpoint(folder: Path) -> None:
    """Writes the original layout: BF16 in one safetensors file, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    rope = {"rope_type": "default", "type": "default", "interleaved": True, "mrope_interleaved": True,
            "mrope_section": [24, 20, 20]}  # fmt: skip
    thinker = {
        "model_type": "qwen3_asr_thinker", "dtype": "bfloat16", "audio_token_id": 151676,
        "audio_start_token_id": 151669, "audio_end_token_id": 151670,
        "audio_config": {**AUDIO, "model_type": "qwen3_asr_audio_encoder"},
        "text_config": {**TEXT, "rope_scaling": rope, "model_type": "qwen3_asr_text"},
    }  # fmt: skip
    config = {"architectures": ["Qwen3ASRForConditionalGeneration"], "model_type": "qwen3_asr",
              "support_languages": LANGUAGES, "thinker_config": thinker}  # fmt: skip
    extractor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "n_fft": 400,
                 "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_samples": 480000,
                 "nb_max_frames": 3000, "dither": 0.0, "padding_side": "right", "padding_value": 0.0,
                 "return_attention_mask": True}  # fmt: skip
    generation = {"do_sample": False, "max_new_tokens": 512, "eos_token_id": [IM_END, 151643]}
    files = {"config": config, "preprocessor_config": extractor, "generation_config": generation}
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")

    listed = shapes()
    assert sum(int(np.prod(shape)) for shape in listed.values()) == N_PARAMETERS
    header, at = {}, 0
    for name, shape in (*listed.items(), ("thinker.lm_head.weight", listed[EMBEDDING])):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    embedding = values(EMBEDDING, listed[EMBEDDING])
    plant(embedding, planted())
    rounded = bf16(embedding)
    part = folder / "model.safetensors.part"
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in listed.items():
            file.write((rounded if name == EMBEDDING else bf16(values(name, shape))).tobytes())
        file.write(rounded.tobytes())
    part.rename(folder / "model.safetensors")


# --- transcribe-cpp's file ---


def make_transcribe_cpp(hf: Path, out: Path, qtype: str, source: Path) -> None:
    """BF16 by the peer's own converter; Q8_0 from that, every matrix whose rows fill the blocks."""
    whole = out if qtype == "bf16" else out.with_name(out.stem + "-bf16.gguf")
    if not whole.exists():
        command = [sys.executable, source / "scripts" / "convert-qwen3_asr.py", hf, whole]
        words = [str(word) for word in (*command, "--repo-id", "Qwen/Qwen3-ASR-0.6B")]
        subprocess.run(words, check=True)
    if qtype != "bf16":
        requantize(whole, out)


def requantize(source: Path, out: Path) -> None:
    import gguf

    q8_0, f32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    reader = gguf.GGUFReader(source)
    architecture: Any = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(out, architecture, use_temp_file=True)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = 7 if key == "general.file_type" else field.contents()
        inner = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        is_matrix = len(shape) == 2 and ".conv." not in tensor.name and shape[-1] % 32 == 0
        kind = q8_0 if is_matrix and not tensor.name.startswith("frontend.") else f32
        writer.add_tensor(tensor.name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    make_transcribe_cpp(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
