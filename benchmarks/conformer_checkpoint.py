#!/usr/bin/env python3
"""Checkpoints of GigaAM v3 and Parakeet TDT v3 at full size with random weights, and their ONNX encoders.

    conformer_checkpoint.py parakeet OUT_DIR                 model.safetensors, config.json, ..., encoder.onnx
    conformer_checkpoint.py gigaam   OUT_DIR GIGAAM_SOURCE   v3_e2e_ctc.ckpt with its tokenizer, encoder.onnx

Run it with the peers' Python (conformer.py --setup): it needs torch, transformers, onnx and onnxruntime, and
for GigaAM a checkout of the official source. The weights are scaled so that values stay finite through all
blocks; the blank is made likely, so that decoding takes the steps that speech takes. `encoder-int8.onnx` is
onnxruntime's dynamic quantisation of all that it quantises.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

V3_PIECES = 8192


def fill(module: Any, seed: int = 0) -> None:
    """Linear and convolution weights of variance 1/fan-in, small biases, norms near one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point() or name.startswith("preprocessor"):
                continue
            normal = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(1 + 0.1 * normal.abs())
            elif value.dim() >= 2:
                value.copy_(normal / value[0].numel() ** 0.5)
            elif name.endswith("weight"):
                value.copy_(1 + 0.1 * normal)
            else:
                value.copy_(0.02 * normal)


def sentencepiece_model(path: Path, pieces: list[str]) -> None:
    """A SentencePiece model file with these pieces."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for i, piece in enumerate(pieces):
        entry = model.pieces.add()
        entry.piece, entry.score, entry.type = piece, -float(i), 2 if i == 0 else 1
    model.trainer_spec.model_type = 2
    model.trainer_spec.vocab_size = len(pieces)
    path.write_bytes(model.SerializeToString())


def words(count: int) -> list[str]:
    """<unk> and so many different pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = ["<unk>"]
    for first in ("▁", ""):
        for a in letters:
            for b in letters:
                made += [first + a + b + c for c in ("", *letters)]
    return made[:count]


def export(encoder: Any, n_mels: int, path: Path) -> None:
    """The encoder [1, n_mels, T] → [1, d, T'] as ONNX, in float32 and in dynamic int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    axes = {"features": {2: "t"}, "encoded": {2: "u"}}
    with torch.no_grad():
        torch.onnx.export(
            encoder, (torch.randn(1, n_mels, 320),), str(path), input_names=["features"],
            output_names=["encoded"], dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    quantize_dynamic(str(path), str(path.with_name("encoder-int8.onnx")), weight_type=QuantType.QInt8)


class ParakeetEncoder(torch.nn.Module):
    """The official encoder without its mask, for one utterance."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Any) -> Any:
        hidden = self.encoder(input_features=features.transpose(1, 2)).last_hidden_state
        return hidden.transpose(1, 2)


