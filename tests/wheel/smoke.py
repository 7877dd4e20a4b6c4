"""What a user of the wheel meets, run by a clean environment's Python in a folder without the sources.

    python -I smoke.py rustasr-X.whl        (jfk.flac lies beside this file)

Prints one line per check; the first failure ends the run with a traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = Path(sys.executable).parent


def cli(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the installed `rustasr`, away from the sources."""
    program = SCRIPTS / ("rustasr.exe" if os.name == "nt" else "rustasr")
    command = [str(program), *arguments]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=timeout, check=False)


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)
    print(f"ok: {what}", flush=True)


def check_contents(wheel: Path) -> None:
    """Our package, its libraries and licences; nothing of ggml's headers or CMake files."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    expect(
        tops == {"rustasr", next(t for t in tops if t.endswith(".dist-info"))}, f"top folders {sorted(tops)}"
    )
    for text in ("LICENSE-MIT", "LICENSE-APACHE", "NOTICE", "LICENSE.ggml", "LICENSE.pybind11"):
        expect(any(name.endswith("/" + text) for name in names), f"the wheel carries {text}")
    expect(not any(name.endswith((".h", ".cmake", ".a", ".pc")) for name in names), "no headers, no archives")
    variants = [name for name in names if "ggml-cpu" in name]
    expect(len(variants) >= 3, f"{len(variants)} CPU variants")


def check_variant(package: Path) -> None:
    """ggml chose one CPU variant, out of the package's folder."""
    from rustasr import _core

    devices = _core.devices()
    expect(any(device.type == "cpu" for device in devices), f"devices {[device.name for device in devices]}")
    maps = Path("/proc/self/maps")
    if maps.exists():
        libraries = {Path(line.split()[-1]) for line in maps.read_text().splitlines() if "libggml" in line}
        expect({path.parent for path in libraries} == {package}, f"ggml is loaded from {package} only")
        chosen = [path.name for path in libraries if "ggml-cpu" in path.name]
        expect(len(chosen) == 1, f"the chosen variant is {chosen}")


def check_cli() -> None:
    done = cli("--version")
    expect(done.returncode == 0, f"rustasr --version: {done.stdout.strip()}{done.stderr.strip()}")
    for command in ("devices", "test"):
        done = cli(command)
        expect(done.returncode == 0, f"rustasr {command}\n{done.stdout}{done.stderr}")
        expect("load_backend" not in done.stderr, f"rustasr {command}: ggml is quiet")


def check_transcription() -> None:
    """The two-command promise: the default model, fetched if need be, and a sentence that everybody knows."""
    done = cli("transcribe", "jfk.flac", "--format", "json", "--timestamps", "word")
    if done.returncode == 3 and not os.environ.get("RUSTASR_REQUIRE_MODEL"):
        print(f"skip: no model here and none could be fetched: {done.stderr.strip().splitlines()[-1]}")
        return
    expect(done.returncode == 0, f"rustasr transcribe jfk.flac {done.stderr if done.returncode else ''}")
    text = json.loads(done.stdout)["text"]
    expect("ask not what your country can do for you" in text.lower(), f"text: {text}")


def main() -> None:
    import rustasr

    package = Path(rustasr.__file__).resolve().parent
    expect(package.is_relative_to(Path(sys.prefix).resolve()), f"imported from {package}")
    check_contents(Path(sys.argv[1]))
    check_variant(package)
    check_cli()
    check_transcription()


if __name__ == "__main__":
    main()
