"""Replaces standard streams that were closed (`capsign handles >&-`).

The next file that a process opens gets the lowest free descriptor: with 1 closed that may be a
store or a socket, and output meant for standard output would be written into it. So each of the
three is occupied before anything else is opened.
"""

from __future__ import annotations

import os
import sys


def hold(*, answers: bool) -> None:
    """Occupy descriptors 0, 1 and 2 if they are closed. Reading 0 then fails, since a missing input
    must not count as an empty one. Output to 2 is discarded, and so is output to 1, unless the
    process `answers` on standard output: then writing fails and is reported.
    """
    for number, flags in (
        (0, os.O_WRONLY),
        (1, os.O_RDONLY if answers else os.O_WRONLY),
        (2, os.O_WRONLY),
    ):
        _take(number, flags)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # a number, and for as long as the process lives
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # as above
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # as above


def _take(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
