"""Wheels of a lock, for the Python of the base image, downloaded once.

The host's pip downloads: its index, mirror and certificates are the host's affair and none of them
reaches the image. Hashes are checked here and once more inside the build stage, where pip has no
network.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from capsign_images import catalogue


class WheelsError(Exception):
    """What pip could not download, in pip's words."""


def fetch(lock: Path, cache: Path) -> Path:
    """The folder with the wheels of that lock; nothing else is in it."""
    folder = cache / "wheels" / _key(lock)
    if folder.is_dir():
        return folder
    # a download that broke off leaves this, and the next one begins anew
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    done = subprocess.run(_command(lock, part), capture_output=True, text=True, check=False)
    if done.returncode:
        raise WheelsError(f"pip cannot download what {lock.name} names.\n{done.stderr[-2000:]}")
    part.rename(folder)
    return folder


def platforms(machine: str, glibc: int = catalogue.GLIBC) -> list[str]:
    """The platform tags that run on the base image, best first (PEP 600)."""
    return [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 16, -1)] + [
        f"manylinux2014_{machine}"
    ]


def _command(lock: Path, into: Path) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
    ]
    command += [
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={catalogue.PYTHON}",
    ]
    command += [
        f"--abi={abi}" for abi in (f"cp{catalogue.PYTHON.replace('.', '')}", "abi3", "none")
    ]
    command += [f"--platform={tag}" for tag in platforms(platform.machine())]
    return [*command, f"--dest={into}", f"--requirement={lock}"]


def _key(lock: Path) -> str:
    facts = f"{catalogue.PYTHON} {catalogue.GLIBC} {platform.machine()}\n".encode()
    return f"{lock.stem}-{hashlib.sha256(facts + lock.read_bytes()).hexdigest()[:16]}"
