"""Hardening of a process, before it reads a setting or a secret: other processes of the same user
cannot read its memory.

Without it a process of the same uid (a neighbour in the container, a shell that somebody got) reads
PINs, keys and handles from /proc/PID/mem, attaches with ptrace, takes descriptors over, or makes
the process dump a core. `execve` resets this, so each child process, spawned workers included, must
do it itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 3, 4, 38


def harden(*, traced: bool = False) -> None:
    """Disable core files, access to memory and descriptors by other processes of this user, and new
    privileges.

    Ends the process with exit code 2 if Linux refuses, and, unless `traced` is allowed, if a tracer
    attached while it was being loaded: it could read the secrets that are loaded next.
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
    """Returns the pid of the tracer of this process; 0 if there is none. From now on none can
    attach.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - no import more than it needs
            return next((int(line.split()[1]) for line in file if line.startswith("TracerPid:")), 0)
    except OSError:  # no /proc: nobody can be asked, and nobody reads /proc/PID/mem there
        return 0
