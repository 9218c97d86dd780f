"""Wakes threads that wait for the epoch to move."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ChangeNotifier:
    """A counter that threads can wait for. It carries no content: followers read the current
    snapshot.
    """

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._count = 0

    def announce(self) -> None:
        """Wake all followers: something changed, or the process drains."""
        with self._moved:
            self._count += 1
            self._moved.notify_all()

    @contextmanager
    def following(self) -> Iterator[Follower]:
        """Gives a follower that sees everything announced from now on."""
        with self._moved:
            yield_from = self._count
        yield Follower(self, yield_from)

    def wait_beyond(self, seen: int, seconds: float) -> int:
        """Wait until the count is above `seen`, `seconds` at most. Returns the count."""
        with self._moved:
            self._moved.wait_for(lambda: self._count > seen, timeout=seconds)
            return self._count


class Follower:
    """Remembers which changes one thread has seen."""

    def __init__(self, changes: ChangeNotifier, seen: int) -> None:
        self._changes = changes
        self._seen = seen

    def wait_for_next(self, seconds: float) -> bool:
        """Wait for a change since the last call, `seconds` at most. Returns whether there was
        one.
        """
        count = self._changes.wait_beyond(self._seen, seconds)
        moved, self._seen = count > self._seen, count
        return moved
