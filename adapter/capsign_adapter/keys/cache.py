"""A cache with a bound on the number and the age of its entries.

Time is an argument, in milliseconds of a monotonic clock. All methods may be called from any
thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `max_entries` entries, each for at most `max_age_ms` from when it was put (use does
    not prolong it).

    When it is full, the least recently used entry is dropped. Only the reference is dropped: a
    value wipes itself when its last user releases it, because a call in flight must not find its
    key overwritten.
    """

    def __init__(self, max_entries: int, max_age_ms: int) -> None:
        if max_entries < 1 or max_age_ms < 1:
            raise ValueError("a cache holds at least one entry for at least one millisecond")
        self._max_entries = max_entries
        self._max_age_ms = max_age_ms
        self._entries: OrderedDict[K, tuple[int, V]] = OrderedDict()
        self._generation = 0
        self._lock = Lock()

    @property
    def generation(self) -> int:
        """Counts calls of `clear`. Read it before making a value, and pass it to `put`."""
        return self._generation

    def get(self, key: K, now_ms: int) -> V | None:
        """Returns the value; None if there is none or it is too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if now_ms >= entry[0]:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def put(self, key: K, value: V, now_ms: int, generation: int) -> bool:
        """Keep the value, unless the cache was cleared since `generation`: a value begun before a
        revocation must not outlive it.
        """
        with self._lock:
            if generation != self._generation:
                return False
            self._entries[key] = (now_ms + self._max_age_ms, value)
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
            return True

    def sweep(self, now_ms: int) -> int:
        """Drop all entries that are too old, including those that nobody asks for. Returns how
        many.
        """
        with self._lock:
            over = [key for key, (until_ms, _) in self._entries.items() if now_ms >= until_ms]
            for key in over:
                del self._entries[key]
            return len(over)

    def clear(self) -> None:
        """Drop all entries at once."""
        with self._lock:
            self._generation += 1
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:  # `put` has one too many for a moment
            return len(self._entries)
