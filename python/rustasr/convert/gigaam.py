"""GigaAM checkpoints -> GGUF (salute-developers/GigaAM: gigaam/{preprocess,encoder,decoder,decoding}.py).

Two forms are published: the `.ckpt` of the gigaam package, a torch archive of an OmegaConf `cfg` and a
`state_dict`, with `<name>_tokenizer.model` beside it; and the Hugging Face folder, where the same `cfg` lies
in config.json under cfg.model.cfg and the weights' names begin with `model.`. Versions differ by
configuration only (v3: conv1d stem, LayerNorm, frames without padding; v2: conv2d stem, BatchNorm, centred
frames); keys that a checkpoint leaves out have the defaults of the classes named above.
"""

from __future__ import annotations

from pathlib import Path

from rustasr import registry
from rustasr.convert import pieces
from rustasr.convert.common import ALL_ROWS, Checkpoint, FamilyPlan, Field, OutputTensor, check_tensors
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
from rustasr.convert.pieces import Pieces
from rustasr.convert.sources import Source
from rustasr.errors import ModelFileError, UnsupportedModelError

LANGUAGES = ("ru",)
MAX_SECONDS = 25.0  # gigaam/model.py: transcribe refuses more (LONGFORM_THRESHOLD)
_WINDOW = "preprocessor.featurizer.0.spectrogram.window"
_FILTERS = "preprocessor.featurizer.0.mel_scale.fb"
_HEADS = ("CTCHead", "RNNTHead")
_HEAD_NAMES = {
    "head.": "head.decoder_layers.0.",
    "prediction.embed.": "head.decoder.embed.",
    "prediction.lstm.": "head.decoder.lstm.",
    "joint.enc.": "head.joint.enc.",
    "joint.pred.": "head.joint.pred.",
    "joint.out.": "head.joint.joint_net.1.",
}


def plan(source: Source, tokenizer: Path | None) -> FamilyPlan:
    """The GGUF of a GigaAM checkpoint."""
    state, config = source.state, source.config.section("cfg")
    is_folder = config.has("model")
    if is_folder:
        config = config.section("model").section("cfg")
    config = Config(config.data, config.where, config.path)  # the root that `${...}` counts from
    prefix = "model." if is_folder else ""
    frontend, encoder = _frontend(config.section("preprocessor")), _encoder(config.section("encoder"))
    if encoder.n_mels != frontend.n_mels:
        raise ModelFileError(
            f"{config.where}: encoder.feat_in is {encoder.n_mels}, preprocessor.features {frontend.n_mels}"
        )
    head = _head(config, encoder)
    vocabulary = _vocabulary(source, config, tokenizer)
    vocabulary.check_count(head.n_vocab, config.where)
    tables = _tables(state, frontend, prefix, source.where)
    weights = {name: tensor for name, tensor in state.items() if not _ignored(name, prefix)}
    tensors = claim(
        weights, expected_tensors(encoder, head), lambda name: prefix + _name_in_file(name), source.where
    )
    release = _release(config, source, n_parameters(encoder, head))
    return FamilyPlan(
        architecture="gigaam",
        tensors=[*tables, *output_tensors(tensors, encoder, head, source.where)],
        fields={
            **frontend.metadata(),
            **encoder.metadata(),
            **head.metadata(),
            **vocabulary.metadata(),
            "gigaam.languages": Field("arr_str", list(LANGUAGES)),
            "gigaam.max_seconds": Field("f32", MAX_SECONDS),
        },
        release=release,
    )


