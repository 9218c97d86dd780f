"""Forecasts when the store's disk is full, from its growth in the last hour. Pure: sizes and time
are arguments.

The log is kept for ever. Stored results are deleted after `limits.intent_retention` and their pages
are reused, so a store grows fastest in its first day: the forecast is too early then, never late.
"""

from __future__ import annotations

from collections import deque

EVERY_S = 30.0
"""Time between samples, seconds."""

WINDOW_MS = 3_600_000
"""The past that a forecast is made from; shorter would show the steps of log segments."""

LONG_S = 315_360_000.0
"""Ten years: the forecast where nothing grew, and the longest."""


class StorageForecast:
    """Keeps samples of the store's size. One thread records; any thread may read."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self.bytes = 0
        """Bytes that the store takes."""
        self.free = 0
        """Bytes that are left."""
        self._full_in_s = LONG_S

    def record(self, now_ms: int, taken: int, free: int) -> None:
        """Add a sample: bytes taken and bytes free, at a time of a clock that never goes back."""
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
        """Returns the seconds until the disk is full if the store grows as in the last hour."""
        return self._full_in_s
