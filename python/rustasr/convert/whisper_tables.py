"""Whisper's published facts: languages in id order, and each size's dimensions and alignment heads.

Source: openai-whisper 20250625, `tokenizer.py` (LANGUAGES, in insertion order) and `__init__.py`
(_ALIGNMENT_HEADS, decoded); layer and head counts of the checkpoints themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Heads = tuple[tuple[int, int], ...]

LANGUAGES = tuple(
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs "
    "ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk "
    "br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu "
    "am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue".split()
)


@dataclass(frozen=True)
class Release:
    """A published Whisper: what identifies it and its (decoder layer, head) pairs for word times."""

    name: str
    n_audio_state: int
    n_audio_layer: int
    n_text_layer: int
    n_mels: int
    n_vocab: int
    alignment_heads: Heads


def _heads(text: str) -> Heads:
    """ "1.0 2.5" -> ((1, 0), (2, 5))"""
    pairs = (item.split(".") for item in text.split())
    return tuple((int(layer), int(head)) for layer, head in pairs)


RELEASES = (
    Release("whisper-tiny.en", 384, 4, 4, 80, 51864, _heads("1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4")),
    Release("whisper-tiny", 384, 4, 4, 80, 51865, _heads("2.2 3.0 3.2 3.3 3.4 3.5")),
    Release("whisper-base.en", 512, 6, 6, 80, 51864, _heads("3.3 4.7 5.1 5.5 5.7")),
    Release("whisper-base", 512, 6, 6, 80, 51865, _heads("3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6")),
    Release("whisper-small.en", 768, 12, 12, 80, 51864, _heads(
        "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4")),
    Release("whisper-small", 768, 12, 12, 80, 51865, _heads("5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5")),
    Release("whisper-medium.en", 1024, 24, 24, 80, 51864, _heads(
        "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12")),
    Release("whisper-medium", 1024, 24, 24, 80, 51865, _heads("13.15 15.4 15.15 16.1 20.0 23.4")),
    Release("whisper-large-v1", 1280, 32, 32, 80, 51865, _heads(
        "9.19 11.2 11.4 11.17 22.7 22.11 22.17 23.2 23.15")),
    Release("whisper-large-v2", 1280, 32, 32, 80, 51865, _heads(
        "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 "
        "23.7 23.13 25.5 26.1 26.12 27.15")),
    Release("whisper-large-v3", 1280, 32, 32, 128, 51866, _heads(
        "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6")),
    Release("whisper-large-v3-turbo", 1280, 32, 4, 128, 51866, _heads("2.4 2.11 3.3 3.6 3.11 3.14")),
)  # fmt: skip


def candidates(
    n_audio_state: int, n_audio_layer: int, n_text_layer: int, n_mels: int, n_vocab: int
) -> Iterator[Release]:
    """The releases with these dimensions: none, one, or two (large-v1 and large-v2 differ in nothing)."""
    wanted = (n_audio_state, n_audio_layer, n_text_layer, n_mels, n_vocab)
    for row in RELEASES:
        if wanted == (row.n_audio_state, row.n_audio_layer, row.n_text_layer, row.n_mels, row.n_vocab):
            yield row


def last_half_heads(n_text_layer: int, n_text_head: int) -> Heads:
    """All heads of the last half of the decoder: openai-whisper's choice for an unknown model."""
    return tuple(
        (layer, head) for layer in range(n_text_layer // 2, n_text_layer) for head in range(n_text_head)
    )