def _frontend(config: Config) -> Frontend:
    config.fixed(mel_scale="htk", mel_norm=None)
    sample_rate = config.integer("sample_rate", 8000, 48000)
    center = config.flag("center", True)
    n_fft = config.integer("n_fft", 16, 4096, sample_rate // 40)
    return Frontend(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=config.integer("win_length", 16, n_fft, sample_rate // 40),
        hop_length=config.integer("hop_length", 1, n_fft, sample_rate // 100),
        n_mels=config.integer("features", 1, 512),
        center=center,
        pad_mode="reflect" if center else "none",  # torch.stft's default
        drop_last_frame=False,
        preemphasis=0.0,
        floor=1e-9,  # SpecScaler
        floor_mode="clamp",
        normalize="none",
    )


def _encoder(config: Config) -> Conformer:
    d_model = config.integer("d_model", 8, 1 << 14)
    encoder = Conformer(
        n_mels=config.integer("feat_in", 1, 512),
        n_layer=config.integer("n_layers", 1, 256),
        d_model=d_model,
        n_head=config.integer("n_heads", 1, 256, 16),
        d_ff=d_model * config.integer("ff_expansion_factor", 1, 64, 4),
        conv_kernel=config.integer("conv_kernel_size", 1, 255, 31),
        conv_norm=config.choice("conv_norm_type", ("batch_norm", "layer_norm"), "batch_norm"),
        use_bias=True,
        xscaling=False,
        attention=config.choice("self_attention_model", ("rotary", "rel_pos"), "rotary"),
        # RotaryPositionalEmbedding takes the number of positions for its base.
        rope_base=float(config.integer("pos_emb_max_len", 2, 1 << 20, 5000)),
        subsampling=config.choice("subsampling", ("conv1d", "conv2d"), "conv2d"),
        subsampling_factor=config.integer("subsampling_factor", 2, 64, 4),
        subsampling_kernel=config.integer("subs_kernel_size", 1, 63, 3),
        subsampling_channels=d_model,
    )
    encoder.check(f"{config.where}: {config.path}")
    return encoder


def _head(config: Config, encoder: Conformer) -> Head:
    head = config.section("head")
    target = head.text("_target_").rpartition(".")[2]
    if target not in _HEADS:
        raise UnsupportedModelError(
            f"{config.where}: 'head._target_' is {target!r:.60}, only {' or '.join(_HEADS)} is implemented"
        )
    if target == "CTCHead":
        head.equals("feat_in", encoder.d_model)
        return Head("ctc", head.integer("num_classes", 2, pieces.MAX_PIECES) - 1)
    decoder, joint = head.section("decoder"), head.section("joint")
    n_classes = decoder.integer("num_classes", 2, pieces.MAX_PIECES)
    pred_hidden = decoder.integer("pred_hidden", 1, 1 << 14)
    joint.equals("num_classes", n_classes)
    joint.equals("pred_hidden", pred_hidden)
    joint.equals("enc_hidden", encoder.d_model)
    return Head(
        "rnnt",
        n_classes - 1,
        max_symbols=config.section("decoding").integer("max_symbols_per_step", 1, 1000, 10),
        pred_layers=decoder.integer("pred_rnn_layers", 1, 16),
        pred_hidden=pred_hidden,
        joint_hidden=joint.integer("joint_hidden", 1, 1 << 14),
    )


def _vocabulary(source: Source, config: Config, tokenizer: Path | None) -> Pieces:
    """Characters in the configuration, or a SentencePiece model: the one given, or the one beside."""
    decoding = config.section("decoding")
    if tokenizer is None and not decoding.has("model_path") and decoding.has("vocabulary"):
        return pieces.characters(
            decoding.value("vocabulary"), f"{decoding.where}: '{decoding.path}.vocabulary'"
        )
    weights = source.found.files[0]
    beside = [weights.with_name(f"{weights.stem}_tokenizer.model"), weights.with_name("tokenizer.model")]
    places = [tokenizer] if tokenizer is not None else beside
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        names = " or ".join(str(place) for place in places)
        raise ModelFileError(
            f"{source.where}: its SentencePiece model is missing: expected {names}; "
            "put it there or give it with --tokenizer"
        )
    return pieces.read_sentencepiece(path)


def _tables(state: Checkpoint, frontend: Frontend, prefix: str, where: str) -> list[OutputTensor]:
    """Window and filterbank as stored: the released ones are rounded, recomputed ones would differ."""
    n_bins = frontend.n_fft // 2 + 1
    expected = {
        prefix + _WINDOW: (frontend.win_length,),
        prefix + _FILTERS: (n_bins, frontend.n_mels),
    }
    check_tensors({name: state[name] for name in expected if name in state}, expected, where)
    window, filters = (state[name] for name in expected)
    return frontend.tables(window.read, lambda: filters.read(ALL_ROWS).T)


def _ignored(name: str, prefix: str) -> bool:
    return name in (prefix + _WINDOW, prefix + _FILTERS) or name.endswith(COUNTER)


def _name_in_file(name: str) -> str:
    for ours, theirs in _HEAD_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _release(config: Config, source: Source, parameters: int) -> str | None:
    """The registry name of a published variant: named so by its configuration or file, and of its size."""
    named = config.text("model_name") if config.has("model_name") else ""
    for text in (named, source.found.label):
        short = text.lower().rpartition("/")[2].removesuffix(".ckpt").removeprefix("gigaam-")
        row = registry.published("gigaam-" + short.replace("_", "-"), parameters)
        if row is not None:
            return row.name
    return None
