"""grpc.health.v1 on a listener of its own, without TLS: probes reach it when the main server is full."""

from __future__ import annotations

from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Health:
    """NOT_SERVING until told otherwise."""

    def __init__(self, address: str) -> None:
        self._servicer = health.HealthServicer()
        self._server = grpc.server(futures.ThreadPoolExecutor(2, thread_name_prefix="health"))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self.port: int = self._server.add_insecure_port(address)
        self._servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.start()

    def serving(self) -> None:
        self._servicer.set("", health_pb2.HealthCheckResponse.SERVING)

    def draining(self) -> None:
        self._servicer.enter_graceful_shutdown()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
