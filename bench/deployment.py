"""A deployment to measure: what `capsign dev up` starts, and what its processes cost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Cost:
    """CPU seconds so far, by role."""

    agent: float
    adapter: float


class Deployment:
    """Started when it is first needed: the raw cells need none."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._directory = directory / "dev"
        self._workers = workers
        self._up = False

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `capsign dev up -o json` printed."""
        command = [sys.executable, "-m", "capsign_cli", "dev", "up", "--dir", str(self._directory)]
        done = subprocess.run(
            [*command, "--workers", str(self._workers), "-o", "json"], check=True, capture_output=True, text=True
        )
        self._up = True
        described: dict[str, Any] = json.loads(done.stdout)
        return described

    @property
    def socket(self) -> str:
        """The application's socket."""
        return str(self.description["sockets"]["app"])

    @property
    def agent(self) -> psutil.Process:
        return psutil.Process(self.description["agent"]["pid"])

    @property
    def adapters(self) -> list[psutil.Process]:
        return [psutil.Process(adapter["pid"]) for adapter in self.description["adapters"]]

    def cost(self) -> Cost:
        """CPU seconds used until now."""
        return Cost(_cpu(self.agent), sum(_cpu(process) for process in self.adapters))

    def close(self) -> None:
        """End what was started."""
        if self._up:
            command = [sys.executable, "-m", "capsign_cli", "dev", "down", "--dir", str(self._directory)]
            subprocess.run(command, check=True, capture_output=True)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
