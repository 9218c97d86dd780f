"""What the process itself must be before it holds anything: nothing readable by others, descriptors for all, a tame malloc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

from capsign_wire import hardening

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Heaps that malloc keeps apart for threads. gRPC has many threads that allocate little: more heaps would only hold memory."""
_LARGE_BYTES = 32 * 1024
SPARE_BYTES = 4 * 1024 * 1024
"""Blocks that malloc takes from the kernel and gives back one by one, and what it keeps of the rest. Left to itself it raises
both after the first large message, and hundreds of MiB of large calls, once freed, stay with the process. Messages of 60 KB that
it did not give back one by one left as much free between what was used as was used."""

_SPARE_FILES = 384
"""Descriptors for all but applications: 16 adapters with 8 streams each, twice while certificates change; the journal; health."""
_CONNECTIONS = 4096
_CONNECTIONS_OF_ONE = 2048
"""Of all sockets, and of one: each takes 14 KiB while it does nothing."""
_LEAST_CONNECTIONS = 16


def connections_for(sockets: int) -> int:
    """How many connections each of so many sockets may have. Without a bound, those of one container take every descriptor, and
    then no container is served, nothing is journalled and no adapter reached.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    affordable = _CONNECTIONS if files == resource.RLIM_INFINITY else min(_CONNECTIONS, files - _SPARE_FILES)
    return max(_LEAST_CONNECTIONS, min(_CONNECTIONS_OF_ONE, affordable // sockets))


def harden() -> None:
    """Nobody else reads this memory, where handles and tokens live, or files of ours. As many open files as are allowed."""
    hardening.harden()
    with contextlib.suppress(ValueError, OSError):
        _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # a libc without it has no arenas either
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES)
    os.umask(0o077)


def give_back() -> None:
    """Have malloc give to the kernel what is free between blocks that are still used. It takes some milliseconds."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
