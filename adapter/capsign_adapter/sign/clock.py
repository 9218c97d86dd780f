"""The clocks: one decides about expiry, one about ages and rates."""

from __future__ import annotations

import threading
import time


def now_ms() -> int:
    """The adapter's clock, milliseconds since 1970: the one that decides about expiry."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """For ages and rates, which a clock put right must not touch: milliseconds since some
    moment.
    """
    return time.monotonic_ns() // 1_000_000


PAUSE_MS = 250
"""Longest time before whoever is over its budget hears so."""


def pause(milliseconds: int) -> None:
    """Keep whoever is over its budget waiting, at the expense of its own stream or place: told at
    once it would ask at once.
    """
    threading.Event().wait(min(milliseconds, PAUSE_MS) / 1000)
