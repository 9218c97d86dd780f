"""The connections that are in use, and what is said while none of them stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics

from capsign_agent.config import Upstream as UpstreamConfig
from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_agent.upstream.redial import Redial, Spawn
from capsign_agent.upstream.streams import Reachability


class Connections:
    """One generation at a time; `certificate_changeover` goes from one to the next. For one event
    loop.
    """

    def __init__(
        self,
        config: UpstreamConfig,
        reach: Reachability,
        spawn: Spawn,
        metrics: Metrics,
        why_no_identity: Callable[[], str],
    ) -> None:
        """`spawn` runs a task of the agent's; `why_no_identity` says why there is none yet."""
        self.metrics = metrics
        self.current = ConnectionGeneration(config, None, metrics, why_no_identity)
        self.reach = reach
        self._unreachable_after_s = config.unreachable_after_ms / 1000
        self._redial = Redial(lambda: self.current, reach, spawn)

    @property
    def away(self) -> bool:
        """Whether no adapter is connected."""
        return self.reach.down_since is not None

    async def seek(self, timeout_s: float) -> None:
        """One more attempt to reach an adapter, before this call is refused for want of one: it may
        be there again, while gRPC waits before its next attempt. Takes half of the time at most.
        """
        if self.current.targets:
            await self._redial.attempt(timeout_s / 2)

    def refusing(self) -> FailureError | None:
        """Why new calls are refused now, or None. While nothing has been connected for a while,
        waiting is of no use to a caller.
        """
        since = self.reach.down_since
        if since is None:
            return None
        waited_s = asyncio.get_running_loop().time() - since
        return self.current.unreachable() if waited_s >= self._unreachable_after_s else None
