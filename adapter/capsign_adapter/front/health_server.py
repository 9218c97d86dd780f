"""The listener for probes: grpc.health.v1 without TLS. Anybody may call it, and every check gets an
answer under any load.

When all threads are busy, a check is answered at once, without reading its request, with the state
of the process itself (liveness), so that a flood does not get an adapter restarted. The number of
watches is bounded, and further ones are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import BoundedSemaphore
from typing import Any

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.threads import Threads, refusing
from capsign_adapter.front.tls import SERVER_OPTIONS
from capsign_adapter.sign.tickers import Ticker

WATCHES, CHECKS = 16, 48
"""Concurrent watches, and checks, that have a thread."""

REQUEST_SECONDS = 1.0
"""Longest wait for the request of a call, seconds."""

SWEEP_SECONDS = 0.25
"""Between looks for those that have waited so long, seconds."""

OPTIONS: dict[str, int] = {
    **dict(SERVER_OPTIONS),
    "grpc.max_concurrent_streams": 100,
    "grpc.max_metadata_size": 4 * 1024,
    "grpc.absolute_max_metadata_size": 8 * 1024,
    "grpc.max_receive_message_length": 4 * 1024,
    "grpc.max_send_message_length": 4 * 1024,
    "grpc.max_connection_idle_ms": 10_000,
    "grpc.max_connection_age_ms": 300_000,
    "grpc.max_connection_age_grace_ms": 5_000,
}


class HealthServer:
    """Bound when it is made (gRPC raises RuntimeError if it cannot be), and serves from `start`
    to `stop`."""

    def __init__(
        self, address: str, servicer: health_pb2_grpc.HealthServicer, connections: int, crowded: str
    ) -> None:
        """`address` is host:port. The servicer is that of grpcio-health-checking, or one like
        it. When all threads are busy, a check is answered for the service `crowded`.
        """
        options = {**OPTIONS, "grpc.max_allowed_incoming_connections": connections}
        self._server = grpc.server(
            Threads(WATCHES + CHECKS, "health"), options=list(options.items())
        )
        self.deadlines = CallDeadlines()
        """Calls that wait for their request."""
        registrar: Any = _CrowdedRegistrar(self._server, self.deadlines, crowded)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, registrar)
        self.port: int = self._server.add_insecure_port(address)
        # With none that waits it is enough to look before the first of them could be late.
        self._sweep = Ticker(
            "health", REQUEST_SECONDS, lambda: _swept(self.deadlines), more_s=SWEEP_SECONDS
        )

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._sweep.start()

    def stop(self) -> None:
        """End at once."""
        self._server.stop(grace=None).wait()
        self._sweep.stop()


class _CrowdedRegistrar:
    """Registers the two methods as ones that take a stream of requests, so that the wait for
    theirs is bounded."""

    def __init__(self, server: grpc.Server, waiting: CallDeadlines, crowded: str) -> None:
        self._server = server
        self._waiting = waiting
        self._crowded = health_pb2.HealthCheckRequest(service=crowded)
        self._watches = BoundedSemaphore(WATCHES)
        self._checks = BoundedSemaphore(CHECKS)

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on."""
        made = {
            name: grpc.stream_stream_rpc_method_handler(
                self._watch(handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler(
                self._check(handler.unary_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
            for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, made)

    def _check(self, check: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            if refusing() or not self._checks.acquire(blocking=False):
                return check(self._crowded, context)
            try:
                with self._waiting.of(context, REQUEST_SECONDS):
                    request = next(requests, None)
            finally:
                self._checks.release()
            return check(request or health_pb2.HealthCheckRequest(), context)

        return run

    def _watch(self, watch: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            if refusing() or not self._watches.acquire(blocking=False):
                detail = f"{WATCHES} watches of this adapter's health are open. Use Check."
                abort(
                    context,
                    FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=1000),
                )
            try:
                with self._waiting.of(context, REQUEST_SECONDS):
                    request = next(requests, None)
                yield from watch(request or health_pb2.HealthCheckRequest(), context)
            finally:
                self._watches.release()

        return run


def _swept(waiting: CallDeadlines) -> bool:
    """Returns whether any wait still."""
    waiting.sweep()
    return len(waiting) > 0
