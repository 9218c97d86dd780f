"""What is seen of a batch: its traces as far as they are any, and what came of it."""

from __future__ import annotations

import pytest
from capsign_adapter.front.batch_telemetry import METHOD, BatchTelemetry
from capsign_wire import bounds
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types

IDS = f"{'4b' * 16}-00f067aa0ba902b7"
TRACE = f"00-{IDS}-03"
OTHER = f"00-{'5c' * 16}-00f067aa0ba902b8-01"


class Noting:
    """A span that is recorded."""

    recording = True
    traceparent = TRACE

    def __init__(self) -> None:
        self.notes: dict[str, str | int] = {}
        self.error = ""

    def note(self, key: str, value: str | int) -> None:
        self.notes[key] = value

    def failed(self, error_type: str) -> None:
        self.error = error_type


class Tracer:
    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def span(self, name, traceparent="", *, links=(), method=""):
        self.asked.append((name, traceparent, list(links), method))
        return Noting()


def batch(**traces) -> pb.SignRequest:
    item = pb.SignItem(intent_id=bytes(16), input=b"x")
    group = pb.SignGroup(algorithm=algorithms_pb2.ALGORITHM_ES256, items=[item, item])
    return pb.SignRequest(batch_id=1, handles=[b"h"], groups=[group], **traces)


@pytest.mark.parametrize(
    ("traces", "expected"),
    [
        ({}, ("", [])),
        ({"traceparent": TRACE}, (TRACE, [])),
        ({"traceparent": f"cc-{IDS}-ff-of-the-future"}, (TRACE, [])),
        ({"traceparent": "junk"}, ("", [])),
        ({"traceparent": "junk-01"}, ("", [])),
        ({"traceparent": TRACE, "linked_traceparents": [OTHER, "junk", TRACE]}, (TRACE, [OTHER])),
    ],
)
def test_a_batch_is_a_span_of_its_trace_and_linked_with_the_others(traces, expected):
    """What was no traceparent reached the tracer, which is asked before the bounds are: `junk-01`
    ended the stream.
    """
    tracer = Tracer()
    bounds.check(batch(**traces))
    BatchTelemetry(Metrics(), tracer).span(batch(**traces))
    assert tracer.asked == [("capsign.adapter.batch", *expected, METHOD)]


def test_the_worst_outcome_is_on_the_span():
    refused = FailureError(failures_pb2.REASON_INTENT_CONFLICT).to_item()
    unknown = FailureError(failures_pb2.REASON_COMMIT_UNKNOWN).to_item()
    signed = types.SignedItem(signatures=[types.Signature(value=b"s")])
    span = Noting()
    answer = pb.SignResponse(
        groups=[types.SignedGroup(items=[signed, types.SignedItem(failure=refused)])]
    )
    BatchTelemetry.note(span, batch(), answer)
    assert span.notes == {
        "items": 2,
        "algorithm": "ES256",
        "items.failed": 1,
        "outcome": "refused",
        "reason": "INTENT_CONFLICT",
    }
    assert not span.error
    span = Noting()
    both = pb.SignResponse(
        groups=[
            types.SignedGroup(
                items=[types.SignedItem(failure=refused), types.SignedItem(failure=unknown)]
            )
        ]
    )
    BatchTelemetry.note(span, batch(), both)
    assert (span.notes["outcome"], span.notes["reason"], span.error) == (
        "unknown",
        "COMMIT_UNKNOWN",
        "COMMIT_UNKNOWN",
    )
    span = Noting()
    BatchTelemetry.note(span, batch(), pb.SignResponse(failure=unknown))
    assert (span.notes["items.failed"], span.error) == (2, "COMMIT_UNKNOWN")
