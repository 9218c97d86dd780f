"""The lock between processes that write one SQLite file.

SQLite's own wait for a busy database sleeps for milliseconds between tries. A lock file is tried
far more often for the length of a normal commit, and every wait has an end. The kernel drops the
lock when its holder dies, so none is ever stale.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from types import TracebackType

from capsign_adapter.store.errors import StoreUnavailableError

WAIT_S = 10.0
"""Longest wait for the lock, seconds: a healthy holder keeps it for a few milliseconds."""

_EAGER_TRIES = 200
_EAGER_PAUSE_S = 0.000_05
_PATIENT_PAUSE_S = 0.002


class LockFile:
    """Held by one thread of one process at a time. Use as a context manager."""

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._path = path
        self._wait_s = wait_s
        self._threads = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._wait_s
        if not self._threads.acquire(timeout=self._wait_s):
            raise self._timed_out()
        try:
            self._lock_processes(deadline)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _lock_processes(self, deadline: float) -> None:
        if self._fd < 0:
            raise StoreUnavailableError(f"{self._path}: the store was closed.")
        tries = 0
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._timed_out() from None
            tries += 1
            time.sleep(_EAGER_PAUSE_S if tries < _EAGER_TRIES else _PATIENT_PAUSE_S)

    def _timed_out(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._path}: another writer has held the lock for {self._wait_s:g} s. Find "
            f"it with `fuser` and see why it waits."
        )

    def close(self) -> None:
        """Close the file. Threads that wait for the lock raise StoreUnavailableError."""
        with self._threads:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
