"""Builds and runs `go_storm/`: a stock grpc-go client that makes many unary calls at once over one
connection.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "go_storm"


def build(folder: Path) -> Path:
    """The program. Skips where Go or its modules cannot be had: an outsider's language is not what
    the project needs.
    """
    if shutil.which("go") is None:
        pytest.skip("go is not installed, so no grpc-go client was tried")
    fetched = subprocess.run(
        ["go", "mod", "download"],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"grpc-go cannot be fetched: {fetched.stderr.strip()[:200]}")
    binary = folder / "go_storm"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=PROGRAM, check=True, timeout=600
    )
    return binary


def start(
    binary: Path, socket: str, concurrent: int, calls: int, message_bytes: int, head: bytes
) -> subprocess.Popen[str]:
    """`head`: a serialised SignRequest without its item."""
    command = [str(binary), socket, str(concurrent), str(calls), str(message_bytes), head.hex()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def heard(storm: subprocess.Popen[str]) -> dict[str, int]:
    """How often each outcome was heard: SIGNED, a reason of ours, or `bare` and gRPC's own
    words.
    """
    told, _ = storm.communicate(timeout=120)
    assert storm.returncode == 0
    outcomes: dict[str, int] = json.loads(told)
    return outcomes
