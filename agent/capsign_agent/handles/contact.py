"""When an adapter was last heard. What an agent holds may have been revoked since: beyond a bound
it offers nothing of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.unavailable import NotYetError


def boot_s() -> float:
    """Seconds since the machine started, with the time that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Contact:
    """Shared by the sockets of an agent. It counts from the moment that it is made."""

    def __init__(self, within_s: float = math.inf, clock: Callable[[], float] = boot_s) -> None:
        """`within_s`: how long after the last word of an adapter handles are still offered."""
        self._within_s = within_s
        self._clock = clock
        self._at = clock()

    def heard(self) -> None:
        """An adapter said how things are now."""
        self._at = self._clock()

    def demand(self) -> None:
        """Raise NotYetError REVOCATIONS_UNHEARD if no adapter was heard for too long."""
        silent_s = self._clock() - self._at
        if silent_s > self._within_s:
            detail = (
                f"No adapter was heard for {silent_s:.0f} s; after {self._within_s:g} s the agent "
                f"offers nothing that may have been revoked meanwhile."
            )
            raise NotYetError(failures_pb2.REASON_REVOCATIONS_UNHEARD, detail, retry_after_ms=500)
