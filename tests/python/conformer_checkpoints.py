"""Random GigaAM and Parakeet checkpoints, small enough to be made in a moment, in every published form.

Names, shapes and settings are written down here from the published files' own listings, independently of
rustasr.convert: GigaAM's under the names of its `state_dict`, Parakeet's under NeMo's.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import struct
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whisper_writers import Call, Made, Named, Pickle, torch_tensor, write_torch_zip

Array = NDArray[Any]
D, HEADS, LAYERS, FF = 64, 4, 2, 2  # width, attention heads, blocks, feed-forward width in D
PRED, JOINT = 32, 48  # of transducers
CHANNELS = 16  # of Parakeet's subsampling
DURATIONS = (0, 1, 2, 3, 4)
RUSSIAN = [" ", *(chr(code) for code in range(0x430, 0x450))]
# (piece, SentencePiece's type: 1 normal, 2 unknown, 4 user-defined)
PIECES = [("<unk>", 2), ("<|ru|>", 4), ("<pad>", 4), ("▁", 1), *((f"▁{c}", 1) for c in "абвг"), ("о", 1),
          (",", 1), (".", 1), ("▁привет", 1)]  # fmt: skip


@dataclass(frozen=True)
class TinyModel:
    """Weights by their published names, the settings that go with them, and the pieces (None: characters)."""

    config: dict[str, Any]
    tensors: dict[str, Array]
    pieces: tuple[tuple[str, int], ...] | None

    def changed(self, **tensors: Array | None) -> TinyModel:
        """With tensors replaced, or left out where None; `__` in a name stands for a dot."""
        changes = {name.replace("__", "."): value for name, value in tensors.items()}
        merged = {**self.tensors, **changes}
        return replace(self, tensors={name: value for name, value in merged.items() if value is not None})

    def configured(self, path: str, value: Any) -> TinyModel:
        """With one setting replaced, or left out where `...`; `path` is dotted."""
        config = copy.deepcopy(self.config)
        *parents, key = path.split(".")
        level = config
        for parent in parents:
            level = level[parent]
        if value is ...:
            del level[key]
        else:
            level[key] = value
        return replace(self, config=config)


class _Random:
    """Draws tensors: matrices of unit gain, everything else small."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, Array] = {}

    def put(self, name: str, *shape: int, dtype: str = "f4", around: float = 0.0) -> None:
        values = self.rng.standard_normal(shape)
        gain = 0.1 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[1:]))
        self.tensors[name] = (around + gain * values).astype(dtype)

    def affine(self, name: str, *shape: int, bias: bool = True, dtype: str = "f4") -> None:
        self.put(f"{name}.weight", *shape, dtype=dtype)
        if bias:
            self.put(f"{name}.bias", shape[0], dtype=dtype)

    def norm(self, name: str, dtype: str = "f4") -> None:
        self.put(f"{name}.weight", D, dtype=dtype, around=1.0)
        self.put(f"{name}.bias", D, dtype=dtype)

    def block(self, prefix: str, *, attention: str, norm: str, kernel: int, bias: bool, dtype: str) -> None:
        """One conformer block."""
        for part in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            self.norm(f"{prefix}.norm_{part}", dtype)
        for part in ("feed_forward1", "feed_forward2"):
            self.affine(f"{prefix}.{part}.linear1", FF * D, D, bias=bias, dtype=dtype)
            self.affine(f"{prefix}.{part}.linear2", D, FF * D, bias=bias, dtype=dtype)
        for part in "q", "k", "v", "out":
            self.affine(f"{prefix}.self_attn.linear_{part}", D, D, bias=bias, dtype=dtype)
        if attention == "rel_pos":
            self.affine(f"{prefix}.self_attn.linear_pos", D, D, bias=False, dtype=dtype)
            self.put(f"{prefix}.self_attn.pos_bias_u", HEADS, D // HEADS, dtype=dtype)
            self.put(f"{prefix}.self_attn.pos_bias_v", HEADS, D // HEADS, dtype=dtype)
        self.affine(f"{prefix}.conv.pointwise_conv1", 2 * D, D, 1, bias=bias, dtype=dtype)
        self.affine(f"{prefix}.conv.depthwise_conv", D, 1, kernel, bias=bias, dtype=dtype)
        self.norm(f"{prefix}.conv.batch_norm", dtype)
        if norm == "batch_norm":
            self.put(f"{prefix}.conv.batch_norm.running_mean", D, dtype=dtype)
            self.put(f"{prefix}.conv.batch_norm.running_var", D, dtype=dtype, around=1.5)
            self.tensors[f"{prefix}.conv.batch_norm.num_batches_tracked"] = np.array(7, np.int64)
        self.affine(f"{prefix}.conv.pointwise_conv2", D, D, 1, bias=bias, dtype=dtype)

    def lstm(self, name: str, layers: int) -> None:
        for layer in range(layers):
            for part in ("ih", "hh"):
                self.put(f"{name}.weight_{part}_l{layer}", 4 * PRED, PRED)
                self.put(f"{name}.bias_{part}_l{layer}", 4 * PRED)


def make_gigaam(
    version: str = "v3", head: str = "ctc", *, characters: bool | None = None, seed: int = 1
) -> TinyModel:
    """`version`: "v3", "v2" (conv2d stem, BatchNorm, centred frames) or "v1" (as v2, relative positions).

    The encoder is float16 as in the released files; characters are what CTC has unless told otherwise.
    """
    characters = head == "ctc" if characters is None else characters
    pieces = None if characters else tuple(PIECES)
    n_classes = (len(RUSSIAN) if characters else len(PIECES)) + 1
    new, n_fft = version == "v3", 320 if version == "v3" else 400
    norm, attention = "layer_norm" if new else "batch_norm", "rel_pos" if version == "v1" else "rotary"
    random = _Random(seed)
    random.put("preprocessor.featurizer.0.spectrogram.window", n_fft)
    random.put("preprocessor.featurizer.0.mel_scale.fb", n_fft // 2 + 1, 64)
    kernel = (5,) if new else (3, 3)
    random.affine("encoder.pre_encode.conv.0", D, 64 if new else 1, *kernel, dtype="f2")
    random.affine("encoder.pre_encode.conv.2", D, D, *kernel, dtype="f2")
    if not new:
        random.affine("encoder.pre_encode.out", D, D * 16, dtype="f2")
    for layer in range(LAYERS):
        random.block(f"encoder.layers.{layer}", attention=attention, norm=norm, kernel=5 if new else 31,
                     bias=True, dtype="f2")  # fmt: skip
    if head == "ctc":
        random.affine("head.decoder_layers.0", n_classes, D, 1)
    else:
        random.put("head.decoder.embed.weight", n_classes, PRED)
        random.tensors["head.decoder.embed.weight"][-1] = 0
        random.lstm("head.decoder.lstm", 1)
        random.affine("head.joint.pred", JOINT, PRED)
        random.affine("head.joint.enc", JOINT, D)
        random.affine("head.joint.joint_net.1", n_classes, JOINT)
    config = {
        "model_class": head,
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": "gigaam.preprocess.FeatureExtractor", "sample_rate": 16000, "features": 64,
            "win_length": n_fft, "hop_length": 160, "mel_scale": "htk", "n_fft": n_fft, "mel_norm": None,
            "center": not new,
        },
        "encoder": {
            "_target_": "gigaam.encoder.ConformerEncoder", "feat_in": 64, "n_layers": LAYERS, "d_model": D,
            "subsampling_factor": 4, "ff_expansion_factor": FF, "self_attention_model": attention,
            "pos_emb_max_len": 5000, "n_heads": HEADS, "conv_kernel_size": 5 if new else 31,
            "flash_attn": False, "subs_kernel_size": 5 if new else 3,
            "subsampling": "conv1d" if new else "conv2d", "conv_norm_type": norm,
        },
        "head": {"_target_": "gigaam.decoder.CTCHead", "feat_in": D, "num_classes": n_classes},
        "decoding": {
            "_target_": f"gigaam.decoding.{head.upper()}GreedyDecoding",
            "vocabulary": RUSSIAN if characters else None,
            "model_path": None if characters else "/root/.cache/gigaam/tokenizer.model",
        },
        "model_name": f"{version}_{'' if characters else 'e2e_'}{head}",
    }  # fmt: skip
    if head != "ctc":
        config["head"] = {
            "_target_": "gigaam.decoder.RNNTHead",
            "decoder": {"pred_hidden": PRED, "pred_rnn_layers": 1, "num_classes": n_classes},
            "joint": {"enc_hidden": D, "pred_hidden": PRED, "joint_hidden": JOINT, "num_classes": n_classes},
        }
    return TinyModel(config, random.tensors, pieces)


def make_parakeet(
    head: str = "tdt",
    *,
    use_bias: bool = False,
    xscaling: bool = False,
    n_mels: int = 128,
    joint: int = JOINT,
    seed: int = 2,
) -> TinyModel:
    """NeMo's configuration and names; float32 as in the released files.

    transformers has one width for prediction network and joint: `joint=PRED` where its form is written.
    """
    random, n_vocab = _Random(seed), len(PIECES)
    n_extra = len(DURATIONS) if head == "tdt" else 0
    random.tensors["preprocessor.featurizer.window"] = np.hanning(400).astype("f4")
    random.put("preprocessor.featurizer.fb", 1, n_mels, 257)
    conv = "encoder.pre_encode.conv"
    random.affine(f"{conv}.0", CHANNELS, 1, 3, 3)
    for index in (2, 5):
        random.affine(f"{conv}.{index}", CHANNELS, 1, 3, 3)
        random.affine(f"{conv}.{index + 1}", CHANNELS, CHANNELS, 1, 1)
    random.affine("encoder.pre_encode.out", D, CHANNELS * n_mels // 8)
    for layer in range(LAYERS):
        random.block(f"encoder.layers.{layer}", attention="rel_pos", norm="batch_norm", kernel=9,
                     bias=use_bias, dtype="f4")  # fmt: skip
    config: dict[str, Any] = {
        "sample_rate": 16000,
        "model_defaults": {"enc_hidden": D, "pred_hidden": PRED, "joint_hidden": joint},
        "tokenizer": {"dir": "x", "type": "bpe", "model_path": "nemo:0f_tokenizer.model"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
            "window": "hann", "features": n_mels, "n_fft": 512, "log": True, "frame_splicing": 1,
            "dither": 1e-5, "pad_to": 0, "pad_value": 0.0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": n_mels, "feat_out": -1,
            "n_layers": LAYERS, "d_model": D, "use_bias": use_bias, "subsampling": "dw_striding",
            "subsampling_factor": 8, "subsampling_conv_channels": CHANNELS, "causal_downsampling": False,
            "ff_expansion_factor": FF, "self_attention_model": "rel_pos", "n_heads": HEADS,
            "att_context_size": [-1, -1], "xscaling": xscaling, "untie_biases": True, "pos_emb_max_len": 5000,
            "conv_kernel_size": 9, "conv_norm_type": "batch_norm", "conv_context_size": None,
        },
    }  # fmt: skip
    if head == "ctc":
        random.affine("decoder.decoder_layers.0", n_vocab + 1, D, 1)
        config["decoder"] = {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": D, "num_classes": n_vocab,
        }  # fmt: skip
        return TinyModel(config, random.tensors, tuple(PIECES))
    random.put("decoder.prediction.embed.weight", n_vocab + 1, PRED)
    random.tensors["decoder.prediction.embed.weight"][-1] = 0
    random.lstm("decoder.prediction.dec_rnn.lstm", 2)
    random.affine("joint.pred", joint, PRED)
    random.affine("joint.enc", joint, D)
    random.affine("joint.joint_net.2", n_vocab + 1 + n_extra, joint)
    config |= {
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
            "blank_as_pad": True, "vocab_size": n_vocab,
            "prednet": {"pred_hidden": PRED, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.2},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint", "num_classes": n_vocab,
            "jointnet": {"joint_hidden": "${model_defaults.joint_hidden}", "activation": "relu"},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 7}},
    }  # fmt: skip
    if head == "tdt":
        config["joint"]["num_extra_outputs"] = n_extra
        config["decoding"]["durations"] = list(DURATIONS)
    return TinyModel(config, random.tensors, tuple(PIECES))


# --- tokenizers ---


def sentencepiece_bytes(pieces: tuple[tuple[str, int], ...] = tuple(PIECES)) -> bytes:
    """A SentencePiece `.model`: pieces, then a trainer and a normaliser specification."""

    def field(number: int, data: bytes) -> bytes:
        size = bytes([len(data) & 0x7F | 0x80, len(data) >> 7]) if len(data) > 0x7F else bytes([len(data)])
        return bytes([number << 3 | 2]) + size + data

    out = b""
    for index, (text, kind) in enumerate(pieces):
        body = field(1, text.encode()) + b"\x15" + struct.pack("<f", -float(index))
        out += field(1, body + (b"\x18" + bytes([kind]) if kind != 1 else b""))
    return out + field(2, b"\x18\x02\x20\x0c") + field(3, field(1, b"identity"))


def tokenizer_json(pieces: tuple[tuple[str, int], ...] = tuple(PIECES)) -> dict[str, Any]:
    """transformers' tokenizer.json for the same pieces: user-defined ones and the blank are added tokens."""
    added = [(index, text) for index, (text, kind) in enumerate(pieces) if kind != 1]
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": text, "special": text == "<unk>"}
            for index, text in [*added, (len(pieces), "<blank>")]
        ],
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "vocab": {text: index for index, (text, _) in enumerate(pieces)},
            "merges": [],
        },
    }


