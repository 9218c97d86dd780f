"""How kubectl reads a file of manifests: its own libraries, in a Go program that answers as long as
it is asked.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "go_manifests"


class KubectlReader:
    def __init__(self, folder: Path) -> None:
        """Skips where Go or the modules cannot be had: an outsider's language is not something that
        the project needs.
        """
        if shutil.which("go") is None:
            pytest.skip("go is not installed, so kubectl's libraries were not asked")
        fetched = subprocess.run(
            ["go", "mod", "download"],
            cwd=PROGRAM,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if fetched.returncode:
            pytest.skip(f"k8s.io/apimachinery cannot be fetched: {fetched.stderr.strip()[:200]}")
        binary = folder / "go_manifests"
        subprocess.run(
            ["go", "build", "-mod=readonly", "-o", binary, "."],
            cwd=PROGRAM,
            check=True,
            timeout=240,
        )
        self._process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self._process.communicate()

    def read(self, data: bytes) -> list[Any] | str:
        """The objects in a file, or why kubectl refuses it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(data) + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["error"] if "error" in answer else answer["objects"]


def plain(value: Any) -> Any:
    """Values that mean the same to Go are the same here: its numbers are int64 or float64, and 1.0
    is written as 1.
    """
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    if isinstance(value, list):
        return [plain(held) for held in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = float(value) if not -(2**63) <= value < 2**63 else value
    if isinstance(number, float) and math.isfinite(number) and number.is_integer():
        return ("number", int(Decimal(repr(number))))
    return ("number", number)
