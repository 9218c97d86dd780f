"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random

FIRST_S, MOST_S = 0.2, 15.0
"""The longest wait after one failure, and after many."""

LEAST_WAIT_S = 1.0
"""Nothing is renewed more often than this, however short a life the adapter gives it."""


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row, at least one: exponential, with jitter."""
    return min(MOST_S, FIRST_S * float(2 ** min(failures - 1, 10))) * random.uniform(0.5, 1.0)