# --- writers ---


def omegaconf(value: Any) -> Any:
    """The object tree that OmegaConf pickles for a configuration (omegaconf 2.3)."""
    any_type, builtin = Named("typing", "Any"), Named("__builtin__", "dict")

    def metadata(kind: str) -> Made:
        state = {
            "ref_type": any_type, "object_type": builtin, "optional": True, "key": None, "flags": {},
            "flags_root": False, "resolver_cache": Call("collections", "defaultdict", builtin),
        }  # fmt: skip
        return Made(Named("omegaconf.base", kind), state)

    def node(module: str, name: str, key: str, content: Any) -> Made:
        kind = "Metadata" if key == "_val" else "ContainerMetadata"
        return Made(Named(module, name), {"_metadata": metadata(kind), "_parent": None, key: content})

    if isinstance(value, dict):
        content: Any = {key: omegaconf(item) for key, item in value.items()}
        return node("omegaconf.dictconfig", "DictConfig", "_content", content)
    if isinstance(value, list):
        content = [omegaconf(item) for item in value]
        return node("omegaconf.listconfig", "ListConfig", "_content", content)
    return node("omegaconf.nodes", "AnyNode", "_val", value)


def _state(tensors: dict[str, Array], prefix: str = "") -> dict[str, Any]:
    return {
        prefix + name: torch_tensor(value, str(index)) for index, (name, value) in enumerate(tensors.items())
    }


