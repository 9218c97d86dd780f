"""Failures of a handle that is not valid now and may be soon. Pure."""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

_CAUSES = frozenset(
    {
        failures_pb2.REASON_STORE_UNAVAILABLE,
        failures_pb2.REASON_TOKEN_UNAVAILABLE,
        failures_pb2.REASON_OVERLOADED,
    }
)
"""Failures of the adapter that callers may hear as it stated them. Every other one is told as an
adapter that cannot be reached.
"""


class NotYetError(FailureError):
    """No valid handle now, but there may be one soon. Its outcome is always *unavailable*."""


def ended_upstream(failure: FailureError) -> NotYetError:
    """The failure for a handle that the adapter refused as expired by its clock, without binding
    the intent. It is renewed, and the same call may succeed then.
    """
    said = said_in(failure) or "The handle has ended by the adapter's clock."
    return NotYetError(
        failures_pb2.REASON_UPSTREAM_UNREACHABLE,
        f"{said} It is asked for anew.",
        retry_after_ms=200,
    )


def said_in(failure: FailureError) -> str:
    """The failure's own sentence, without the advice that is part of its reason."""
    return failure.detail.removesuffix(failure.advice).strip()


class LastError:
    """Why handles could not be fetched the last time; None if they could. Shared by the sockets of
    an agent.
    """

    def __init__(self) -> None:
        self.failure: FailureError | None = None

    def unavailable(self, what: str) -> FailureError:
        """The failure of a call whose handle has ended or has not been fetched yet; `what` says
        which.
        """
        failure = self.failure
        if failure is None:
            return NotYetError(
                failures_pb2.REASON_UPSTREAM_UNREACHABLE, f"{what}.", retry_after_ms=200
            )
        said = said_in(failure)
        reason = (
            failure.reason
            if failure.reason in _CAUSES
            else failures_pb2.REASON_UPSTREAM_UNREACHABLE
        )
        return NotYetError(
            reason, f"{what}. Asked for new ones: {failure.row.name}. {said}", retry_after_ms=500
        )

    @property
    def final(self) -> bool:
        """Whether an adapter answered and refused: this workload gets no handles."""
        return self.failure is not None and self.failure.outcome == failures_pb2.OUTCOME_REFUSED
