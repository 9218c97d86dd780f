"""Which intent ids are accepted: an id begins with its time (UUIDv7), which must not lie in the
future.
"""

from __future__ import annotations

import time

from capsign_wire.failures import FailureError
from capsign_wire.intents import millis_of
from capsign_wire.types.v1 import failures_pb2

FUTURE_MS = 300_000
"""How far ahead of our clock an intent id may be: it would otherwise outlive the retention window.
"""


def latest_intent(now: int) -> bytes:
    """Returns the largest id that `intent_in_time` accepts: ids sort by their time."""
    return (now + FUTURE_MS).to_bytes(6, "big") + b"\xff" * 10


def intent_in_time(intent_id: bytes, now: int) -> None:
    """Raises FailureError INPUT_MALFORMED if it is not an intent id, and INTENT_FROM_FUTURE if it
    is more than FUTURE_MS ahead.
    """
    if millis_of(intent_id) > now + FUTURE_MS:
        detail = f"The intent id lies in the future: {_clocks(intent_id, now)}."
        raise FailureError(failures_pb2.REASON_INTENT_FROM_FUTURE, detail, field="intent_id")


def too_old(intent_id: bytes, now: int) -> str:
    """Returns the sentence for an id that is older than the retention window."""
    return (
        f"Of this time nothing is kept any more: {_clocks(intent_id, now)}. "
        "If it is new, the clock of its node is behind."
    )


def _clocks(intent_id: bytes, now: int) -> str:
    """Returns both times in words, so that a person sees whose clock is wrong."""
    told, ours = _moment(millis_of(intent_id)), _moment(now)
    return f"the id says {told}, and the adapter's clock says {ours}"


def _moment(millis: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(millis / 1000))
    except (OverflowError, ValueError, OSError):  # 48 bits of milliseconds outlast calendars
        return f"{millis} ms after 1970"
