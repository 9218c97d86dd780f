"""The memory limit of this process, and its resident size."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
_NO_LIMIT = 1 << 60
"""A larger number in such a file means that there is no limit."""


def memory_limit(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Returns the smallest memory limit of this process's control groups, bytes; None if there is
    none or it cannot be read.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        base = root / controllers
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            found += [limit for name in _LIMIT_FILES if (limit := _read(folder / name)) is not None]
    return min(found, default=None)


def _read(file: Path) -> int | None:
    try:
        limit = int(file.read_text())
    except (OSError, ValueError):  # "max", or no such file
        return None
    return limit if limit < _NO_LIMIT else None


def resident(file: Path = Path("/proc/self/statm")) -> int:
    """Returns the resident size of this process, bytes; 0 if it cannot be read."""
    try:
        return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
