"""Tells the threads that follow it that the epoch moved."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ChangeNotifier:
    """A counter that threads can wait on. It carries no content: followers read the current
    snapshot.
    """

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._count = 0

    def announce(self) -> None:
        """Something changed, or everybody should look (the process drains)."""
        with self._moved:
            self._count += 1
            self._moved.notify_all()

    @contextmanager
    def following(self) -> Iterator[Follower]:
        """A follower that misses nothing announced from now on."""
        with self._moved:
            yield_from = self._count
        yield Follower(self, yield_from)

    def wait_beyond(self, seen: int, seconds: float) -> int:
        """The count, as soon as it is above `seen`, or after so many seconds."""
        with self._moved:
            self._moved.wait_for(lambda: self._count > seen, timeout=seconds)
            return self._count


class Follower:
    """One thread's place in the changes."""

    def __init__(self, changes: ChangeNotifier, seen: int) -> None:
        self._changes = changes
        self._seen = seen

    def wait_for_next(self, seconds: float) -> bool:
        """Whether something changed since the last call, waiting at most so long."""
        count = self._changes.wait_beyond(self._seen, seconds)
        moved, self._seen = count > self._seen, count
        return moved
