"""One more attempt to connect, made because a call has come while no adapter is connected.

Without it the first calls after an adapter's return are refused, for as long as gRPC waits before
its next attempt. All calls share one attempt, and the pause between attempts grows to half a
second: an adapter that starts must not be flooded by a fleet that calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_agent.upstream.streams import Reachability

MOST_S = 1.0
"""Seconds that one attempt may take: enough for a handshake across continents, under load."""

FIRST_PAUSE_S = 0.1
MOST_PAUSE_S = 0.5

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Redial:
    """For one event loop."""

    def __init__(
        self, upstream: Callable[[], ConnectionGeneration], reach: Reachability, spawn: Spawn
    ) -> None:
        """`upstream` returns the connections in use; `spawn` runs a task of the agent."""
        self._upstream = upstream
        self._reach = reach
        self._spawn = spawn
        self._attempt: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0

    async def attempt(self, seconds: float) -> None:
        """Join the attempt that is under way, or start one; wait until it has ended, for so many
        seconds at most.
        """
        if self._attempt is None or self._attempt.done():
            self._attempt = self._spawn(self._try())
        await asyncio.wait({self._attempt}, timeout=seconds)

    async def _try(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._not_before - loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOST_S):
                await self._dial()
        self._failures = 0 if self._reach.connected else self._failures + 1
        pause = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 8))
        self._not_before = loop.time() + pause * random.uniform(0.5, 1.0)

    async def _dial(self) -> None:
        """Wait until a stream is open or every replica has refused."""
        if self._reach.connected:
            return
        connections = self._upstream().redial()
        await asyncio.gather(*(connection.attempt_ended() for connection in connections))
        if any(connection.ready for connection in connections):
            await self._reach.returned.wait()
