"""The listener for people with roles. It has a server, threads and bounds of its own, so that load
from workloads, tenants and strangers at the other listeners cannot keep a responder from revoking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics

from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.front.admin_quota import CHANGING, LOOKING, REVOKING, AdminQuota
from capsign_adapter.front.call_deadlines import DeadlineRegistrar
from capsign_adapter.front.threads import Threads
from capsign_adapter.front.tls import server_options
from capsign_adapter.sign.tickers import Ticker

MESSAGE_BYTES = 64 * 1024
"""Largest request."""

IDLE_MS, AGE_MS, GRACE_MS = 30_000, 600_000, 60_000
"""Milliseconds after which an idle connection is closed, after which any is, and that calls then
have to end.
"""


class AdminServer:
    """Bound when it is made (gRPC raises RuntimeError if it cannot be), serving from `start` to
    `stop`."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials,
        policy: PolicyNow,
        register: Callable[[Any], None],
        metrics: Metrics,
        connections: int,
    ) -> None:
        """`address` is host:port; the credentials must demand a client's certificate; `register`
        adds the services to the registrar that it is given.
        """
        self.quota = quota = AdminQuota(policy)
        options = {
            **dict(server_options(connections, MESSAGE_BYTES)),
            "grpc.max_connection_idle_ms": IDLE_MS,
            "grpc.max_connection_age_ms": AGE_MS,
            "grpc.max_connection_age_grace_ms": GRACE_MS,
        }
        self._server = grpc.server(
            Threads(LOOKING + CHANGING + REVOKING, "admin"), options=list(options.items())
        )
        registrar: Any = DeadlineRegistrar(
            LenientRegistrar(MeasuredRegistrar(self._server, metrics), MESSAGE_BYTES),
            quota,
            quota.working,
        )
        register(registrar)
        self.port: int = self._server.add_secure_port(address, credentials)
        self._sweep = Ticker("admin", 1.0, lambda: _swept(quota))

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._sweep.start()

    def stop(self, grace_seconds: float) -> bool:
        """Accept no new call, wait for those under way, then cancel them. Returns whether all
        ended.
        """
        ended = self._server.stop(grace=grace_seconds).wait(timeout=grace_seconds + 5.0)
        self._sweep.stop()
        return ended


def _swept(quota: AdminQuota) -> None:
    quota.sweep()
