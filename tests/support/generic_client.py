"""Runs `node_client/`: a gRPC client in another language that knows nothing but `proto/`. Works
against any agent's socket.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/support/node_client/client.js"


def install(config: pytest.Config) -> Path:
    """A folder with the pinned packages, made once and kept in pytest's cache. Skips where Node is
    absent: an outsider's language is not something that the project needs.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(
                f"{program} is not installed, so no client in another language was tried: "
                f"apt-get install nodejs npm"
            )
    manifest = PROGRAM.with_name("package.json")
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    assert config.cache is not None
    folder = config.cache.mkdir(f"node-client-{digest}")
    done = folder / "installed"
    with (folder / "lock").open("w") as lock:  # another worker may be about it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(manifest, folder)
            done.touch()
    return folder


def _install(manifest: Path, folder: Path) -> None:
    shutil.copy(manifest, folder)
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    result = subprocess.run(
        ["npm", "install", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, f"npm could not install what package.json pins:\n{result.stderr}"


def run(
    folder: Path,
    socket: Path,
    purpose: str,
    algorithm: str,
    message: bytes = b"",
    digest: bytes = b"",
) -> dict:
    """What the program printed; see `client.js`. `algorithm` is the enum's name, for example
    ALGORITHM_ES256.
    """
    arguments = [
        "node",
        str(PROGRAM),
        str(ROOT / "proto"),
        str(socket),
        purpose,
        algorithm,
        message.decode(),
        digest.hex(),
    ]
    result = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
