"""What every process of ours does first, before it reads a setting or a secret: nobody of the same
user reads its memory.

Without it a process of the same uid (a neighbour in the container, a shell that somebody got) reads
PINs, keys and handles from /proc/PID/mem, attaches with ptrace, takes descriptors over, or makes
the process dump a core. A child that is started, spawned workers included, begins as the kernel
makes it and has to do this itself: `execve` takes it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38


def harden(*, traced: bool = False) -> None:
    """No core file, no memory and no descriptor for others of this user, no new privileges.

    Ends the process with exit code 2 where Linux refuses, and, unless `traced` is allowed, where
    somebody attached while it was being loaded: what follows would hold secrets that others can
    read.
    """
    with contextlib.suppress(ValueError, OSError):  # a limit that is lower already
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # the command line runs elsewhere too; its system has rules of its own
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) or libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0):
        why = os.strerror(ctypes.get_errno())
        sys.stderr.write(
            f"This process cannot keep others out of its memory ({why}). Let it call "
            f"prctl(PR_SET_DUMPABLE).\n"
        )
        raise SystemExit(2)
    tracer = 0 if traced else _tracer()
    if tracer:
        sys.stderr.write(
            f"Process {tracer} traces this one and would read its secrets. Start it "
            f"without a tracer or debugger.\n"
        )
        raise SystemExit(2)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _tracer() -> int:
    """Who has attached to this process; 0: nobody. From now on nobody can."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - no import more than it needs
            return next((int(line.split()[1]) for line in file if line.startswith("TracerPid:")), 0)
    except OSError:  # no /proc: nobody can be asked, and nobody reads /proc/PID/mem there
        return 0
