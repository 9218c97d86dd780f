"""Tracks the long-lived streams of this process, so that a stopping adapter can finish those that
work on a batch and end those that are idle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Cancellable(Protocol):
    """The one method of grpc.ServicerContext that is needed here."""

    def cancel(self) -> bool: ...


class Streams:
    """Knows which streams are busy. Safe for any thread."""

    def __init__(self) -> None:
        # Used directly by those that do not wait: the condition costs three times as much.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._busy: dict[Cancellable, bool] = {}
        self._draining = False

    @property
    def draining(self) -> bool:
        return self._draining

    @contextmanager
    def joined(self, stream: Cancellable) -> Iterator[None]:
        """Track an open stream, idle at first, until the block ends."""
        with self._changed:
            self._busy[stream] = False
        try:
            yield
        finally:
            with self._changed:
                del self._busy[stream]
                self._changed.notify_all()

    def begin(self, stream: Cancellable) -> bool:
        """Mark the stream busy with a batch. Returns False if the process is draining: do not
        start.
        """
        with self._lock:
            if self._draining:
                return False
            self._busy[stream] = True
            return True

    def end(self, stream: Cancellable) -> None:
        """Mark the stream idle: its batch was answered."""
        with self._lock:
            self._busy[stream] = False
            if self._draining:  # nobody waits before
                self._changed.notify_all()

    def drain(self, seconds: float, wake: Callable[[], None]) -> bool:
        """Start nothing new, call `wake` so that waiting streams notice, wait up to `seconds` for
        busy streams, then cancel all that are left. Returns whether all ended in time.
        """
        with self._changed:
            self._draining = True
        wake()
        with self._changed:
            finished = self._changed.wait_for(lambda: not any(self._busy.values()), timeout=seconds)
            idle = list(self._busy)
        for stream in idle:
            stream.cancel()
        with self._changed:
            return finished and self._changed.wait_for(lambda: not self._busy, timeout=1.0)
