"""Parakeet checkpoints -> GGUF: NeMo's FastConformer with a CTC, RNN-T or TDT head.

Two forms are published: the `.nemo` archive (NVIDIA/NeMo, nemo/collections/asr: modules/conformer_encoder.py,
modules/rnnt.py, modules/conv_asr.py, parts/preprocessing/features.py), and the Hugging Face folder
(transformers, models/parakeet), which names the same tensors otherwise and leaves out the front end's window
and filterbank. Keys that a configuration leaves out have the defaults of those classes.
"""

from __future__ import annotations

import re
from pathlib import Path

from rustasr import registry
from rustasr.convert import pieces
from rustasr.convert.common import Checkpoint, FamilyPlan, Field, OutputTensor, check_tensors, shown
from rustasr.convert.config import Config
from rustasr.convert.conformer import (
    COUNTER,
    Conformer,
    Frontend,
    Head,
    claim,
    expected_tensors,
    n_parameters,
    output_tensors,
)
from rustasr.convert.mel import slaney_filterbank, symmetric_hann_window
from rustasr.convert.pieces import Pieces
from rustasr.convert.sources import Source, read_config
from rustasr.errors import ModelFileError, UnsupportedModelError

MAX_SECONDS = 0.0  # no limit: full attention over the whole recording
_WINDOW, _FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"
_LOG_GUARD = 2.0**-24  # FilterbankFeatures: log_zero_guard_value; transformers: LOG_ZERO_GUARD_VALUE
_MAX_TOKENIZER_BYTES = 64 << 20
_NEMO_HEADS = {
    "head.": "decoder.decoder_layers.0.",
    "prediction.embed.": "decoder.prediction.embed.",
    "prediction.lstm.": "decoder.prediction.dec_rnn.lstm.",
    "joint.out.": "joint.joint_net.2.",
}
# What transformers' own converter renames (models/parakeet/convert_nemo_to_hf.py).
_HF_NAMES = {
    "encoder.pre_encode.conv.": "encoder.subsampling.layers.",
    "encoder.pre_encode.out.": "encoder.subsampling.linear.",
    ".conv.batch_norm.": ".conv.norm.",
    ".self_attn.linear_q.": ".self_attn.q_proj.",
    ".self_attn.linear_k.": ".self_attn.k_proj.",
    ".self_attn.linear_v.": ".self_attn.v_proj.",
    ".self_attn.linear_out.": ".self_attn.o_proj.",
    ".self_attn.linear_pos.": ".self_attn.relative_k_proj.",
    ".self_attn.pos_bias_": ".self_attn.bias_",
}
_HF_HEADS = {
    "head.": "ctc_head.",
    "prediction.embed.": "decoder.embedding.",
    "prediction.lstm.": "decoder.lstm.",
    "joint.enc.": "encoder_projector.",
    "joint.pred.": "decoder.decoder_projector.",
    "joint.out.": "joint.head.",
}


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a Parakeet checkpoint."""
    read = _from_nemo if source.archive is not None else _from_hugging_face
    frontend, encoder, head = read(source)
    encoder.check(source.config.where)
    if encoder.n_mels != frontend.n_mels:
        raise ModelFileError(
            f"{source.config.where}: the encoder takes {encoder.n_mels} mels, the front end makes "
            f"{frontend.n_mels}"
        )
    vocabulary = _vocabulary(source, tokenizer)
    vocabulary.check_count(head.n_vocab, source.config.where)
    is_nemo = source.archive is not None
    weights = {name: tensor for name, tensor in source.state.items() if not _ignored(name)}
    names = _nemo_name if is_nemo else _hugging_face_name
    tensors = claim(weights, expected_tensors(encoder, head), names, source.where)
    release = _release(source, n_parameters(encoder, head))
    row = registry.find(release) if release else None
    return FamilyPlan(
        architecture="parakeet",
        tensors=[
            *_tables(source.state, frontend, source.where),
            *output_tensors(tensors, encoder, head, source.where),
        ],
        fields={
            **frontend.metadata(),
            **encoder.metadata(),
            **head.metadata(),
            **vocabulary.metadata(),
            # No file says which languages it was trained on; only the published ones are known.
            "parakeet.languages": Field("arr_str", list(row.languages) if row else []),
            "parakeet.max_seconds": Field("f32", MAX_SECONDS),
        },
        release=release,
    )


# --- .nemo ---


def _from_nemo(source: Source) -> tuple[Frontend, Conformer, Head]:
    config = source.config
    return _nemo_frontend(config.section("preprocessor")), _nemo_encoder(config), _nemo_head(config)


def _nemo_frontend(config: Config) -> Frontend:
    config.fixed(normalize="per_feature", window="hann", log=True, frame_splicing=1, mag_power=2.0,
                 mel_norm="slaney", log_zero_guard_type="add", log_zero_guard_value=_LOG_GUARD,
                 lowfreq=0, exact_pad=False, use_grads=False)  # fmt: skip
    sample_rate = config.integer("sample_rate", 8000, 48000)
    config.fixed(highfreq=sample_rate // 2)
    n_fft = config.integer("n_fft", 16, 4096)
    return _frontend(
        sample_rate,
        n_fft,
        win_length=_samples(config, "window_size", sample_rate, n_fft),
        hop_length=_samples(config, "window_stride", sample_rate, n_fft),
        n_mels=config.integer("features", 1, 512),
        preemphasis=config.number("preemph", 0.0, 1.0, 0.97),
    )


def _frontend(
    sample_rate: int, n_fft: int, *, win_length: int, hop_length: int, n_mels: int, preemphasis: float
) -> Frontend:
    return Frontend(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        n_mels=n_mels,
        center=True,
        pad_mode="zero",
        drop_last_frame=True,  # torch.stft gives one frame more than are valid
        preemphasis=preemphasis,
        floor=_LOG_GUARD,
        floor_mode="add",
        normalize="per_feature",
    )


def _samples(config: Config, key: str, sample_rate: int, most: int) -> int:
    """Seconds as a whole number of samples."""
    samples = int(config.number(key, 0.0, 1.0) * sample_rate)
    if not 1 <= samples <= most:
        raise ModelFileError(
            f"{config.where}: '{config.path}.{key}' makes {samples} samples, expected 1 to {most}"
        )
    return samples


def _nemo_encoder(root: Config) -> Conformer:
    config = root.section("encoder")
    target = config.text("_target_").rpartition(".")[2]
    if target != "ConformerEncoder":
        raise UnsupportedModelError(
            f"{config.where}: 'encoder._target_' is {target!r:.60}, only 'ConformerEncoder' is implemented"
        )
    config.fixed(feat_out=-1, causal_downsampling=False, reduction=None, untie_biases=True,
                 att_context_size=[-1, -1], conv_context_size=None, global_tokens=0,
                 self_attention_model="rel_pos")  # fmt: skip
    d_model = config.integer("d_model", 8, 1 << 14)
    channels = config.integer("subsampling_conv_channels", -1, 1 << 12)
    return Conformer(
        n_mels=config.integer("feat_in", 1, 512),
        n_layer=config.integer("n_layers", 1, 256),
        d_model=d_model,
        n_head=config.integer("n_heads", 1, 256),
        d_ff=d_model * config.integer("ff_expansion_factor", 1, 64),
        conv_kernel=config.integer("conv_kernel_size", 1, 255),
        conv_norm=config.choice("conv_norm_type", ("batch_norm", "layer_norm"), "batch_norm"),
        use_bias=config.flag("use_bias", True),
        xscaling=config.flag("xscaling", True),
        attention="rel_pos",
        rope_base=0.0,
        subsampling=config.choice("subsampling", ("dw_striding",)),
        subsampling_factor=config.integer("subsampling_factor", 2, 64),
        subsampling_kernel=3,  # ConvSubsampling
        subsampling_channels=d_model if channels == -1 else channels,
    )


def _nemo_head(config: Config) -> Head:
    decoder = config.section("decoder")
    target = decoder.text("_target_").rpartition(".")[2]
    if target == "ConvASRDecoder":
        return Head("ctc", decoder.integer("num_classes", 1, pieces.MAX_PIECES))
    if target != "RNNTDecoder":
        raise UnsupportedModelError(
            f"{config.where}: 'decoder._target_' is {target!r:.60}, only 'ConvASRDecoder' or 'RNNTDecoder' "
            "is implemented"
        )
    decoder.fixed(blank_as_pad=True, normalization_mode=None)
    joint, prednet = config.section("joint"), decoder.section("prednet")
    jointnet, decoding = joint.section("jointnet"), config.section("decoding")
    jointnet.fixed(activation="relu")
    n_durations = joint.integer("num_extra_outputs", 0, 64, 0)
    durations = decoding.integers("durations", 0, 255, 64) if n_durations else ()
    if len(durations) != n_durations:
        raise ModelFileError(
            f"{config.where}: 'decoding.durations' has {len(durations)} values, 'joint.num_extra_outputs' is "
            f"{n_durations}"
        )
    greedy = decoding.section("greedy") if decoding.has("greedy") else Config({}, config.where)
    return Head(
        "tdt" if durations else "rnnt",
        decoder.integer("vocab_size", 1, pieces.MAX_PIECES),
        durations=durations,
        max_symbols=greedy.integer("max_symbols", 1, 1000, 10) if greedy.has("max_symbols") else 10,
        pred_layers=prednet.integer("pred_rnn_layers", 1, 16),
        pred_hidden=prednet.integer("pred_hidden", 1, 1 << 14),
        joint_hidden=jointnet.integer("joint_hidden", 1, 1 << 14),
    )


# --- Hugging Face ---


def _from_hugging_face(source: Source) -> tuple[Frontend, Conformer, Head]:
    config = source.config
    processor = _processor(source.found.folder)
    n_fft = processor.integer("n_fft", 16, 4096)
    frontend = _frontend(
        processor.integer("sampling_rate", 8000, 48000),
        n_fft,
        win_length=processor.integer("win_length", 2, n_fft),
        hop_length=processor.integer("hop_length", 1, n_fft),
        n_mels=processor.integer("feature_size", 1, 512),
        preemphasis=processor.number("preemphasis", 0.0, 1.0),
    )
    return frontend, _hugging_face_encoder(config.section("encoder_config")), _hugging_face_head(config)


def _processor(folder: Path) -> Config:
    """The front end's settings: a part of processor_config.json, or, as before, a file of their own."""
    path, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    if not path.is_file() and own.is_file():
        return Config(read_config(own), str(own))
    return Config(read_config(path), str(path)).section("feature_extractor")


