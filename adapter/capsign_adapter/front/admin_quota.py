"""Who holds a place on the listener for people: identities with a role, and nobody else.

What withdraws is apart from what looks: reading the log, however many do it, leaves the places of
those who revoke, and only who may revoke is let into these. No single identity and no certificate
may hold all of either.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import Policy, Role
from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.guard import admit_call
from capsign_adapter.sign.failures import failure_of

LOOKING = 16
"""Calls at once that only look."""

REVOKING = 16
"""Calls at once that revoke."""

OF_ONE_IDENTITY = 8
"""Calls of one identity at once, of either sort."""

REVOKERS = frozenset({Role.OPERATOR, Role.RESPONDER})


class AdminQuota:
    """Counts what people hold. Any thread may call any method."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, str]] = Counter()
        self.deadlines = CallDeadlines()
        """Who waits."""

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, method: str) -> Iterator[None]:
        """A place for a call that waits for its request, until `sweep` finds that it has waited
        too long. Ends the call with a typed failure if there is none."""
        leave = self._enter(context, method)
        try:
            with self.deadlines.of(context):
                yield
        finally:
            leave()

    @contextmanager
    def working(self, context: grpc.ServicerContext, method: str, _: int) -> Iterator[None]:
        """The same for a call that has its request, until its answer was taken or has lain for
        long enough."""
        with self.deadlines.answering(context, self._enter(context, method)):
            yield

    def sweep(self) -> int:
        """End the calls that have waited too long; how many."""
        return self.deadlines.sweep()

    def _enter(self, context: grpc.ServicerContext, method: str) -> Callable[[], None]:
        try:
            identity = admit_call(context).spiffe_id
            roles = self._policy.roles_of(identity)
            kind, most = ("revoke", REVOKING) if method == "Revoke" else ("look", LOOKING)
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
