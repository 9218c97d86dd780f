"""The two clocks of the adapter, and the delay of refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


def now_ms() -> int:
    """The adapter's clock, milliseconds since 1970: the one that decides about expiry."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """A clock that is never set, for ages and rates: milliseconds since an arbitrary moment."""
    return time.monotonic_ns() // 1_000_000


PAUSE_MS = 250
"""Longest delay of a refusal for an exhausted budget."""


def pause(milliseconds: int) -> None:
    """Sleep for `milliseconds`, PAUSE_MS at most. Delays the refusal of a caller that is over its
    budget, which would otherwise ask again at once; it occupies only its own stream or call.
    """
    threading.Event().wait(min(milliseconds, PAUSE_MS) / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time by which batches are decided, and the delay of their refusals."""

    now_ms: Callable[[], int] = now_ms
    """Milliseconds since 1970."""
    pause: Callable[[int], object] = pause
    """Waits so many milliseconds."""


CLOCK = Clock()
"""The clock of an adapter."""
