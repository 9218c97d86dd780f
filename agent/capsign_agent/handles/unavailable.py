"""What is said of a handle that is not good now and may be in a moment. Pure."""

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
"""What an adapter says of itself, and callers may hear as it was said. All else is an adapter that
cannot be reached.
"""


class NotYetError(FailureError):
    """There is no good handle now, and there may be one in a moment. Always *unavailable*."""


def ended_upstream(failure: FailureError) -> NotYetError:
    """An adapter refused a handle as ended by its clock, and bound no intent to that. It is
    renewed, and may be used then.
    """
    said = said_in(failure) or "The handle has ended by the adapter's clock."
    return NotYetError(
        failures_pb2.REASON_UPSTREAM_UNREACHABLE,
        f"{said} It is asked for anew.",
        retry_after_ms=200,
    )


def said_in(failure: FailureError) -> str:
    """The sentence of a failure, without the advice that belongs to its reason."""
    return failure.detail.removesuffix(failure.row.advice).strip()


class LastError:
    """Why handles could not be fetched the last time; None after a time that went well. Shared by
    the sockets of an agent.
    """

    def __init__(self) -> None:
        self.failure: FailureError | None = None

    def unavailable(self, what: str) -> FailureError:
        """The failure of a call about a handle that has ended, or has not come yet."""
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
        """Whether the adapter was there and refused: it gives this workload nothing."""
        return self.failure is not None and self.failure.outcome == failures_pb2.OUTCOME_REFUSED
