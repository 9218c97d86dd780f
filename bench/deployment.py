"""A deployment to measure: what `capsign dev up` starts, and what its processes cost."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Cost:
    """What was used so far: CPU seconds by role, commits of the store, and leaves in them."""

    agent: float
    adapter: float
    commits: int
    leaves: int


class Deployment:
    """Started when it is first needed: the raw cells need none."""

    def __init__(
        self,
        directory: Path,
        workers: int,
        policy: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`policy` in place of the one that `dev up` comes with; `options` are further ones of
        it.
        """
        self._options = options
        self._directory = directory / "dev"
        self._workers = workers
        self._policy = policy
        self._up = False

    @cached_property
    def description(self) -> dict[str, Any]:
        """What `capsign dev up -o json` printed."""
        return self._dev_up()

    def _dev_up(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "capsign_cli", "dev", "up", "--dir", str(self._directory)]
        policy = ["--policy", str(self._policy)] if self._policy is not None else []
        done = subprocess.run(
            [*command, "--workers", str(self._workers), *policy, *self._options, "-o", "json"],
            check=True,
            capture_output=True,
            text=True,
        )
        self._up = True
        described: dict[str, Any] = json.loads(done.stdout)
        return described

    def restart_with(self, settings: Mapping[str, str]) -> None:
        """Start its processes again, one after the other, with this text after the settings of the
        `agent` and of each `adapter`.
        """
        about = self.description
        for kind, one in [("agent", about["agent"]), *(("adapter", a) for a in about["adapters"])]:
            with Path(one["config"]).open("a") as config:
                config.write(settings[kind])
            self._restart(one["pid"])

    def have_places(self, streams: int) -> None:
        """Start the adapters again with `listen.streams` of so many, unless they have them."""
        setting = f"[listen]\nstreams = {streams}\n"
        for adapter in self.description["adapters"]:
            config = Path(adapter["config"])
            text = config.read_text()
            if setting not in text:
                config.write_text(text.replace("[listen]\n", setting))
                self._restart(adapter["pid"])

    def _restart(self, pid: int) -> None:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(30)
        # starts what does not run, and leaves the settings as they are: something else runs
        self.description = self._dev_up()

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

    @contextmanager
    def apart(self) -> Iterator[None]:
        """This process, its children and the agent on one half of the CPUs, the adapters on the
        other, until the block ends.

        As it is in a cluster, where they are on different machines: here they would otherwise move
        each other from CPU to CPU.
        """
        every = os.sched_getaffinity(0)
        if len(every) < 2:
            yield
            return
        pod = set(sorted(every)[: len(every) // 2])
        _keep_on(pod, [psutil.Process(), self.agent])
        _keep_on(every - pod, self.adapters)
        try:
            yield
        finally:
            _keep_on(every, [psutil.Process(), self.agent, *self.adapters])

    def cost(self) -> Cost:
        """What was used until now."""
        cpu = _cpu(self.agent), sum(_cpu(process) for process in self.adapters)
        with closing(
            sqlite3.connect(f"file:{self._directory}/state/capsign.sqlite?mode=ro", uri=True)
        ) as db:
            row = db.execute("SELECT COUNT(*), TOTAL(leaf_count) FROM log_segments").fetchone()
        return Cost(*cpu, int(row[0]), int(row[1]))

    def close(self) -> None:
        """End what was started."""
        if self._up:
            command = [
                sys.executable,
                "-m",
                "capsign_cli",
                "dev",
                "down",
                "--dir",
                str(self._directory),
            ]
            subprocess.run(command, check=True, capture_output=True)


def _keep_on(cpus: Iterable[int], processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        for thread in process.threads():
            with suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(thread.id, cpus)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
