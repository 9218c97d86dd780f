"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from capsign_wire.backoff import Backoff

MOST_S = 15.0
"""The longest wait after many failures."""

LEAST_WAIT_S = 1.0
"""Seconds between two renewals at least, however short the lifetime is."""

_BETWEEN_ATTEMPTS = Backoff(0.2, MOST_S)


def retry_delay_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return _BETWEEN_ATTEMPTS.delay_s(failures)