def _hugging_face_encoder(config: Config) -> Conformer:
    n_head = config.integer("num_attention_heads", 1, 256)
    config.fixed(hidden_act="silu", subsampling_conv_stride=2, num_key_value_heads=n_head)
    use_bias = config.flag("attention_bias")  # of attention and feed-forward
    config.fixed(convolution_bias=use_bias)
    return Conformer(
        n_mels=config.integer("num_mel_bins", 1, 512),
        n_layer=config.integer("num_hidden_layers", 1, 256),
        d_model=config.integer("hidden_size", 8, 1 << 14),
        n_head=n_head,
        d_ff=config.integer("intermediate_size", 8, 1 << 16),
        conv_kernel=config.integer("conv_kernel_size", 1, 255),
        conv_norm="batch_norm",
        use_bias=use_bias,
        xscaling=config.flag("scale_input"),
        attention="rel_pos",
        rope_base=0.0,
        subsampling="dw_striding",
        subsampling_factor=config.integer("subsampling_factor", 2, 64),
        subsampling_kernel=config.integer("subsampling_conv_kernel_size", 1, 63),
        subsampling_channels=config.integer("subsampling_conv_channels", 1, 1 << 12),
    )


def _hugging_face_head(config: Config) -> Head:
    kind = config.choice("model_type", ("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt"))
    kind = kind.removeprefix("parakeet_")
    n_vocab = config.integer("vocab_size", 2, pieces.MAX_PIECES) - 1
    blank = "pad_token_id" if kind == "ctc" else "blank_token_id"
    if config.value(blank) != n_vocab:
        raise UnsupportedModelError(
            f"{config.where}: {blank!r} is {shown(config.value(blank))}, only the last id, {n_vocab}, is "
            "implemented"
        )
    if kind == "ctc":
        return Head("ctc", n_vocab)
    config.fixed(hidden_act="relu")
    hidden = config.integer("decoder_hidden_size", 1, 1 << 14)
    return Head(
        kind,
        n_vocab,
        durations=config.integers("durations", 0, 255, 64) if kind == "tdt" else (),
        max_symbols=config.integer("max_symbols_per_step", 1, 1000, 10),
        pred_layers=config.integer("num_decoder_layers", 1, 16),
        pred_hidden=hidden,
        joint_hidden=hidden,
    )


