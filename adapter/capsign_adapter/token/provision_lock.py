"""A lock between processes on one machine that share a token, so that they make keys one at a time.

PKCS#11 has no unique labels and no lock. All processes that may make keys can open the PIN file, so
it is the file that they lock; the kernel drops the lock when its holder dies. Machines that share a
network HSM are not excluded by it: each finds the other's key after making its own, and destroys
its own (`objects.make`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capsign_adapter.token.interface import TokenUnavailableError

_PAUSE_S = 0.01


@contextmanager
def provision_lock(pin_file: Path, seconds: float) -> Iterator[None]:
    """Hold the lock until the block ends. Waits `seconds` at most. Raises TokenUnavailableError."""
    try:
        # The file that a link in a mounted Secret leads to; `pin.read_pin` refuses links that lead
        # elsewhere.
        descriptor = os.open(
            pin_file.resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        )
    except OSError as error:
        raise TokenUnavailableError(
            f"the PIN file {pin_file} cannot be opened: {error.strerror}"
        ) from None
    try:
        deadline = time.monotonic() + seconds
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise TokenUnavailableError(
                    "another process has been making keys in this token for too long; "
                    "see why it hangs"
                )
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
