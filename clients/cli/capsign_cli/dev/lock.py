"""A lock, so that only one `dev up` or `dev down` works in a directory at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make the directory and lock it, waiting for another process that holds the lock. The kernel
    releases it when this process ends.
    """
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another `capsign dev` works on {directory}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _still_there(directory, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _still_there(directory: Path, descriptor: int) -> bool:
    """Whether the path still names the locked directory: `dev down --purge` may have removed it
    while we waited.
    """
    try:
        return os.path.samestat(directory.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
