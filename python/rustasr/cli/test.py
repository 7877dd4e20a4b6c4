"""`rustasr test`: a report on this installation, and whether it computes."""

from __future__ import annotations

import importlib.util
import os
import platform
import time

import click

from rustasr.cli import EXIT_MODEL
from rustasr.cli.tables import print_table, size
from rustasr.errors import RustAsrError

# module, what for, extra that brings it
OPTIONAL = (
    ("av", "m4a, mp4, webm, mkv and other media files", "media"),
    ("jiwer", "WER and CER in `rustasr benchmark`", "bench"),
)


@click.command("test")
@click.option("--device", "-d", help="Check this device only; default: all of them.")
def command(device: str | None) -> None:
    """Report on this installation and check that it computes.

    Prints versions, the processor's features and the kernels chosen for them, devices with their memory,
    models, and what is missing with the way to get it. On every device a tiny model is run and compared
    with NumPy. The exit code is 3 when that fails.

    \b
    Examples:
      rustasr test
      rustasr test --device cpu
    """
    from rustasr import _core

    _print_versions()
    devices = _core.devices()
    names = [device.lower()] if device else [d.name.lower() for d in devices if d.type != "accel"]
    failed = False
    rows = []
    described = {d.name.lower(): d for d in devices}
    for name in names:
        outcome, good = _check(name)
        failed |= not good
        known = described.get(name)
        memory = "-" if known is None else f"{size(known.memory_free)} of {size(known.memory_total)} free"
        rows.append((name, "" if known is None else known.description, memory, outcome))
    print_table(["device", "description", "memory", "self-check"], rows)
    _print_models()
    _print_missing()
    if failed:
        click.get_current_context().exit(EXIT_MODEL)


def _print_versions() -> None:
    import rustasr
    from rustasr import _core
    from rustasr.system import cpu_name

    core = dict(_core.version())
    lines = [
        ("rustasr", rustasr.__version__),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("platform", platform.platform()),
        ("processor", f"{cpu_name()}, {os.cpu_count()} logical"),
        ("ggml", core.pop("ggml", "unknown")),
    ]
    core.pop("rustasr", None)
    lines += [(f"{name} kernel", form) for name, form in core.items()]
    for found in _core.devices():
        on = [
            key if value == "1" else f"{key}={value}" for key, value in found.features.items() if value != "0"
        ]
        if found.type == "cpu" and on:
            lines.append(("cpu features", " ".join(on)))
    for name, value in lines:
        click.echo(f"{name:<18}{value}")


def _check(name: str) -> tuple[str, bool]:
    from rustasr.selfcheck import check_device

    start = time.perf_counter()
    try:
        difference = check_device(name)
    except RustAsrError as error:
        return f"FAILED: {error}", False
    return f"good (difference {difference:.1e}, {(time.perf_counter() - start) * 1000:.0f} ms)", True


def _print_models() -> None:
    from rustasr import hub

    local = hub.list_local()
    names = ", ".join(f"{model.name} ({model.qtype})" for model in local)
    click.echo(f"models in {hub.cache_root()}: {names or 'none; rustasr models pull whisper-base'}")


def _print_missing() -> None:
    for module, purpose, extra in OPTIONAL:
        if importlib.util.find_spec(module) is None:
            click.echo(f'not installed: {module}, for {purpose}: pip install "rustasr[{extra}]"')


__all__ = ["command"]
