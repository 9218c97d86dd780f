"""Turns exceptions into typed failures before they leave the process."""

from __future__ import annotations

import os
from pathlib import Path

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.sign import uncertain_commits
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.token.interface import TokenError


def failure_of(error: Exception) -> FailureError:
    """Returns the typed failure for an exception. An unexpected one becomes INTERNAL; its sentence
    and the log share an incident id.
    """
    if isinstance(error, FailureError):
        return error
    if isinstance(error, StoreUnavailableError):
        return FailureError(
            failures_pb2.REASON_STORE_UNAVAILABLE,
            "The adapter's store cannot be used now.",
            retry_after_ms=500,
        )
    if isinstance(error, CommitUnknownError):
        return uncertain_commits.failure()
    if isinstance(error, TokenError):
        logs.error("token.failed", kind=type(error).__name__)
        return FailureError(
            failures_pb2.REASON_TOKEN_UNAVAILABLE, "The HSM gave no answer.", retry_after_ms=1000
        )
    incident = os.urandom(8).hex()
    logs.error("internal.failed", incident=incident, kind=type(error).__name__, where=_where(error))
    return FailureError(
        failures_pb2.REASON_INTERNAL,
        f"The adapter failed inside; its log has this as incident {incident}.",
    )


def _where(error: Exception) -> str:
    """Returns file and line of an exception, without its text, which may hold a caller's data."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return f"{Path(step.tb_frame.f_code.co_filename).name}:{step.tb_lineno}" if step else ""
