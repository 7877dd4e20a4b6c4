"""The compiled core: about a dozen coarse calls on arrays. Raises the classes of `rustasr.errors`.

Arrays go in as C-contiguous float32 and are not converted (anything else is a TypeError); every heavy call
releases the GIL. A Model may be shared between threads; a Session belongs to one thread.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

class DeviceInfo:
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def type(self) -> str:
        """cpu, gpu, igpu or accel."""
    @property
    def memory_free(self) -> int: ...
    @property
    def memory_total(self) -> int: ...
    @property
    def features(self) -> dict[str, str]: ...

def load_backends(directory: str) -> None:
    """Load the backend libraries that lie in `directory`; nothing to do in a build that links them."""

def devices() -> list[DeviceInfo]: ...
def version() -> dict[str, str]:
    """Versions (rustasr, ggml) and the chosen forms of the CPU kernels (matmul, attention)."""

class TensorInfo:
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str:
        """f32, f16, bf16, q8_0, q6_k, q5_k, q4_k or q4_0."""
    @property
    def shape(self) -> tuple[int, ...]:
        """The fastest dimension first, as in the file."""
    @property
    def offset(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class GgufFile:
    """A fully checked GGUF file. Raises ModelFileError that names key, tensor or byte."""

    def __init__(self, path: str) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def metadata(self) -> dict[str, object]: ...
    @property
    def tensors(self) -> list[TensorInfo]: ...
    def read(self, name: str) -> NDArray[np.generic]:
        """float32 or float16 values, slowest dimension first; other types as uint8 rows."""

def quantize_rows(data: NDArray[np.float32], qtype: str) -> NDArray[np.uint8]:
    """[n, k] → [n, bytes of a row]. k must be a multiple of the type's block."""

