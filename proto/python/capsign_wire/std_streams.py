"""Standard streams that were closed (`capsign handles >&-`).

The next file that a process opens takes the lowest free number: with 1 closed that may be a store
or a socket, and what is meant for standard output is written into it. So each number is taken at
once, before anything else is opened.
"""

from __future__ import annotations

import os
import sys


def hold(*, answers: bool) -> None:
    """Take 0, 1 and 2 where they are closed. Reading 0 fails then, for "no input" must not be read
    as an empty one; 2 goes nowhere; and so does 1, unless standard output is where the process
    `answers`: then writing fails, and is told.
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
