"""The connections in use, and how calls are refused while none is open."""

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
        """`spawn` runs a task of the agent; `why_no_identity` says why there is no
        certificate yet.
        """
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
        """Try once more to connect, before a call is refused because no adapter is connected: it
        may be back while gRPC still waits for its next attempt. Takes half of `timeout_s` at most.
        """
        if self.current.targets:
            await self._redial.attempt(timeout_s / 2)

    def refusing(self) -> FailureError | None:
        """The failure with which new calls are refused: at once if no adapter is left that may be
        used, and once none has been connected for `upstream.unreachable_after_ms`; else None.
        """
        if self.current.left and not self.current.targets:
            return self.current.unreachable()
        since = self.reach.down_since
        if since is None:
            return None
        waited_s = asyncio.get_running_loop().time() - since
        return self.current.unreachable() if waited_s >= self._unreachable_after_s else None
