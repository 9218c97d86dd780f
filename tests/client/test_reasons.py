"""Nothing that the wire or gRPC can say is left without a meaning."""

from __future__ import annotations

import capsign
import grpc
import pytest
from capsign.errors import CapsignError
from capsign.translate import CLASSES, STATUSES, after_loss, exception, failure_of
from capsign_wire.failures import DETAILS_TRAILER, REASONS, FailureError
from capsign_wire.types.v1 import failures_pb2 as pb

ALL_REASONS = [value for value in pb.Reason.DESCRIPTOR.values if value.number]
EXPECTED = {
    "REFUSED": capsign.Refused,
    "UNKNOWN": capsign.Unknown,
    "UNAVAILABLE": capsign.Unavailable,
}


class BareError(grpc.RpcError):
    def __init__(self, code, trailer=None, said="as gRPC puts it"):
        self._said = said
        self._code = code
        self._trailer = trailer

    def code(self):
        return self._code

    def details(self):
        return self._said

    def trailing_metadata(self):
        return ((DETAILS_TRAILER, self._trailer),) if self._trailer else ()


@pytest.mark.parametrize("value", ALL_REASONS, ids=lambda value: value.name)
def test_every_reason_becomes_the_exception_of_its_outcome(value):
    outcome = value.GetOptions().Extensions[pb.meaning].outcome
    raised = exception(
        FailureError(value.number, "what happened", field="f", retry_after_ms=1500),
        intent_id=b"i" * 16,
    )
    assert isinstance(raised, EXPECTED[pb.Outcome.Name(outcome).removeprefix("OUTCOME_")])
    assert raised.reason == value.name.removeprefix("REASON_")
    assert raised.advice
    assert (raised.field, raised.retry_after, raised.intent_id) == ("f", 1.5, b"i" * 16)
    assert str(raised).startswith(f"{raised.reason}: what happened")


def test_every_outcome_of_a_failure_has_a_class():
    stated = {value.number for value in pb.Outcome.DESCRIPTOR.values} - {
        pb.OUTCOME_UNSPECIFIED,
        pb.OUTCOME_DONE,
    }
    assert set(CLASSES) == stated


def test_only_an_invalid_signature_is_invalid_signature():
    kinds = {
        number
        for number in REASONS
        if type(exception(FailureError(number))) is capsign.InvalidSignature
    }
    assert kinds == {pb.REASON_SIGNATURE_INVALID, pb.REASON_SIGNATURE_MISSING}


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_every_grpc_status_has_a_meaning(code):
    assert code in STATUSES
    raised = exception(failure_of(BareError(code), effect=True))
    assert isinstance(raised, CapsignError)
    assert not isinstance(raised, capsign.Unavailable), (
        "gRPC alone cannot prove that a call that was sent did not happen"
    )


@pytest.mark.parametrize("code", list(grpc.StatusCode), ids=lambda code: code.name)
def test_a_call_without_effect_is_never_left_unknown(code):
    assert failure_of(BareError(code), effect=False).outcome != pb.OUTCOME_UNKNOWN


@pytest.mark.parametrize("value", ALL_REASONS, ids=lambda value: value.name)
def test_what_the_agent_states_goes_before_the_status(value):
    stated = FailureError(value.number, "stated", field="item", retry_after_ms=20)
    error = BareError(stated.row.status, stated.to_status().SerializeToString())
    found = failure_of(error, effect=True)
    assert (found.reason, found.field, found.retry_after_ms) == (value.number, "item", 20)
    assert failure_of(error, effect=False).outcome != pb.OUTCOME_UNKNOWN


@pytest.mark.parametrize("value", ALL_REASONS, ids=lambda value: value.name)
def test_after_a_lost_answer_only_never_refuses(value):
    """A conflict was taken for a refusal too, but the row that the copy met could be that of the
    call whose answer was lost.
    """
    raised = exception(after_loss(FailureError(value.number)))
    if value.number == pb.REASON_INTENT_NEVER:
        assert isinstance(raised, capsign.Refused)
    else:
        assert isinstance(raised, capsign.Unknown)


def test_a_reason_from_a_newer_agent_is_unknown():
    raised = exception(FailureError.from_item(pb.Failure(reason=9999, message="from the future")))
    assert isinstance(raised, capsign.Unknown)
    assert raised.message == "from the future"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("SERVER: Received message larger than max (9 vs. 8)", "INPUT_TOO_LARGE"),
        ("CLIENT: Sent message larger than max (9 vs. 8)", "INPUT_TOO_LARGE"),
        ("Stream removed (CLIENT: Received message larger than max (9 vs. 8))", "ANSWER_LOST"),
    ],
)
def test_a_request_that_grpc_finds_too_large_is_refused_with_both_sizes(said, reason):
    """It was ANSWER_LOST, so unknown: of a request that no agent has seen. Of an answer it is."""
    error = BareError(grpc.StatusCode.RESOURCE_EXHAUSTED, said=said)
    failure = failure_of(error, effect=True)
    assert failure.row.name == reason
    assert "(9 vs. 8)" in failure.detail
