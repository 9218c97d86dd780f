"""A clock for tests."""

from __future__ import annotations

import time


class ShiftedClock:
    """The real one, set forward or back. Seconds since 1970."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s