def write_gigaam_ckpt(path: Path, made: TinyModel, cfg: Any = ...) -> Path:
    """The gigaam package's `.ckpt`, its tokenizer beside it. `cfg` replaces the pickled configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = {"cfg": omegaconf(made.config) if cfg is ... else cfg, "state_dict": _state(made.tensors)}
    write_torch_zip(path, Pickle().add(root).done(), list(made.tensors.values()), root=path.stem)
    if made.pieces is not None:
        path.with_name(f"{path.stem}_tokenizer.model").write_bytes(sentencepiece_bytes(made.pieces))
    return path


def write_gigaam_hf(folder: Path, made: TinyModel) -> Path:
    """The Hugging Face folder: config.json, pytorch_model.bin, tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["GigaAMModel"],
        "model_type": "gigaam",
        "cfg": {"model": {"_target_": "modeling_gigaam.GigaAMASR", "cfg": made.config}},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    pickle = Pickle().add(_state(made.tensors, "model.")).done()
    write_torch_zip(folder / "pytorch_model.bin", pickle, list(made.tensors.values()), "pytorch_model")
    if made.pieces is not None:
        (folder / "tokenizer.model").write_bytes(sentencepiece_bytes(made.pieces))
    return folder


def nemo_members(made: TinyModel, folder: Path) -> dict[str, bytes]:
    """The files inside a `.nemo`; `folder` is for scratch."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    weights = write_torch_zip(
        folder / "weights.scratch", Pickle().add(_state(made.tensors)).done(), list(made.tensors.values())
    )
    data = weights.read_bytes()
    weights.unlink()
    assert made.pieces is not None
    return {
        "model_config.yaml": yaml.safe_dump(made.config, allow_unicode=True).encode(),
        "model_weights.ckpt": data,
        "0f_tokenizer.model": sentencepiece_bytes(made.pieces),
        "0f_tokenizer.vocab": b"",
        "0f_vocab.txt": b"",
    }


def tar_bytes(members: dict[str, bytes]) -> bytes:
    """A plain tar of `./name` members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write_nemo(path: Path, made: TinyModel, *, gzipped: bool = False) -> Path:
    """A `.nemo` archive."""
    data = tar_bytes(nemo_members(made, path.parent))
    path.write_bytes(gzip.compress(data, 1) if gzipped else data)
    return path


