"""What the process itself must be before it holds anything: nothing readable by others, descriptors
for all, a tame malloc.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

from capsign_wire import hardening

TERMINATION_LOG = Path("/dev/termination-log")
"""Where the kubelet looks for a container's last word, by the default of Kubernetes, which the
injector states. Outside of a container it is not there.
"""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Heaps that malloc keeps apart for threads. gRPC has many threads that allocate little: more heaps
would only hold memory.
"""
_LARGE_BYTES = 32 * 1024
SPARE_BYTES = 4 * 1024 * 1024
"""Blocks that malloc takes from the kernel and gives back one by one, and what it keeps of the
rest. Left to itself it raises both after the first large message, and hundreds of MiB of large
calls, once freed, stay with the process. Messages of 60 KB that it did not give back one by one
left as much free between what was used as was used.
"""

WORTH_BYTES = 8 * 1024 * 1024
GIVE_BACK_EVERY_S, GIVE_BACK_AT_LEAST_S = 1.0, 32.0
"""What is worth a try to give it back; how often that is made at most, and where it gives
nothing.
"""

_SPARE_FILES = 384
"""Descriptors for all but applications: 16 adapters with 8 streams each, twice while certificates
change; the journal; health.
"""
_CONNECTIONS = 4096
_CONNECTIONS_OF_ONE = 2048
"""Of all sockets, and of one. Where memory is limited, `front.memory_shares` allows fewer."""
_LEAST_CONNECTIONS = 16


def connections_for(sockets: int, most: int | None = None) -> int:
    """How many connections each of so many sockets may have, `most` of all together.

    Without a bound, those of one container take every descriptor, and then no container is served,
    nothing is journalled and no adapter reached.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    affordable = (
        _CONNECTIONS if files == resource.RLIM_INFINITY else min(_CONNECTIONS, files - _SPARE_FILES)
    )
    if most is not None:
        affordable = min(affordable, most)
    return max(_LEAST_CONNECTIONS, min(_CONNECTIONS_OF_ONE, affordable // sockets))


def harden() -> None:
    """Nobody else reads this memory, where handles and tokens live, or files of ours. As many open
    files as are allowed.
    """
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


class GivingBack:
    """When malloc is to give to the kernel what is free between blocks that are still used; it
    takes some milliseconds.

    What is resident decides, not what calls hold: most of a flood lies in gRPC, which frees it some
    time after them. So it is tried while more is resident than at the least, ever more rarely where
    that gives nothing.
    """

    def __init__(self) -> None:
        self._least = 0
        self._last = 0
        self._next = 0.0
        self._pause_s = GIVE_BACK_EVERY_S

    def due(self, now: float, resident: int) -> bool:
        """Whether to try now; then tell `given`."""
        self._least = min(self._least or resident, resident)
        if abs(resident - self._last) > WORTH_BYTES:
            self._last, self._pause_s = resident, GIVE_BACK_EVERY_S
            self._next = min(self._next, now + self._pause_s)
        return now >= self._next and resident - self._least > WORTH_BYTES

    def given(self, now: float, before: int, after: int) -> None:
        """It was tried: so much was resident, and is."""
        gave = before - after > WORTH_BYTES
        self._pause_s = GIVE_BACK_EVERY_S if gave else min(self._pause_s * 2, GIVE_BACK_AT_LEAST_S)
        self._last, self._next = after, now + self._pause_s


def give_back() -> None:
    """Do so."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def leave_word(word: str, log: Path = TERMINATION_LOG) -> None:
    """Tell the kubelet why this process ends, for the status of the pod. Nothing where it would not
    look.
    """
    if not word:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "w") as file:
            file.write(word)
