"""What scripts/setup and scripts/test share: the virtual environment, a compiler, running commands.

Only the standard library: this runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("RUSTASR_VENV", ROOT / ".venv")).absolute()
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")


class CheckError(Exception):
    """A check found something; its output is already on the screen."""


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Run a command in the project's root; a failure ends the part."""
    words = [str(word) for word in command]
    shown = " ".join(words)
    print("+ " + (shown if len(shown) < 300 else shown[:300] + " ..."), flush=True)
    code = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}).returncode
    if code != 0:
        raise CheckError(f"{Path(words[0]).name} ended with {code}")


def output(*command: str | Path) -> str:
    return subprocess.run(
        [str(w) for w in command], check=True, capture_output=True, text=True
    ).stdout.strip()


def tool(name: str) -> Path:
    """A program of the virtual environment."""
    return BIN / (name + (".exe" if os.name == "nt" else ""))


def apt_install(*packages: str) -> bool:
    """Install Debian packages where this user may; False elsewhere."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt_get(*arguments: str) -> int:
        return subprocess.run(["apt-get", "-qq", *arguments], env=environment, capture_output=True).returncode

    apt_get("update")
    return apt_get("install", "-y", "--no-install-recommends", *packages) == 0


def enter_virtual_environment(script: str) -> None:
    """Make the virtual environment if need be, and run `script` once more with its Python."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if sys.version_info < (3, 10):  # noqa: UP036 (this interpreter is the user's, not the project's)
        sys.exit(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; try pythonX.Y {script}")
    if not tool("python").exists():
        say(f"virtual environment {VENV}")
        command = [sys.executable, "-m", "venv", str(VENV)]
        if subprocess.run(command, check=False).returncode != 0:
            if not apt_install("python3-venv"):
                sys.exit("python -m venv failed (on Debian: apt install python3-venv)")
            subprocess.run([*command, "--clear"], check=True)
    os.execv(tool("python"), [str(tool("python")), script, *sys.argv[1:]])


def check_machine() -> None:
    """A compiler and Python's headers."""
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if os.name == "nt":
        return
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if not any(map(shutil.which, compilers)) and not apt_install("g++"):
        sys.exit("no C++ compiler was found (on Debian: apt install g++)")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists() and not apt_install("python3-dev"):
        sys.exit("Python.h was not found (on Debian: apt install python3-dev)")
