"""Exports metrics and traces by OpenTelemetry, if the standard OTEL_* variables request it. Imports
none of it otherwise.

OpenTelemetry's own histogram costs 9 µs a value, because an instrument aggregates on the caller's
thread; ours costs under 1 µs. An observable instrument cannot be a histogram, and of the
specification's MetricProducer, which would bring ready points, the SDK for Python has none
(looked for in 1.45). So ours is an exporter before the exporter: what the SDK collects (counters
and gauges, observed) goes out with histogram points made from our buckets. The receiver sees
ordinary cumulative histograms.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from capsign_wire import logs
from capsign_wire.instruments import Kind, Labels
from capsign_wire.metric_catalogue import CATALOGUE
from capsign_wire.telemetry import Histogram, Metrics
from capsign_wire.trace_context import sampled
from capsign_wire.tracing import PassingSpan, PassingTracer, Span, Tracer

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import export

SCOPE = "capsign"

CLOSE_S = 3.0
"""How long a process that ends waits for its last export."""


class Telemetry:
    """The telemetry of one process: its tracer, and `close`, which exports the last values."""

    def __init__(
        self, tracer: Tracer, ends: list[Callable[[], object]], close_s: float = CLOSE_S
    ) -> None:
        self.tracer = tracer
        self._close_s = close_s
        self._ends = ends

    def close(self) -> None:
        """Export once more and stop, within `close_s`, so that a collector that is away does not
        keep the process from ending. Does nothing if nothing was started.
        """
        endings = [
            threading.Thread(target=end, name="telemetry-end", daemon=True) for end in self._ends
        ]
        self._ends.clear()
        until = time.monotonic() + self._close_s
        for one in endings:
            one.start()
        for one in endings:
            one.join(max(0.0, until - time.monotonic()))
        if any(one.is_alive() for one in endings):
            logs.warning("telemetry.last_values_lost")


def start(process: str, version: str, metrics: Metrics, environ: Mapping[str, str]) -> Telemetry:
    """Start what the environment asks for: OTEL_EXPORTER_OTLP_ENDPOINT or its _METRICS_ and
    _TRACES_ forms, or OTEL_METRICS_EXPORTER and OTEL_TRACES_EXPORTER (otlp, console, none).
    OTEL_SDK_DISABLED=true turns all of it off.
    """
    ends: list[Callable[[], object]] = []
    tracer: Tracer = PassingTracer()
    if environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
        kinds = {signal: exporter_of(environ, signal) for signal in ("METRICS", "TRACES")}
        resource = _resource(process, version) if any(kinds.values()) else None
        if (kind := kinds["METRICS"]) is not None:
            ends.append(_start_metrics(kind, resource, version, metrics))
        if (kind := kinds["TRACES"]) is not None:
            tracer, end = _start_traces(kind, resource, version)
            ends.append(end)
        if ends:
            logs.event("telemetry.started", exporters=len(ends))
    return Telemetry(tracer, ends)


def exporter_of(environ: Mapping[str, str], signal: str) -> str | None:
    """otlp or console, where the environment asks for METRICS or TRACES; else None."""
    named = environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower()
    if named in {"otlp", "console"}:
        return named
    if named and named != "none":
        logs.warning(
            "telemetry.exporter_unknown", signal=signal.lower(), known="otlp, console, none"
        )
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return "otlp" if not named and any(environ.get(name) for name in endpoints) else None


def _resource(process: str, version: str) -> Any:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    # Resource.create would take OTEL_SERVICE_NAME only where no name is given here; what the
    # operator says goes first. An id for each start: without one the counters of two replicas are
    # one series that jumps back and forth.
    ours = Resource(
        {
            "service.name": process,
            "service.version": version,
            "service.instance.id": str(uuid.uuid4()),
        }
    )
    return ours.merge(OTELResourceDetector().detect())


def _start_metrics(
    kind: str, resource: Any, version: str, metrics: Metrics
) -> Callable[[], object]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )

    exporter: export.MetricExporter
    if kind == "otlp":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter()
    else:
        exporter = ConsoleMetricExporter()
    reader = PeriodicExportingMetricReader(_with_histograms(exporter, metrics))
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    observe(provider.get_meter(SCOPE, version), metrics)
    return provider.shutdown


def observe(meter: Any, metrics: Metrics) -> None:
    """Registers every counter and gauge as an observable instrument of `meter`."""
    for name, row in CATALOGUE.items():
        if row.kind is Kind.COUNTER:
            meter.create_observable_counter(
                name, [_observer(metrics, name)], row.unit, row.description
            )
        elif row.kind is Kind.GAUGE:
            meter.create_observable_gauge(
                name, [_observer(metrics, name)], row.unit, row.description
            )


def _observer(metrics: Metrics, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    from opentelemetry.metrics import Observation

    keys = tuple(CATALOGUE[name].labels)

    def collect(_: CallbackOptions) -> Iterable[Observation]:
        counter = metrics.counters.get(name)
        values: Iterable[tuple[Labels, float]]
        values = list(counter.cells.items()) if counter is not None else metrics.gauge_values(name)
        return [
            Observation(value, dict(zip(keys, labels, strict=True))) for labels, value in values
        ]

    return collect


def histogram_metric(histogram: Histogram, started_ns: int, now_ns: int) -> export.Metric | None:
    """Our buckets as OpenTelemetry's histogram data, cumulative since `started_ns`; None while it
    is empty.
    """
    from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint, Metric
    from opentelemetry.sdk.metrics.export import Histogram as Data

    row = histogram.instrument
    points = []
    for labels, cell in list(histogram.cells.items()):
        counts = list(cell.counts)
        points.append(
            HistogramDataPoint(
                attributes={
                    key: value for key, value in zip(row.labels, labels, strict=True) if value
                },
                start_time_unix_nano=started_ns,
                time_unix_nano=now_ns,
                count=sum(counts),
                sum=cell.total,
                bucket_counts=counts,
                explicit_bounds=row.buckets,
                min=cell.least,
                max=cell.most,
            )
        )
    if not points:
        return None
    return Metric(
        row.name, row.description, row.unit, Data(points, AggregationTemporality.CUMULATIVE)
    )


def _with_histograms(exporter: export.MetricExporter, metrics: Metrics) -> export.MetricExporter:
    """The exporter, wrapped so that our histograms travel with what the SDK collected."""
    from dataclasses import replace

    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

    started_ns = time.time_ns()

    class WithHistograms(MetricExporter):
        def export(
            self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
        ) -> MetricExportResult:
            now_ns = time.time_ns()
            made = [
                histogram_metric(one, started_ns, now_ns) for one in metrics.histograms.values()
            ]
            ours = [one for one in made if one is not None]
            resources = []
            for resource in metrics_data.resource_metrics:
                scopes = [
                    replace(s, metrics=[*s.metrics, *ours]) if s.scope.name == SCOPE else s
                    for s in resource.scope_metrics
                ]
                resources.append(replace(resource, scope_metrics=scopes))
            return exporter.export(MetricsData(resources), timeout_millis=timeout_millis, **kwargs)

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return exporter.force_flush(timeout_millis)

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            exporter.shutdown(timeout_millis, **kwargs)

    return WithHistograms()


def _start_traces(kind: str, resource: Any, version: str) -> tuple[Tracer, Callable[[], object]]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if kind == "otlp":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    else:
        exporter = ConsoleSpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return RecordingTracer(provider.get_tracer(SCOPE, version)), provider.shutdown


class RecordingTracer:
    """Tracing is on: spans of sampled traces are recorded, others only handed on."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer

    def span(
        self, name: str, traceparent: str = "", *, links: Sequence[str] = (), method: str = ""
    ) -> Span:
        from opentelemetry.trace import Link, SpanKind

        if traceparent and not sampled(traceparent):
            # the caller's decision stands; not even an unsampled span is made for it
            return PassingSpan(traceparent)
        attributes = {"rpc.system.name": "grpc", "rpc.method": method} if method else {}
        return RecordedSpan(
            self._tracer.start_span(
                name,
                context=_context(traceparent),
                kind=SpanKind.SERVER,
                attributes=attributes,
                links=[Link(_remote(one)) for one in links],
            )
        )


def _context(traceparent: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return (
        set_span_in_context(NonRecordingSpan(_remote(traceparent)), Context())
        if traceparent
        else Context()
    )


def _remote(traceparent: str) -> Any:
    """Somebody else's span."""
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


class RecordedSpan:
    """A span of OpenTelemetry's."""

    __slots__ = ("_span", "recording", "traceparent")

    def __init__(self, span: Any) -> None:
        self._span = span
        self.recording: bool = span.is_recording()
        context = span.get_span_context()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    def note(self, key: str, value: str | int) -> None:
        self._span.set_attribute(f"capsign.{key}", value)

    def failed(self, error_type: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.failed(kind.__qualname__)  # the class; an exception's text stays here
        self._span.end()
