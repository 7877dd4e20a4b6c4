"""The model that a command's options name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rustasr.cli.bars import Bar
from rustasr.errors import UnsupportedModelError

if TYPE_CHECKING:
    from rustasr.model import AsrModel


def load(values: dict[str, Any], progress: bool | None) -> AsrModel:
    """The model that the options name, fetched and converted first where that is needed."""
    from rustasr.model import load_model

    name, weights = values["model"], values["weights"]
    if values["gguf"] is not None:
        if name is not None:
            raise click.UsageError("--model and --gguf exclude each other")
        name, weights = values["gguf"], "gguf"
    with Bar("preparing the model", progress) as bar:
        model = load_model(
            name,
            device=values["device"],
            threads=values["threads"],
            weights=weights,
            quant=values["quant"],
            progress=bar.file,
        )
    wanted = values["model_type"]
    if wanted not in ("auto", model.model_type):
        raise UnsupportedModelError(f"{model.name}: expected a {wanted} model, found {model.model_type}")
    return model


__all__ = ["load"]
