"""`rustasr devices`: what models can run on."""

from __future__ import annotations

import click

from rustasr.cli.tables import print_table, size


@click.command("devices")
def command() -> None:
    """List what models can run on: the names that --device takes.

    \b
    Examples:
      rustasr devices
      rustasr transcribe talk.mp3 --device cpu
    """
    from rustasr import _core

    rows = [
        (
            device.name.lower(),
            device.type,
            device.description,
            size(device.memory_free),
            size(device.memory_total),
        )
        for device in _core.devices()
    ]
    print_table(["device", "type", "description", ">free", ">memory"], rows)
    for device in _core.devices():
        on = [
            name if value == "1" else f"{name}={value}"
            for name, value in device.features.items()
            if value != "0"
        ]
        if on:
            click.echo(f"{device.name.lower()} features: {' '.join(on)}")


__all__ = ["command"]
