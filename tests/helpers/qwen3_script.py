"""A stand-in for the compiled Qwen3-ASR: it says what a script says, so that policy needs no network.

The vocabulary is the 256 bytes and the eight added tokens: a text is its UTF-8 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rustasr
from rustasr.convert.whisper_tokenizer import byte_to_char
from rustasr.families.qwen3_text import QwenTokenizer

ADDED = {
    "endoftext": 256,
    "im_start": 257,
    "im_end": 258,
    "audio_start": 259,
    "audio_end": 260,
    "audio_pad": 261,
    "asr_text": 262,
    "timestamp": 263,
}


def metadata(task: str = "transcribe") -> dict[str, Any]:
    """What a GGUF of this vocabulary would say."""
    vocab = {byte_to_char()[byte]: byte for byte in range(256)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    document = {
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    names = ["English", "German", "Chinese", "Swedish"] if task == "transcribe" else ["English", "Chinese"]
    return {
        "tokenizer.huggingface.json": json.dumps(document),
        "qwen3_asr.task": task,
        "qwen3_asr.languages": names,
        "qwen3_asr.min_samples": 8000,
        "qwen3_asr.segment_ms": 80,
        "qwen3_asr.n_classes": 500,
        **{f"qwen3_asr.token.{name}": token for name, token in ADDED.items()},
    }


def tokenizer() -> QwenTokenizer:
    return QwenTokenizer(metadata())


def tokens_of(answer: str) -> list[int]:
    """Token ids of an answer as the model would write it."""
    before, tag, text = answer.partition("<asr_text>")
    return [*before.encode(), *([ADDED["asr_text"]] if tag else []), *text.encode()]


@dataclass
class Call:
    """One window of one decoding: its samples, its prompt, and the options."""

    samples: np.ndarray
    prompt: Sequence[int]
    options: Any


Script = Callable[[Call], "str | tuple[str, str]"]
"""What is said in a window: the answer, or (answer, how it finished)."""


@dataclass
class ScriptSession:
    """A `_core.Session`. Frames are single numbers: which clip they belong to. `opening` is the log
    probability of what comes before a text.
    """

    script: Script
    opening: float = 0.0
    calls: list[list[Call]] = field(default_factory=list)
    clips: list[np.ndarray] = field(default_factory=list)
    cancelled: bool = False

    def features(self, pcm: np.ndarray, pad_left: bool = True, pad_right: bool = True) -> np.ndarray:
        assert pcm.dtype == np.float32 and pcm.flags.c_contiguous
        self.clips.append(pcm)
        return np.full((len(pcm) // 160, 1), len(self.clips) - 1, np.float32)

    def encode(self, features: Sequence[np.ndarray]) -> Any:
        clips = [self.clips[int(frames[0, 0])] for frames in features]
        return SimpleNamespace(clips=clips, lengths=[max(1, len(frames) // 8) for frames in features])

    def decode(
        self, encoded: Any, windows: Sequence[int], prompts: Any, options: Any, on_token: Any = None
    ) -> list[Any]:
        round_ = [Call(encoded.clips[w], prompts[i], options) for i, w in enumerate(windows)]
        self.calls.append(round_)
        results = []
        for i, call in enumerate(round_):
            assert list(call.prompt).count(ADDED["audio_pad"]) == encoded.lengths[windows[i]]
            said = self.script(call)
            answer, finish = said if isinstance(said, tuple) else (said, "stop")
            tokens = tokens_of(answer)[: options.max_tokens]
            finish = "length" if len(tokens) == options.max_tokens else finish
            for token in tokens if on_token else ():
                on_token(i, token, -0.1)
            n_opening = tokens.index(ADDED["asr_text"]) + 1 if ADDED["asr_text"] in tokens else 0
            logprobs = [self.opening, *[0.0] * n_opening][:n_opening] + [-0.1] * (len(tokens) - n_opening)
            results.append(SimpleNamespace(tokens=tokens, logprobs=logprobs, finish=finish))
        return results

    def classify(self, encoded: Any, windows: Any, prompts: Any, positions: Any) -> list[np.ndarray]:
        """Slot n says class n + 1 (its script may differ)."""
        classes = self.script(Call(encoded.clips[0], prompts[0], positions[0]))
        rows = np.zeros((len(positions[0]), 500), np.float32)
        rows[np.arange(len(rows)), list(classes)[: len(rows)]] = 1  # type: ignore[call-overload]
        return [rows]

    def cancel(self) -> None:
        self.cancelled = True

    def forget_cancel(self) -> None:
        self.cancelled = False


def core_model(script: Any, task: str = "transcribe", opening: float = 0.0) -> Any:
    """A `_core.Model`; `sessions` are those it has given, `opening` is theirs."""
    sessions: list[ScriptSession] = []

    def session() -> ScriptSession:
        sessions.append(ScriptSession(script, opening))
        return sessions[-1]

    return SimpleNamespace(
        architecture="qwen3_asr",
        metadata=metadata(task),
        device="CPU",
        threads=1,
        session=session,
        sessions=sessions,
    )


@pytest.fixture
def no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of `rustasr._core` that are used around a session."""
    fake = SimpleNamespace(
        DecodeOptions=lambda **options: SimpleNamespace(**options),
        normalize_log_mel=lambda raw, peak: raw,
    )
    monkeypatch.setitem(rustasr.__dict__, "_core", fake)
