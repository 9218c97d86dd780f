"""Starts processes that outlive this one, sees whether they run, and ends them. A process is
identified by its pid and its start time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was started. `started` is the kernel's start time, because the kernel uses
    pids again.
    """

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return self.started != 0 and _started(self.pid) == self.started


def start(
    name: str, module: str, arguments: Sequence[str], log: Path, environ: Mapping[str, str]
) -> Process:
    """Start `python -m module` in a session of its own, with its output in `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(environ),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Process(name, child.pid, _started(child.pid))


def end(processes: Sequence[Process], seconds: float) -> list[Process]:
    """Send SIGTERM, wait, and send SIGKILL to those that are left; returns those that had to be
    killed.
    """
    living = [one for one in processes if one.alive]
    for one in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    left = [one for one in living if not wait(one, deadline - time.monotonic())]
    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
        wait(one, 5.0)
    return left


def wait(process: Process, seconds: float) -> bool:
    """Wait until the process has ended; returns False if it still runs after so many seconds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.alive:
            return True
        ready, _, _ = select.select([descriptor], [], [], max(0.0, seconds))
        return bool(ready)
    finally:
        os.close(descriptor)
        # Where it is a child of ours it stays a zombie until somebody asks.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log: what a process said before it ended."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _started(pid: int) -> int:
    """Field 22 of proc(5) stat, clock ticks since boot; 0 if there is no such process or only its
    zombie.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])
