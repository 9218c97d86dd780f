"""A failure survives every way it travels, and every reason says what is true and what to do."""

from __future__ import annotations

import grpc
import pytest
from capsign_wire.advice import ADVICE, Given
from capsign_wire.failures import DETAILS_TRAILER, DOMAIN, REASONS, FailureError, RpcStatus
from capsign_wire.types.v1 import failures_pb2 as pb
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120)


class Rpc(grpc.RpcError):
    """A failed call as gRPC's client raises it."""

    def __init__(self, *trailers):
        self._trailers = trailers

    def trailing_metadata(self):
        return self._trailers


def seen(error):
    return error.reason, error.detail, error.field, error.retry_after_ms


@given(st.sampled_from(sorted(REASONS)), TEXT, TEXT, st.integers(0, 2**31))
def test_both_ways_over_the_wire_keep_everything(reason, detail, field, retry):
    error = FailureError(reason, detail, field=field, retry_after_ms=retry)
    assert seen(
        FailureError.from_item(pb.Failure.FromString(error.to_item().SerializeToString()))
    ) == seen(error)
    status = RpcStatus(error)
    assert status.code is REASONS[reason].status
    assert seen(FailureError.from_rpc(Rpc(*status.trailing_metadata))) == seen(error)


@pytest.mark.parametrize("reason", sorted(ADVICE))
@pytest.mark.parametrize("given_", [None, *Given])
def test_the_advice_fits_what_was_given_and_is_known_again(reason, given_):
    """A version of 2**64 - 1 was told to sign a digest, or to split the batch."""
    error = FailureError(reason, "The field version is above 9.", field="version", given=given_)
    row = REASONS[reason].advice
    assert error.advice == ADVICE[reason].get(given_, row)
    assert error.detail == f"The field version is above 9. {error.advice}"
    assert FailureError.from_item(error.to_item()).advice == error.advice
    status = RpcStatus(error)
    assert FailureError.from_rpc(Rpc(*status.trailing_metadata)).advice == error.advice


def test_no_advice_ends_with_another_of_its_reason():
    for reason, table in ADVICE.items():
        every = [REASONS[reason].advice, *table.values()]
        assert len({*every}) == len(every)
        assert not [
            (one, two) for one in every for two in every if one != two and one.endswith(two)
        ]


def test_the_whole_table():
    declared = {value.number for value in pb.Reason.DESCRIPTOR.values} - {0}
    assert set(REASONS) == declared
    for row in REASONS.values():
        assert row.advice.endswith(".")
        assert row.outcome in {pb.OUTCOME_REFUSED, pb.OUTCOME_UNKNOWN, pb.OUTCOME_UNAVAILABLE}
        assert row.status is not grpc.StatusCode.OK


def test_texts_are_bounded():
    error = FailureError(pb.REASON_INTERNAL, "x" * 10_000, field="y" * 10_000)
    assert len(error.detail) <= 512
    assert len(error.field) <= 128


def test_a_reason_of_a_newer_peer_is_internal_and_so_unknown():
    """An old client that met a new reason once read it as refused and dropped the intent; only
    "unknown" is safe to believe.
    """
    error = FailureError.from_item(pb.Failure(reason=9999, message="m"))
    assert (error.reason, error.outcome) == (pb.REASON_INTERNAL, pb.OUTCOME_UNKNOWN)
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason="BRAND_NEW", domain=DOMAIN))
    status = status_pb2.Status(code=9, message="m", details=[packed])
    error = FailureError.from_rpc(Rpc((DETAILS_TRAILER, status.SerializeToString())))
    assert error.reason == pb.REASON_INTERNAL


def test_what_others_say_is_not_taken_for_ours():
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.ErrorInfo(reason="HANDLE_REVOKED", domain="example.com"))
    status = status_pb2.Status(code=7, message="m", details=[packed])
    assert FailureError.from_rpc(Rpc((DETAILS_TRAILER, status.SerializeToString()))) is None
    assert FailureError.from_rpc(Rpc()) is None
    assert FailureError.from_rpc(grpc.RpcError()) is None


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_the_status_carries_the_standard_details(reason):
    status = FailureError(reason, field="f", retry_after_ms=1500).to_status()
    kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
    assert kinds == ["ErrorInfo", "BadRequest", "RetryInfo"]


@given(st.binary(max_size=100))
def test_a_broken_trailer_is_not_believed(data):
    try:
        FailureError.from_rpc(Rpc((DETAILS_TRAILER, data)))
    except Exception as error:
        name = type(error).__name__
        raise AssertionError(f"from_rpc raised {name}") from error
