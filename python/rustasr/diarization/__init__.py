"""Speaker diarization: who speaks when, and which words are whose.

`find_turns` finds the turns of a recording, `with_speakers` gives a transcription's words to them, and
`diarize` does both. Turns travel as RTTM (`to_rttm`, `read_rttm`).
"""

from __future__ import annotations

from rustasr.diarization.channels import ChannelOptions
from rustasr.diarization.encoder import SpeakerEncoder
from rustasr.diarization.pipeline import Diarization, DiarizationOptions, find_turns
from rustasr.diarization.rttm import read_rttm, to_rttm
from rustasr.diarization.transcript import diarize

__all__ = [
    "ChannelOptions",
    "Diarization",
    "DiarizationOptions",
    "SpeakerEncoder",
    "diarize",
    "find_turns",
    "read_rttm",
    "to_rttm",
]
