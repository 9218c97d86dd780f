"""A cgroup with a limit of memory, as the kubelet makes one for a container."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024
ROOT = Path("/sys/fs/cgroup")


class MemoryLimit:
    """One group. Processes come into it by `join`, called in the child before it starts its
    program.
    """

    def __init__(self, folder: Path, *, unified: bool) -> None:
        self._folder = folder
        self._limit, self._peak, self._events = (
            ("memory.max", "memory.peak", "memory.events")
            if unified
            else ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control")
        )

    def set(self, mib: int) -> None:
        (self._folder / self._limit).write_text(str(mib * MIB))

    def join(self) -> None:
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def killed(self) -> int:
        """How many processes the kernel has killed because they were above the limit."""
        found = re.search(
            r"^oom_kill (\d+)$", (self._folder / self._events).read_text(), re.MULTILINE
        )
        return int(found[1]) if found else 0

    @property
    def peak(self) -> float:
        """The most that was charged at once, MiB; pages of files that could have been dropped are
        in it.
        """
        return int((self._folder / self._peak).read_text()) / MIB


@contextmanager
def memory_limit(mib: int) -> Iterator[MemoryLimit]:
    """Skips where no cgroup can be made, which needs root: then nothing can be said about what the
    kernel would do.
    """
    unified = "memory" in _read(ROOT / "cgroup.controllers")
    folder = (ROOT if unified else ROOT / "memory") / f"capsign-test-{uuid.uuid4().hex[:12]}"
    try:
        if not unified and not (ROOT / "memory" / "memory.limit_in_bytes").exists():
            raise FileNotFoundError("no memory controller is mounted")
        folder.mkdir()
        group = MemoryLimit(folder, unified=unified)
        group.set(mib)
    except OSError as error:
        pytest.skip(f"no cgroup with a limit of memory can be made here: {error}")
    try:
        yield group
    finally:
        folder.rmdir()  # its processes must have ended


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
