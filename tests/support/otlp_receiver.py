"""What a collector is to an exporter: takes OTLP over gRPC and keeps what came, in the terms of the
tests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc


def attributes(pairs: Any) -> dict[str, Any]:
    """Of a list of key and AnyValue."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}


@dataclass(frozen=True)
class Span:
    """A span that was received, with the resource that made it."""

    resource: dict[str, Any]
    span: Any

    @property
    def service(self) -> str:
        return self.resource["service.name"]

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> set[tuple[str, str]]:
        return {(one.trace_id.hex(), one.span_id.hex()) for one in self.span.links}

    @property
    def attributes(self) -> dict[str, Any]:
        return attributes(self.span.attributes)


@dataclass
class Received:
    """Everything so far. The last export of a metric counts: they are cumulative."""

    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By service, then by metric: the OTLP metric."""
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By service, of its metrics."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, service: str) -> list[Span]:
        return [one for one in self.spans if one.service == service]

    def points(self, service: str, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and data point of each series."""
        metric = self.metrics[service][name]
        data = getattr(metric, metric.WhichOneof("data"))
        return [(attributes(one.attributes), one) for one in data.data_points]


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: Any, _: Any) -> Any:
        with self._received.lock:
            for resource in request.resource_spans:
                made_by = attributes(resource.resource.attributes)
                self._received.spans += [
                    Span(made_by, span) for scope in resource.scope_spans for span in scope.spans
                ]
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, received: Received) -> None:
        self._received = received

    def Export(self, request: Any, _: Any) -> Any:
        with self._received.lock:
            for resource in request.resource_metrics:
                made_by = attributes(resource.resource.attributes)
                self._received.resources[made_by["service.name"]] = made_by
                kept = self._received.metrics.setdefault(made_by["service.name"], {})
                kept |= {one.name: one for scope in resource.scope_metrics for one in scope.metrics}
        return metrics_pb.ExportMetricsServiceResponse()


@contextmanager
def receiving() -> Iterator[tuple[str, Received]]:
    """The endpoint, and what comes there."""
    received = Received()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_grpc.add_TraceServiceServicer_to_server(_Traces(received), server)
    metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(received), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(1).wait()
