"""How long the store's disk will last, from how fast it filled of late. Pure: sizes and time are
passed in.

What signatures leave in the log stays. What answers a repeated call is dropped after
`limits.intent_retention`, and its pages are written again, so a store grows fastest in its first
day: the forecast is early then, never late.
"""

from __future__ import annotations

from collections import deque

EVERY_S = 30.0
"""Between looks."""

WINDOW_MS = 3_600_000
"""How much of the past a forecast is made from; a store grows in steps of a log segment."""

LONG_S = 315_360_000.0
"""Ten years: the forecast where nothing grew."""


class StorageForecast:
    """Sizes as they were seen. One thread looks; any may ask."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self.bytes = 0
        """What the store takes on its disk."""
        self.free = 0
        """What that disk has left."""
        self._full_in_s = LONG_S

    def record(self, now_ms: int, taken: int, free: int) -> None:
        """The store's bytes and its disk's free ones, at a time of a clock that never goes back."""
        self._seen.append((now_ms, taken))
        while len(self._seen) > 2 and self._seen[1][0] <= now_ms - WINDOW_MS:
            self._seen.popleft()
        self.bytes, self.free = taken, free
        since_ms, before = self._seen[0]
        grown, passed_ms = taken - before, now_ms - since_ms
        if grown > 0 and passed_ms > 0:
            self._full_in_s = min(LONG_S, free * (passed_ms / 1000) / grown)
        else:
            self._full_in_s = LONG_S if free > 0 else 0.0

    def time_to_full_s(self) -> float:
        """Seconds until the disk is full if the store goes on as in the last hour."""
        return self._full_in_s
