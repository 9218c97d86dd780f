"""grpc.health.v1 on a listener of its own, without TLS, which probes reach even when the main
server is full.

The service "" (readiness) is SERVING while nothing keeps the replica from signing. The service
"liveness" is SERVING while the process itself works, even without its token, store or disk: a
restart would not repair those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from grpc_health.v1 import health, health_pb2

from capsign_adapter.front.health_server import HealthServer

READINESS, LIVENESS = "", "liveness"

_SERVING, _NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


class _Current(health.HealthServicer):  # type: ignore[misc]  # it ships no types
    """Refreshes the state before each Check; `Watch` learns of changes by the regular refresh."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        super().__init__()
        self._refresh = refresh

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names methods as the proto does
        self._refresh()
        return super().Check(request, context)


class Health:
    """Not ready until `serving` is called. `refresh` must be called regularly."""

    def __init__(
        self, address: str, ready: Callable[[], bool], alive: Callable[[], bool], connections: int
    ) -> None:
        self._ready = ready
        self._alive = alive
        self._begun = False
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}
        self._servicer = _Current(self.refresh)
        self._server = HealthServer(address, self._servicer, connections, crowded=LIVENESS)
        self.port = self._server.port
        self.deadlines = self._server.deadlines
        self.refresh()
        self._server.start()

    def refresh(self) -> None:
        """Ask `ready` and `alive` now. Watches are told of changes only."""
        for service, well in (
            (READINESS, self._begun and self._ready()),
            (LIVENESS, self._alive()),
        ):
            status = _SERVING if well else _NOT_SERVING
            with self._lock:
                if self._told.get(service) != status:
                    self._told[service] = status
                    self._servicer.set(service, status)

    def serving(self) -> None:
        """From now on the replica is ready whenever `ready` says so."""
        self._begun = True
        self.refresh()

    def draining(self) -> None:
        """Never ready again."""
        self._begun = False
        self.refresh()

    def stop(self) -> None:
        self._server.stop()