def dequantize_rows(data: NDArray[np.uint8], qtype: str, k: int) -> NDArray[np.float32]: ...
def normalize_log_mel(raw: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Whisper's range and scale: (max(raw, peak − 8) + 4)/4, [T, n_mels]."""

def normalize_per_feature(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """NeMo's per_feature, [T, n_mels]: each mel over the frames, (x − mean)/(σ + 1e-5) with unbiased σ."""

def subtract_mean(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """[T, n_mels]: each mel less its mean over the frames."""

class DecodeOptions:
    def __init__(
        self,
        *,
        temperature: float = 0.0,
        beam_size: int = 0,
        patience: float = 1.0,
        early_stopping: bool = True,
        length_penalty: float | None = None,
        best_of: int = 1,
        max_tokens: int = 224,
        seed: int = 0,
        timestamps: bool = True,
        max_initial_timestamp: float = 1.0,
        suppress: Sequence[int] = ...,
        suppress_blank: bool = True,
        loop_tokens: int = 0,
        loop_repeats: int = 4,
    ) -> None:
        """beam_size 0 or 1 is greedy; best_of counts samples when temperature > 0. Beams end when
        patience * beam_size texts have ended, or, without early_stopping, when none that goes on scores
        better than the worst of these. A window stops when its
        text ends in one pattern, at least `loop_repeats` times and over at least `loop_tokens` tokens
        (0: never). Timestamps, suppress_blank and max_initial_timestamp are Whisper's. Raises OptionError."""

class Decoded:
    @property
    def tokens(self) -> list[int]:
        """What was sampled, without the stop token."""
    @property
    def logprobs(self) -> list[float]:
        """One per token, then that of the stop token if it was reached."""
    @property
    def finish(self) -> str:
        """Why it ended: "stop" (a stop token), "length", "loop", or "caller" (`on_token` said so)."""
    @property
    def sum_logprob(self) -> float: ...
    @property
    def avg_logprob(self) -> float: ...
    @property
    def no_speech_prob(self) -> float: ...
    @property
    def score(self) -> float:
        """What ranked it among its rivals."""

class TokenAlignment:
    @property
    def probabilities(self) -> list[float]:
        """Of each text token, among text tokens."""
    @property
    def times(self) -> list[float]:
        """Seconds in the window at which each text token, then end-of-text, starts."""

class SearchOptions:
    def __init__(
        self,
        *,
        beam_size: int = 1,
        max_symbols: int = 0,
        suppress: Sequence[int] = (),
        hotwords: Sequence[Sequence[int]] = (),
        hotword_boost: float = 1.5,
    ) -> None:
        """How a CTC or transducer head is searched; out of range is an OptionError.

        `beam_size` 1 is greedy. `max_symbols` tokens on one frame at most, 0: as the model says. Ids in
        `suppress` are never emitted. A beam search adds `hotword_boost` to the log-probability for every
        token of a hotword (a token sequence) that it finds.
        """

class Recognized:
    """The tokens of one utterance."""

    @property
    def tokens(self) -> list[int]: ...
    @property
    def frames(self) -> list[int]:
        """Encoder frame at which each token was emitted."""

    @property
    def durations(self) -> list[int]:
        """Frames that each token lasts: what a TDT head says (it may be 0), 1 elsewhere."""

    @property
    def logprobs(self) -> list[float]:
        """Log-probability of each token, among tokens and blank."""

    @property
    def score(self) -> float:
        """Log-probability of the whole; of a beam search with the boosts of the hotwords."""

class Encoded:
    """The encoder's result for a batch of windows; it stays on the device."""

    @property
    def batch(self) -> int: ...
    @property
    def lengths(self) -> list[int]:
        """Encoder frames of each window."""

class Session:
    @property
    def threads(self) -> int: ...
    def cancel(self) -> None:
        """From any thread: the running call, or the next one, raises Cancelled."""
    def forget_cancel(self) -> None:
        """Forget a `cancel` that came when nothing was running."""

    def features(
        self, pcm: NDArray[np.float32], pad_left: bool = True, pad_right: bool = True
    ) -> NDArray[np.float32]:
        """[n_samples] at the model's rate → raw log-mel [T, n_mels].

        Without padding on a side the first (last) frame lies inside the samples, so that blocks that
        overlap by n_fft − hop samples give the very frames of the whole.
        """

    def encode(self, features: Sequence[NDArray[np.float32]]) -> Encoded:
        """Normalised windows [T, n_mels]; Whisper's are followed by zeros up to 3000 frames, Qwen3-ASR's are
        clips of any length."""

    def encode_taps(
        self, features: Sequence[NDArray[np.float32]], names: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Intermediates [T, d]: "conv" (Whisper) or "subsampling", "blocks.0" …, "output"; with CTC "logits"
        (log-probabilities), with a transducer "projected"; the frames of the windows follow each
        other. Qwen3-ASR's "conv", "blocks.N" and "output" (projected) have the vectors that count
        only; "conv3" is the last convolution's output for all chunks, [chunk · time · mel, channel]."""

    def detect_language(self, encoded: Encoded) -> NDArray[np.float32]:
        """Probabilities [batch, n_languages]."""

    def decode(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        options: DecodeOptions,
        on_token: Callable[[int, int, float], bool | None] | None = None,
    ) -> list[Decoded]:
        """One result per window; prompts[i] is all that stands before the text of windows[i].

        In a prompt of Qwen3-ASR the audio token stands once for every vector of the clip
        (`Encoded.lengths`). `on_token(i, token, logprob)` hears of every token of windows[i] as it is
        chosen, stop tokens too; False ends that window. Only with a single row per window.
        """

    def classify(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
    ) -> list[NDArray[np.float32]]:
        """Of an aligner: logits [len(positions[i]), n_classes] at these (ascending) places of prompts[i]."""

    def recognize(
        self, encoded: Encoded, utterances: Sequence[int], options: SearchOptions
    ) -> list[Recognized]:
        """One result per utterance, by its place in the batch; with a CTC or transducer head."""

    def align(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        text: Sequence[Sequence[int]],
        prefix: Sequence[Sequence[int]],
        n_frames: Sequence[int],
    ) -> list[TokenAlignment]:
        """When the text tokens were said. `prefix` stands before <|notimestamps|>; n_frames: mel frames."""

    def decode_taps(
        self, encoded: Encoded, window: int, tokens: Sequence[int], names: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Intermediates on given tokens: "blocks.0" …, "logits" [T, n_vocab]; Whisper's "ln" and
        "cross_qk.LAYER.HEAD"; Qwen3-ASR's "embeddings", with the audio in place. Of a transducer:
        "prediction" [1 + len(tokens), joint], the prediction network before and after each token, projected;
        "joint" [T, n_classes], logits of every frame before any token."""

    def speech_probabilities(self, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of a detector of speech: [n_samples] at 16 kHz → one probability for every 512 samples, the last
        frame filled with zeros. The next call continues the recording; one that raises leaves no trace."""

    def reset(self) -> None:
        """Of a detector of speech: a new recording begins."""

    def speaker_embeddings(self, pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Of a speaker encoder: vectors of length 1, [len(pieces), n_dims], for pieces of samples [n]."""

    def speaker_classes(self, windows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Of a segmentation network: logarithms of the probabilities of its classes, [len(windows) * frames,
        n_classes], for windows of as many samples as it wants."""

class Model:
    def __init__(self, path: str, device: str = "auto", threads: int = 0) -> None: ...
    @property
    def architecture(self) -> str: ...
    @property
    def metadata(self) -> dict[str, object]: ...
    @property
    def device(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def nbytes(self) -> int:
        """Bytes of weights."""
    @property
    def threads(self) -> int: ...
    def session(self) -> Session: ...
