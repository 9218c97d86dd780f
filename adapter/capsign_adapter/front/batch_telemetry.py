"""Metrics and traces of batches. They are no evidence: they may be lost or sampled."""

from __future__ import annotations

from collections import Counter

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import metric_name
from capsign_wire.telemetry import Metrics
from capsign_wire.trace_context import of_message
from capsign_wire.tracing import Span, Tracer, note_items
from capsign_wire.types.v1 import failures_pb2

METHOD = f"{pb.DESCRIPTOR.services_by_name['SigningService'].full_name}/Sign"


class BatchTelemetry:
    """One for a replica; any thread."""

    def __init__(self, metrics: Metrics, tracer: Tracer) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._sizes = metrics.histogram("capsign.batch.size")
        self._durations = metrics.histogram("capsign.call.duration")

    def span(self, request: pb.SignRequest) -> Span:
        """Returns the span around the work on a batch, whose bounds were not checked yet."""
        trace, links = of_message(request) if request.traceparent else ("", ())
        return self._tracer.span("capsign.adapter.batch", trace, links=links, method=METHOD)

    @staticmethod
    def note(span: Span, request: pb.SignRequest, answer: pb.SignResponse) -> None:
        """Add the items and the failures of a batch to a span that is recorded."""
        items = sum(len(group.items) for group in request.groups)
        failures = Counter(
            item.failure.reason
            for group in answer.groups
            for item in group.items
            if not item.signatures
        )
        if not answer.groups:
            failures[answer.failure.reason] = max(1, items)
        note_items(span, (group.algorithm for group in request.groups), items, failures)

    def seen(self, request: pb.SignRequest, answer: pb.SignResponse, seconds: float) -> None:
        """Count a batch, its items and its failures; `seconds` is how long it took. Called after
        the answer was sent.
        """
        items = sum(len(group.items) for group in request.groups)
        self._sizes.record(items, "upstream")
        if not answer.groups:
            self._metrics.observe_calls(answer.failure.reason, items=items)
            return
        failures: Counter[failures_pb2.Reason.ValueType] = Counter()
        for asked, group in zip(request.groups, answer.groups, strict=True):
            self._durations.record(seconds, metric_name(asked.algorithm), times=len(group.items))
            failures.update(item.failure.reason for item in group.items if not item.signatures)
        done = items - failures.total()
        if done:
            self._metrics.observe_calls(None, items=done)
        for reason, count in failures.items():
            self._metrics.observe_calls(reason, items=count)