_HF_NAMES = (
    ("pre_encode.conv.", "subsampling.layers."), ("pre_encode.out.", "subsampling.linear."),
    ("conv.batch_norm", "conv.norm"), ("linear_q", "q_proj"), ("linear_k", "k_proj"), ("linear_v", "v_proj"),
    ("linear_out", "o_proj"), ("linear_pos", "relative_k_proj"), ("pos_bias_u", "bias_u"),
    ("pos_bias_v", "bias_v"), ("decoder.prediction.embed", "decoder.embedding"),
    ("decoder.prediction.dec_rnn.lstm", "decoder.lstm"), ("joint.enc", "encoder_projector"),
    ("joint.pred", "decoder.decoder_projector"), ("joint.joint_net.2", "joint.head"),
    ("decoder.decoder_layers.0", "ctc_head"),
)  # fmt: skip


def hugging_face_name(name: str) -> str:
    """NeMo's tensor name -> transformers'."""
    for theirs, ours in _HF_NAMES:
        name = name.replace(theirs, ours)
    return name


def write_parakeet_hf(folder: Path, made: TinyModel, *, shards: int = 1) -> Path:
    """config.json, processor_config.json, tokenizer.json and safetensors in one or more shards."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    assert made.pieces is not None
    encoder, n_vocab = made.config["encoder"], len(made.pieces)
    head = (
        "ctc" if "joint" not in made.config else "tdt" if "durations" in made.config["decoding"] else "rnnt"
    )
    config: dict[str, Any] = {
        "model_type": f"parakeet_{head}",
        "vocab_size": n_vocab + 1,
        "pad_token_id": n_vocab if head == "ctc" else 2,
        "encoder_config": {
            "model_type": "parakeet_encoder", "hidden_size": D, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "intermediate_size": FF * D,
            "hidden_act": "silu", "attention_bias": encoder["use_bias"],
            "convolution_bias": encoder["use_bias"], "conv_kernel_size": 9,
            "num_mel_bins": encoder["feat_in"], "scale_input": encoder["xscaling"],
            "subsampling_conv_channels": CHANNELS, "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2, "subsampling_factor": 8,
        },
    }  # fmt: skip
    if head != "ctc":
        config |= {"blank_token_id": n_vocab, "decoder_hidden_size": PRED, "num_decoder_layers": 2,
                   "hidden_act": "relu", "max_symbols_per_step": 7}  # fmt: skip
    if head == "tdt":
        config["durations"] = list(DURATIONS)
    processor = {
        "feature_extractor": {
            "feature_extractor_type": "ParakeetFeatureExtractor", "feature_size": encoder["feat_in"],
            "hop_length": 160, "n_fft": 512, "preemphasis": 0.97, "sampling_rate": 16000, "win_length": 400,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(made.pieces)), encoding="utf-8")
    tensors = {
        hugging_face_name(name): np.asarray(value, order="C")
        for name, value in made.tensors.items()
        if not name.startswith("preprocessor.")
    }
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    weight_map = {name: files[index % shards] for index, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name, where in weight_map.items() if where == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
