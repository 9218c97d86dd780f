"""Counts the calls of all sockets that are under way; refuses new ones once the agent drains."""

from __future__ import annotations

import asyncio

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2


class CallsInFlight:
    """For one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._closed = False
        self._quiet = asyncio.Event()
        """Set once no call is under way after `close`."""

    def enter(self) -> None:
        """Count a call that begins. Raises FailureError DRAINING after `close`."""
        if self._closed:
            raise FailureError(
                failures_pb2.REASON_DRAINING, "The agent is stopping.", retry_after_ms=500
            )
        self.count += 1

    def leave(self) -> None:
        """A counted call has ended."""
        self.count -= 1
        if self.count == 0 and self._closed:
            self._quiet.set()

    def close(self) -> None:
        """Refuse every call from now on."""
        self._closed = True
        if self.count == 0:
            self._quiet.set()

    async def quiet(self) -> None:
        """Wait until no call is under way. Call `close` before."""
        await self._quiet.wait()
