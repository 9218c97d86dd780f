"""A process of the same user that tries to read another one's memory: `thief.py PID`. Prints the
ways that worked, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH = 16, 17


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def ways(pid: int) -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    for name in ("mem", "maps", "environ", "auxv"):
        try:
            with Path(f"/proc/{pid}/{name}").open("rb") as file:
                if name == "mem" or file.read(1):
                    found.append(name)
        except OSError:
            pass
    try:
        if list(Path(f"/proc/{pid}/fd").iterdir()):
            found.append("fd")
    except OSError:
        pass
    buffer = ctypes.create_string_buffer(8)
    here = _Piece(ctypes.addressof(buffer), 8)
    there = _Piece(1, 8)
    libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if ctypes.get_errno() == 14:  # EFAULT: it was allowed, and nothing is there
        found.append("process_vm_readv")
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) == 0:
        found.append("ptrace")
        os.waitpid(pid, 0x40000000)  # __WALL
        libc.ptrace(PTRACE_DETACH, pid, 0, 0)
    return found


if __name__ == "__main__":
    print(json.dumps(ways(int(sys.argv[1]))))