def parakeet(out: Path) -> Any:
    """Writes the Hugging Face folder; returns the official model."""
    from transformers import ParakeetEncoderConfig, ParakeetForTDT, ParakeetTDTConfig

    encoder = ParakeetEncoderConfig(
        num_mel_bins=128, attention_bias=False, convolution_bias=False, scale_input=False, layerdrop=0.0
    )
    config = ParakeetTDTConfig(
        vocab_size=V3_PIECES + 1, blank_token_id=V3_PIECES, pad_token_id=2, encoder_config=encoder
    )
    model = ParakeetForTDT._from_config(config, attn_implementation="eager").eval()
    fill(model)
    with torch.no_grad():
        model.decoder.embedding.weight[V3_PIECES].zero_()
        model.joint.head.bias[V3_PIECES] += 2.5
        model.joint.head.bias[V3_PIECES + 1 :] += torch.tensor([-0.6, 0.1, 0.3, 0.2, 0.0])
    model.save_pretrained(out)
    tokenizer = {
        "version": "1.0", "added_tokens": [],
        "model": {"type": "BPE", "unk_token": "<unk>", "merges": [],
                  "vocab": {piece: i for i, piece in enumerate(words(V3_PIECES))}},
    }  # fmt: skip
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    extractor = {"feature_size": 128, "hop_length": 160, "n_fft": 512, "preemphasis": 0.97,
                 "sampling_rate": 16000, "win_length": 400}  # fmt: skip
    (out / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    return model


def stand_in_for_torchaudio() -> None:
    """GigaAM imports torchaudio for its front end, which has no build here: the same two buffers."""

    class MelSpectrogram(torch.nn.Module):
        def __init__(self, n_fft: int, win_length: int, n_mels: int, **_: Any) -> None:
            super().__init__()
            self.spectrogram = torch.nn.Module()
            self.spectrogram.register_buffer("window", torch.hann_window(win_length))
            self.mel_scale = torch.nn.Module()
            filters = torch.rand(n_fft // 2 + 1, n_mels).relu()
            self.mel_scale.register_buffer("fb", filters)

    audio, transforms = types.ModuleType("torchaudio"), types.ModuleType("torchaudio.transforms")
    transforms.MelSpectrogram = MelSpectrogram  # type: ignore[attr-defined]
    audio.transforms = transforms  # type: ignore[attr-defined]
    sys.modules.update({"torchaudio": audio, "torchaudio.transforms": transforms})


class GigaamEncoder(torch.nn.Module):
    """The official encoder for one utterance."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Any) -> Any:
        return self.encoder(features, torch.full((1,), features.shape[2], dtype=torch.long))[0]


def gigaam(out: Path, source: Path) -> Any:
    """Writes the .ckpt and its tokenizer; returns the official model."""
    stand_in_for_torchaudio()
    sys.path.insert(0, str(source))
    from gigaam.model import GigaAMASR
    from omegaconf import OmegaConf

    tokenizer = out / "v3_e2e_ctc_tokenizer.model"
    sentencepiece_model(tokenizer, words(256))
    common = {"sample_rate": 16000, "features": 64, "win_length": 320, "hop_length": 160, "n_fft": 320,
              "mel_scale": "htk", "mel_norm": None, "center": False}  # fmt: skip
    encoder = {"feat_in": 64, "n_layers": 16, "d_model": 768, "n_heads": 16, "ff_expansion_factor": 4,
               "subsampling": "conv1d", "subsampling_factor": 4, "subs_kernel_size": 5, "flash_attn": False,
               "self_attention_model": "rotary", "pos_emb_max_len": 5000, "conv_kernel_size": 5,
               "conv_norm_type": "layer_norm"}  # fmt: skip
    config = OmegaConf.create(
        {
            "model_class": "ctc", "sample_rate": 16000, "model_name": "v3_e2e_ctc",
            "preprocessor": {"_target_": "gigaam.preprocess.FeatureExtractor", **common},
            "encoder": {"_target_": "gigaam.encoder.ConformerEncoder", **encoder},
            "head": {"_target_": "gigaam.decoder.CTCHead", "feat_in": 768, "num_classes": 257},
            "decoding": {"_target_": "gigaam.decoding.CTCGreedyDecoding", "vocabulary": None,
                         "model_path": str(tokenizer)},
        }
    )  # fmt: skip
    model = GigaAMASR(config).eval()
    fill(model)
    state = model.state_dict()
    with torch.no_grad():
        state["head.decoder_layers.0.bias"][256] += 1.0
    kept = {
        k: v.half() if k.startswith("encoder.") and v.is_floating_point() else v for k, v in state.items()
    }
    torch.save({"cfg": config, "state_dict": kept}, out / "v3_e2e_ctc.ckpt")
    return model


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in ("parakeet", "gigaam"):
        raise SystemExit(__doc__)
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "parakeet":
        export(ParakeetEncoder(parakeet(out).encoder).eval(), 128, out / "encoder.onnx")
    else:
        encoder = gigaam(out, Path(sys.argv[3])).encoder
        torch.save(encoder, out / "encoder.pt")
        export(GigaamEncoder(encoder).eval(), 64, out / "encoder.onnx")


if __name__ == "__main__":
    main()
