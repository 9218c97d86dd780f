"""Builds and runs `go_sumdb/`: what Go's checksum database makes of a log in a directory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "go_sumdb"


def build(folder: Path) -> Path:
    """The program. Skips where Go or its module cannot be had: an outsider's language is not
    something that the project needs.
    """
    if shutil.which("go") is None:
        pytest.skip("go is not installed, so Go's verifier was not asked")
    fetched = subprocess.run(
        ["go", "mod", "download"],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"golang.org/x/mod cannot be fetched: {fetched.stderr.strip()[:200]}")
    binary = folder / "go_sumdb"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=PROGRAM, check=True, timeout=240
    )
    return binary


def run(binary: Path, directory: Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """What it says of the log in a directory, or at a URL; its claims are in the directory."""
    where = [url, directory] if url else [directory]
    return subprocess.run(
        [binary, *where], capture_output=True, text=True, timeout=120, check=False
    )
