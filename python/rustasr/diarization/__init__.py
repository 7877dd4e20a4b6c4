"""Speaker diarization: who speaks when, and which words are whose.

`find_turns` finds the turns of a recording, `with_speakers` gives a transcription's words to them, and
`diarize` does both. Turns travel as RTTM (`to_rttm`, `read_rttm`).
"""

from __future__ import annotations

from rustasr.diarization.channels import ChannelOptions
from rustasr.diarization.encoder import NetworkEncoder, SpeakerEncoder, load_speaker_encoder
from rustasr.diarization.overlap import (
    NetworkOverlapDetector,
    OverlapDetector,
    OverlapOptions,
    load_overlap_detector,
)
from rustasr.diarization.pipeline import Diarization, DiarizationOptions, find_turns
from rustasr.diarization.rttm import read_rttm, to_rttm
from rustasr.diarization.transcript import diarize

__all__ = [
    "ChannelOptions",
    "Diarization",
    "DiarizationOptions",
    "NetworkEncoder",
    "NetworkOverlapDetector",
    "OverlapDetector",
    "OverlapOptions",
    "SpeakerEncoder",
    "diarize",
    "find_turns",
    "load_overlap_detector",
    "load_speaker_encoder",
    "read_rttm",
    "to_rttm",
]
