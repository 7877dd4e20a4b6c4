"""Published files of Silero VAD, by sha256: versions 5 and 6 have the same layout and the same file names,
and some files of the newest package hold older weights, so that nothing but the hash tells them apart."""

from __future__ import annotations

from pathlib import Path

from rustasr.convert.common import file_sha256
from rustasr.errors import UnsupportedModelError

_RIGHT = "the right weights (6.2) in a form that is not read here"
_VERSION_6 = "the weights of version 6.0"
_VERSION_5 = "the weights of version 5"
# sha256 -> (bytes, file, what it holds): the files of silero-vad 5.1.2 to 6.2.3, and known copies.
_COPIES = {
    "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3":
        (2327524, "silero_vad.onnx of 6.2", _RIGHT),
    "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49":
        (1289603, "silero_vad_16k_op15.onnx", _RIGHT),
    "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28":
        (2845718, "silero_vad_op18_ifless.onnx", _RIGHT),
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85":
        (1246165, "silero_vad_16k_sequence.onnx", _RIGHT),
    "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87":
        (1288203, "silero_vad_openvino_16k.onnx", _RIGHT),
    "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769":
        (1280395, "silero_vad_half.onnx", _VERSION_5),
    "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1":
        (1239748, "silero_vad_16k.safetensors", "weights of its own, which no other published file has"),
    "2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f":
        (2327524, "silero_vad.onnx of 5.1.2", _VERSION_5),
    "85c48e1f0ecb604e5d2a268f3ccfb912d4f7e935acdc86af5a3fc5b0aea7b29a":
        (2269612, "silero_vad.jit of 5.1.2", _VERSION_5),
    "597d30b3ec076608d059477bb14cfeffdf951bf5cae370d38f65d33bbfe82004":
        (2327524, "silero_vad.onnx of 6.0", _VERSION_6),
    "b178b4bc39467ecd5e9eb0bc6f2fcc291c1cc1cc55a68fea8c0c2c0d5fbbe66c":
        (2271162, "silero_vad.jit of 6.0", _VERSION_6),
    "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2":
        (1245151, "faster-whisper's silero_vad_v6.onnx", _VERSION_6),
    "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987":
        (885098, "whisper.cpp's silero-v6.2.0-ggml.bin", "the weights of 6.2 rounded to F16"),
}  # fmt: skip
_SIZES = {size for size, _, _ in _COPIES.values()}


def refuse_copy(path: Path) -> None:
    """UnsupportedModelError for a published file of Silero VAD that is not the one to convert."""
    if path.stat().st_size not in _SIZES:
        return
    known = _COPIES.get(file_sha256(path))
    if known is not None:
        _, name, holds = known
        raise UnsupportedModelError(
            f"{path} is {name} and holds {holds}; expected silero_vad.jit of silero-vad 6.2.3: "
            "`rustasr models pull silero-vad` fetches it"
        )


__all__ = ["refuse_copy"]
