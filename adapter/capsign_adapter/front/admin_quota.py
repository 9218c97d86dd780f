"""Quotas of concurrent calls on the listener for people: identities with a role, and nobody else.

Calls that revoke, calls that change something else, and calls that only look are counted apart:
however many people read the log, a responder can still revoke. No single identity may use up any
of the quotas.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import PolicyNow, Role
from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.guard import admit_call
from capsign_adapter.sign.failures import failure_of

LOOKING = 16
"""Concurrent calls that only look."""

CHANGING = 16
"""Concurrent calls that change something else: approvals, keys, policy."""

REVOKING = 16
"""Concurrent calls of methods that withdraw."""

OF_ONE_IDENTITY = 8
"""Concurrent calls of one identity, of each of the three kinds."""

_LOOKS = ("Get", "List", "Show", "Plan", "Watch", "Check", "Preview")
"""How the methods that only look begin."""

URGENT = frozenset({"Revoke", "WithdrawKeyVersion"})
"""Methods that withdraw."""

REVOKERS = frozenset({Role.OPERATOR, Role.RESPONDER})


class AdminQuota:
    """Counts the open calls of people. Safe for any thread."""

    def __init__(self, policy: PolicyNow) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, str]] = Counter()
        self.deadlines = CallDeadlines()
        """Calls that wait for a request, or for their answer to be taken."""

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, method: str) -> Iterator[None]:
        """Count a call that waits for its request; `sweep` cancels it after REQUEST_SECONDS. Ends
        the call with a typed failure if the identity has no role or a bound is reached.
        """
        leave = self._enter(context, method)
        try:
            with self.deadlines.of(context):
                yield
        finally:
            leave()

    @contextmanager
    def working(self, context: grpc.ServicerContext, method: str, _: int) -> Iterator[None]:
        """Count a call whose request has come, until its caller has taken the answer or `sweep`
        cancels it (ANSWER_SECONDS). Ends the call as `waiting` does.
        """
        with self.deadlines.answering(context, self._enter(context, method)):
            yield

    def sweep(self) -> int:
        """Cancel the calls that have waited too long. Returns how many."""
        return self.deadlines.sweep()

    def _enter(self, context: grpc.ServicerContext, method: str) -> Callable[[], None]:
        try:
            identity = admit_call(context).spiffe_id
            roles = self._policy().roles_of(identity)
            kind, most = sort_of(method)
            if not roles:
                raise FailureError(
                    failures_pb2.REASON_ROLE_MISSING,
                    "This address is for people with a role in the policy.",
                )
            if kind == "revoke" and not roles & REVOKERS:
                raise FailureError(
                    failures_pb2.REASON_ROLE_MISSING, "Only operators and responders revoke."
                )
            self._take(kind, most, identity)
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        return lambda: self._leave(kind, identity)

    def _take(self, kind: str, most: int, identity: str) -> None:
        with self._lock:
            if self._held[kind, identity] >= OF_ONE_IDENTITY:
                sentence = f"This identity has {OF_ONE_IDENTITY} open calls."
                raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
            if self._held[kind, ""] >= most:
                sentence = f"{most} such calls of people are open."
                raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
            self._held.update(((kind, identity), (kind, "")))

    def _leave(self, kind: str, identity: str) -> None:
        with self._lock:
            for name in ((kind, identity), (kind, "")):
                self._held[name] -= 1
                if not self._held[name]:
                    del self._held[name]


def sort_of(method: str) -> tuple[str, int]:
    """The sort of a method, and how many calls of it there may be at once."""
    if method in URGENT:
        return "revoke", REVOKING
    return ("look", LOOKING) if method.startswith(_LOOKS) else ("change", CHANGING)
