"""The listener for pods that have no certificate yet. It has a server, threads and bounds of its
own, so that load here keeps nobody from signing on the main listener.
"""

from __future__ import annotations

from typing import Any

import grpc
from capsign_wire.adapter.v1 import identity_pb2_grpc
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics

from capsign_adapter.decide.rate import Buckets
from capsign_adapter.enrol.enrolment import Enrolment
from capsign_adapter.front.address_quota import USUAL, AddressBounds, AddressQuota
from capsign_adapter.front.call_deadlines import DeadlineRegistrar
from capsign_adapter.front.identity_servicer import EnrolmentServicer
from capsign_adapter.front.threads import Threads
from capsign_adapter.front.tls import server_options
from capsign_adapter.sign.clock import monotonic_ms
from capsign_adapter.sign.tickers import Ticker

THREADS = 64
"""Concurrent calls, including those that wait for their request or for the cluster."""

MESSAGE_BYTES = 16 * 1024
"""Largest request: a certificate request and a token."""


def options(connections: int) -> list[tuple[str, int]]:
    """gRPC options: those of the main listener with smaller bounds, since a pod makes one call of a
    few kilobytes here. A connection without a call is closed within seconds.
    """
    smaller = {
        **dict(server_options(connections, MESSAGE_BYTES)),
        "grpc.max_concurrent_streams": 16,
        "grpc.server_handshake_timeout_ms": 3_000,
        "grpc.max_connection_idle_ms": 2_000,
        "grpc.max_connection_age_ms": 20_000,
        "grpc.max_connection_age_grace_ms": 15_000,
    }
    return list(smaller.items())


class EnrolmentServer:
    """Bound when it is made (gRPC raises RuntimeError if it cannot be), serving from `start` to
    `stop`."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials,
        enrolment: Enrolment,
        metrics: Metrics,
        connections: int,
        bounds: AddressBounds = USUAL,
    ) -> None:
        """`address` is host:port; the credentials must not demand a client's certificate."""
        self.quota = quota = AddressQuota(Buckets(monotonic_ms), bounds)
        self._server = grpc.server(Threads(THREADS, "enrol"), options=options(connections))
        registrar: Any = DeadlineRegistrar(
            LenientRegistrar(MeasuredRegistrar(self._server, metrics), MESSAGE_BYTES), quota
        )
        identity_pb2_grpc.add_EnrolmentServiceServicer_to_server(
            EnrolmentServicer(enrolment, quota, metrics), registrar
        )
        self.port: int = self._server.add_secure_port(address, credentials)
        self._sweep = Ticker("enrolment", 1.0, lambda: _swept(quota))

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._sweep.start()

    def stop(self, grace_seconds: float) -> None:
        """Accept no new call, wait for those under way, then cancel them."""
        self._server.stop(grace=grace_seconds).wait()
        self._sweep.stop()


def _swept(quota: AddressQuota) -> None:
    quota.sweep()
