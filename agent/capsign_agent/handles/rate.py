"""A token bucket: how many signatures a grant may make now. Pure; time is an argument."""

from __future__ import annotations

import math


class Bucket:
    """Refills at `rate` a second up to `rate + burst`. A rate of 0 is no limit.

    It starts full. It never holds less than nothing, and a clock that runs backwards adds nothing.
    """

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._rate = rate
        self._size = float(rate + burst)
        self._level = self._size
        self._at = now

    def change(self, rate: int, burst: int, now: float) -> None:
        """Take over the limits of a renewed handle; what was used stays used."""
        if (rate, float(rate + burst)) == (self._rate, self._size):
            return
        self._refill(now)
        self._rate, self._size = rate, float(rate + burst)
        self._level = min(self._level, self._size)

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` may go now, from 0 to `wanted`; they are used up by this."""
        if self._rate == 0:
            return wanted
        self._refill(now)
        granted = min(wanted, int(self._level))
        self._level -= granted
        return granted

    def wait_ms(self, wanted: int) -> int:
        """Milliseconds until `wanted` more could go, at least 1; asked after `take`."""
        if self._rate == 0:
            return 0
        missing = min(float(wanted), self._size) - self._level
        return max(1, math.ceil(missing * 1000 / self._rate))

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
