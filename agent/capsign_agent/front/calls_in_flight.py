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
        self._quiet.set()

    def enter(self) -> None:
        """Count a call that begins. Raises FailureError DRAINING after `close`."""
        if self._closed:
            raise FailureError(
                failures_pb2.REASON_DRAINING, "The agent is stopping.", retry_after_ms=500
            )
        self.count += 1
        self._quiet.clear()

    def leave(self) -> None:
        """A counted call has ended."""
        self.count -= 1
        if self.count == 0:
            self._quiet.set()

    def close(self) -> None:
        """Refuse every call from now on."""
        self._closed = True

    async def quiet(self) -> None:
        """Wait until no call is under way."""
        await self._quiet.wait()
