"""Runs a command under ptrace from its first instruction: `tracer.py COMMAND...`. Ends with its
exit code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PTRACE_TRACEME, PTRACE_CONT = 0, 7


def main(command: list[str]) -> int:
    libc = ctypes.CDLL(None)
    child = os.fork()
    if child == 0:
        libc.ptrace(PTRACE_TRACEME, 0, 0, 0)
        os.execv(command[0], command)  # noqa: S606 - the command is the test's own
    while True:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        stopped_by = os.WSTOPSIG(status)
        libc.ptrace(PTRACE_CONT, child, 0, 0 if stopped_by == signal.SIGTRAP else stopped_by)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
