"""What the process itself must be before it holds anything: no core dumps, nothing readable by others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Heaps that malloc keeps apart for threads. gRPC has many threads that allocate little: more heaps would only hold memory."""
_LARGE_BYTES = 1024 * 1024
_SPARE_BYTES = 4 * 1024 * 1024
"""Blocks that malloc takes from the kernel and gives back one by one, and what it keeps of the rest. Left to itself it raises
both after the first large message, and hundreds of MiB of large calls, once freed, stay with the process."""


def harden() -> None:
    """No core file, no ptrace by equals, no file of ours readable by others. Handles and tokens live in this memory."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(AttributeError):  # a libc without it has no arenas either
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)
    os.umask(0o077)