# --- both ---


def _vocabulary(source: Source, tokenizer: Path | None) -> Pieces:
    """The one given; the archive's SentencePiece model; tokenizer.json or tokenizer.model in the folder."""
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise ModelFileError(f"tokenizer {tokenizer}: no such file")
        return _read_vocabulary(tokenizer)
    if source.archive is not None:
        settings = source.config.section("tokenizer")
        settings.fixed(type="bpe")
        name = settings.text("model_path").removeprefix("nemo:")
        data = source.archive.content(name, _MAX_TOKENIZER_BYTES)
        return pieces.sentencepiece_model(data, f"{source.where}: {name}")
    for place in (source.found.folder / "tokenizer.json", source.found.folder / "tokenizer.model"):
        if place.is_file():
            return _read_vocabulary(place)
    raise ModelFileError(
        f"{source.where}: tokenizer.json is missing from {source.found.folder}: copy it there or give it "
        "with --tokenizer"
    )


def _read_vocabulary(path: Path) -> Pieces:
    if path.suffix == ".json":
        return pieces.tokenizer_json(read_config(path), str(path))
    return pieces.read_sentencepiece(path)


def _tables(state: Checkpoint, frontend: Frontend, where: str) -> list[OutputTensor]:
    """Window and filterbank of the file, or, where it leaves them out, the same ones computed."""
    n_bins = frontend.n_fft // 2 + 1
    expected = {_WINDOW: (frontend.win_length,), _FILTERS: (1, frontend.n_mels, n_bins)}
    if not any(name in state for name in expected):
        return frontend.tables(
            lambda: symmetric_hann_window(frontend.win_length),
            lambda: slaney_filterbank(frontend.n_mels, frontend.n_fft, frontend.sample_rate),
        )
    check_tensors({name: state[name] for name in expected if name in state}, expected, where)
    window, filters = (state[name] for name in expected)
    return frontend.tables(window.read, lambda: filters.read()[0])


def _ignored(name: str) -> bool:
    """Front-end tables, counters, and the CTC decoder that a hybrid model has beside its transducer."""
    return name in (_WINDOW, _FILTERS) or name.endswith(COUNTER) or name.startswith("ctc_decoder.")


def _nemo_name(name: str) -> str:
    return _renamed(name, _NEMO_HEADS)


def _hugging_face_name(name: str) -> str:
    for ours, theirs in _HF_NAMES.items():
        name = name.replace(ours, theirs)
    return _renamed(name, _HF_HEADS)


def _renamed(name: str, heads: dict[str, str]) -> str:
    for ours, theirs in heads.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _release(source: Source, parameters: int) -> str | None:
    """The registry name of a published model: the file or repository is called so and has its size."""
    short = re.sub(r"\.nemo$", "", source.found.label.lower().rpartition("/")[2])
    row = registry.published(short, parameters)
    return row.name if row is not None else None
