"""The contract of identity sources, and their error."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.identity.credentials import Credentials

LOCAL_REASONS = {
    "TOKEN_UNREADABLE": failures_pb2.OUTCOME_UNAVAILABLE,
    "WORKLOAD_API_UNREACHABLE": failures_pb2.OUTCOME_UNAVAILABLE,
    "WORKLOAD_API_REFUSED": failures_pb2.OUTCOME_REFUSED,
    "CREDENTIALS_UNUSABLE": failures_pb2.OUTCOME_UNAVAILABLE,
    "TRUST_OUTDATED": failures_pb2.OUTCOME_UNAVAILABLE,
    "NAME_UNRESOLVED": failures_pb2.OUTCOME_UNAVAILABLE,
    "BUNDLE_LATE": failures_pb2.OUTCOME_UNAVAILABLE,
    "CERTIFICATE_ENDED": failures_pb2.OUTCOME_UNAVAILABLE,
}
"""Reasons that only an agent can meet, in addition to those of `failures.proto`, with the outcome
of each.
"""


class IdentityError(Exception):
    """There is no new certificate for now. `word` is a reason of the wire or one of LOCAL_REASONS;
    the text names the fix and never holds a token or a key. `reason` is the wire's number, 0 if it
    has none.
    """

    def __init__(
        self,
        word: str,
        sentence: str,
        reason: failures_pb2.Reason.ValueType = failures_pb2.REASON_UNSPECIFIED,
    ) -> None:
        self.word = word
        self.reason = reason
        self.outcome = FailureError(reason).outcome if reason else LOCAL_REASONS[word]
        self.retry_after_s = 0.0
        self.advice = "" if reason else sentence
        """The sentence, if it is this process's own."""
        super().__init__(sentence)

    @classmethod
    def of(cls, failure: FailureError) -> IdentityError:
        """The adapter's failure as an IdentityError."""
        error = cls(failure.row.name, failure.detail, failure.reason)
        error.retry_after_s = failure.retry_after_ms / 1000
        return error


class IdentitySource(Protocol):
    """Gives the agent its certificate, and each that follows.

    * **Complete.** What it gives belongs together and was checked: the key fits the certificate,
      the authorities are readable.
    * **Newest last.** Each value replaces the one before. The consumer is asked for no value while
      it works on one.
    * **Durable: never the key.** `kubernetes` and `workload-api` keep it in memory only, so every
      life of an agent begins with a new one; `files` leaves it where it was found. Trust that an
      adapter handed out is durable before it is given.
    * **Who retries: the source**, for ever, with backoff and jitter, and it tells `IdentityEvents`
      each change of what hinders it. It gives up never: whether a pod may go on waiting is the
      kubelet's to decide.
    * **Concurrency.** One event loop, one consumer, one call of `changes` in its life.

    A source that cannot work as configured says so when it is made, as a settings.SettingsError.
    """

    def changes(self) -> AsyncGenerator[Credentials, None]:
        """Yields the first credentials as soon as there are some, then each that follow. Ends by
        cancellation only.
        """

    def authorities_changed(self, sequence: int) -> None:
        """An adapter announced this sequence of the trust bundle; 0: it has none. Called often,
        also with the same sequence.
        """
