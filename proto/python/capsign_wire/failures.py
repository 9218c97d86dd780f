"""Typed failures: a reason, an outcome, and a sentence for a person.

Inside a process a failure is a `FailureError`. On the wire it is either the `Failure` of one item
or, for a whole RPC, a `google.rpc.Status` with `ErrorInfo` (and `BadRequest`, `RetryInfo` where
they apply) in the `grpc-status-details-bin` trailer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from capsign_wire.advice import Given, advice_in, advice_of
from capsign_wire.types.v1 import failures_pb2 as pb

DOMAIN = "capsign.dev"
"""The `domain` of every ErrorInfo of ours."""

DETAILS_TRAILER = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """What a reason means; see `failures.proto`."""

    name: str
    outcome: pb.Outcome.ValueType
    status: grpc.StatusCode
    advice: str


def _read() -> Mapping[int, ReasonRow]:
    table = {}
    for value in pb.Reason.DESCRIPTOR.values:
        row = value.GetOptions().Extensions[pb.meaning]
        if row.status:
            name = value.name.removeprefix("REASON_")
            table[value.number] = ReasonRow(
                name, row.outcome, grpc.StatusCode[row.status], row.advice
            )
    return MappingProxyType(table)


REASONS: Mapping[int, ReasonRow] = _read()
"""Rows by enum number."""


class FailureError(Exception):
    """A call that failed.

    `reason` says why, `outcome` what is true now (refused, unknown or unavailable: three different
    things), `detail` is a sentence for a person, and ends with `advice`, which says what to do.
    None of them ever repeats a message, digest or token of the caller.
    """

    def __init__(
        self,
        reason: pb.Reason.ValueType,
        detail: str = "",
        *,
        field: str = "",
        retry_after_ms: int = 0,
        given: Given | None = None,
    ) -> None:
        """`given`: what is refused, of an input; its advice is for that then."""
        self.reason = reason
        self.row = REASONS[reason]
        self.advice = advice_of(reason, given, self.row.advice)
        self.detail = f"{detail} {self.advice}".strip()[:512]
        self.field = field[:128]
        self.retry_after_ms = retry_after_ms
        super().__init__(f"{self.row.name}: {self.detail}")

    @property
    def outcome(self) -> pb.Outcome.ValueType:
        return self.row.outcome

    def to_item(self) -> pb.Failure:
        """Returns the failure of one item of a batch."""
        return pb.Failure(
            reason=self.reason,
            message=self.detail,
            field=self.field,
            retry_after_ms=self.retry_after_ms,
        )

    def to_status(self) -> status_pb2.Status:
        """Returns the failure of a whole RPC."""
        details: list[any_pb2.Any] = []
        parts: list[Any] = [error_details_pb2.ErrorInfo(reason=self.row.name, domain=DOMAIN)]
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.detail
            )
            parts.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_ms:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(self.retry_after_ms)
            parts.append(error_details_pb2.RetryInfo(retry_delay=delay))
        for part in parts:
            packed = any_pb2.Any()
            packed.Pack(part)
            details.append(packed)
        code = code_pb2.Code.Value(self.row.status.name)
        return status_pb2.Status(code=code, message=self.detail, details=details)

    @classmethod
    def from_item(cls, failure: pb.Failure) -> FailureError:
        """Returns the error for a batch item's failure. An unknown reason becomes INTERNAL."""
        reason = failure.reason if failure.reason in REASONS else pb.REASON_INTERNAL
        error = cls(reason, field=failure.field, retry_after_ms=failure.retry_after_ms)
        if failure.message:
            error.detail = failure.message
            error.advice = advice_in(reason, failure.message, error.row.advice)
        error.args = (f"{error.row.name}: {error.detail}",)
        return error

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> FailureError | None:
        """Returns the error for a failed RPC; None if the peer sent no typed failure (gRPC itself
        failed).
        """
        for key, value in _trailers(error):
            if key == DETAILS_TRAILER:
                try:
                    return cls._from_status(value)
                except DecodeError:
                    return None
        return None

    @classmethod
    def _from_status(cls, serialised: bytes) -> FailureError | None:
        status = status_pb2.Status.FromString(serialised)
        info, field, retry_after_ms = error_details_pb2.ErrorInfo(), "", 0
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                field = bad.field_violations[0].field if bad.field_violations else ""
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after_ms = retry.retry_delay.ToMilliseconds()
        if info.domain != DOMAIN:
            return None
        number = pb.Reason.DESCRIPTOR.values_by_name.get(f"REASON_{info.reason}")
        failure = pb.Failure(
            message=status.message[:512], field=field, retry_after_ms=retry_after_ms
        )
        failure.reason = pb.Reason.ValueType(number.number) if number else pb.REASON_INTERNAL
        return cls.from_item(failure)


def _trailers(error: grpc.RpcError) -> list[tuple[str, Any]]:
    trailing = getattr(error, "trailing_metadata", None)
    return list(trailing() or ()) if trailing else []


class RpcStatus(grpc.Status):
    """A FailureError in the shape that `ServicerContext.abort_with_status` takes, sync and aio."""

    def __init__(self, error: FailureError) -> None:
        self.code = error.row.status
        self.details = error.detail
        self.trailing_metadata = ((DETAILS_TRAILER, error.to_status().SerializeToString()),)


def abort(context: grpc.ServicerContext, error: FailureError) -> NoReturn:
    """End a synchronous RPC with this failure. It raises an exception, which must not be caught."""
    status = RpcStatus(error)
    context.set_trailing_metadata(status.trailing_metadata)
    context.abort(status.code, status.details)
    raise AssertionError("abort raises")
