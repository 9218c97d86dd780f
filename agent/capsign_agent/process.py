"""What the process itself must be before it holds anything: no core dumps, nothing readable by others."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """No core file, no ptrace by equals, no file of ours readable by others. Handles and tokens live in this memory."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)
