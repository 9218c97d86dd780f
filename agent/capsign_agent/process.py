"""Settings of the process itself: memory and files that nobody else can read, the number of open
files, and how malloc gives memory back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

from capsign_wire import hardening

TERMINATION_LOG = Path("/dev/termination-log")
"""File from which the kubelet takes a container's termination message; the injector states the
default path. It does not exist outside of a container.
"""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_ARENAS = 2
"""Most arenas of malloc. gRPC has many threads that allocate little; each further arena would only
hold free memory.
"""
_LARGE_BYTES = 32 * 1024
SPARE_BYTES = 4 * 1024 * 1024
"""`_LARGE_BYTES`: blocks from this size on are mapped and unmapped one by one. `SPARE_BYTES`: free
memory at the top of the heap that malloc keeps. Unless they are set, malloc raises both after the
first large message, and hundreds of MiB stay with the process after a burst of large calls.
Messages of 60 KB must be mapped too: on the heap they left as much memory free between used blocks
as was used.
"""

WORTH_BYTES = 8 * 1024 * 1024
GIVE_BACK_EVERY_S, GIVE_BACK_AT_LEAST_S = 1.0, 32.0
"""`WORTH_BYTES`: trim only if so much more is resident than at the least. Seconds between two
trims: at least, and at most where trimming frees nothing.
"""

_SPARE_FILES = 384
"""Descriptors that are not for applications: 16 adapters with 8 streams each, twice while
certificates change; journal; health.
"""
_CONNECTIONS = 4096
_CONNECTIONS_OF_ONE = 2048
"""Most connections: of all sockets (`_CONNECTIONS`), and of one. `front.memory_shares` allows fewer
where memory is limited.
"""
_LEAST_CONNECTIONS = 16


def connections_for(sockets: int, most: int | None = None) -> int:
    """How many connections each of so many sockets may have; `most`: of all together.

    Without a bound one container could take every descriptor; then no container would be served,
    nothing journalled and no adapter reached.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    affordable = (
        _CONNECTIONS if files == resource.RLIM_INFINITY else min(_CONNECTIONS, files - _SPARE_FILES)
    )
    if most is not None:
        affordable = min(affordable, most)
    return max(_LEAST_CONNECTIONS, min(_CONNECTIONS_OF_ONE, affordable // sockets))


def harden() -> None:
    """Keep other processes from reading this process's memory (handles and tokens are in it) and
    its files; raise the limit of open files to what is allowed; set malloc's bounds.
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
    """Decides when to call `give_back`, which takes some milliseconds.

    It goes by resident memory and not by what calls hold: most of a burst is held by gRPC, which
    frees it some time later. It is tried while more is resident than the least that was seen, and
    ever more rarely while it frees nothing.
    """

    def __init__(self) -> None:
        self._least = 0
        self._last = 0
        self._next = 0.0
        self._pause_s = GIVE_BACK_EVERY_S

    def due(self, now: float, resident: int) -> bool:
        """Whether to give memory back now; call `given` afterwards. `resident` is in bytes."""
        self._least = min(self._least or resident, resident)
        if abs(resident - self._last) > WORTH_BYTES:
            self._last, self._pause_s = resident, GIVE_BACK_EVERY_S
            self._next = min(self._next, now + self._pause_s)
        return now >= self._next and resident - self._least > WORTH_BYTES

    def given(self, now: float, before: int, after: int) -> None:
        """Memory was given back: bytes resident before and after."""
        gave = before - after > WORTH_BYTES
        self._pause_s = GIVE_BACK_EVERY_S if gave else min(self._pause_s * 2, GIVE_BACK_AT_LEAST_S)
        self._last, self._next = after, now + self._pause_s


def give_back() -> None:
    """Have malloc return free memory between used blocks to the kernel."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def leave_word(word: str, log: Path = TERMINATION_LOG) -> None:
    """Write why this process ends to the kubelet's termination log, for the pod's status. Does
    nothing outside of a container.
    """
    if not word:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "w") as file:
            file.write(word)
