"""Quotas of concurrent calls and of call rates, by certificate, workload and tenant.

The adapter serves a bounded number of calls at once. No certificate and no workload may use all of
it.

* A certificate is identified by its key. A renewal makes a second key while the first is still
  valid, so the workload (its SPIFFE ID, which all pods of a Deployment share) has a bound as well.
* Each tenant has a reserved part of the capacity, see `decide.reserved_capacity`.
* Each workload has a rate for each unary method. Signatures are not counted there: they have the
  rate of their grant.

A call counts from its headers until its answer was taken or the call has ended. `call_deadlines`
bounds how long it may wait for its request, and how long its answer may wait for the caller.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import PolicyNow
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.decide.reserved_capacity import PEOPLE, ReservedCapacity
from capsign_adapter.front.call_deadlines import ANSWER_SECONDS, STREAM_SECONDS, CallDeadlines
from capsign_adapter.front.guard import admit_call
from capsign_adapter.sign.failures import failure_of

Request = TypeVar("Request")
Answer = TypeVar("Answer")

STREAMS_OF_ONE_KEY = 16
"""Streams of one certificate key. An agent has up to eight that sign and one that watches; the rest
is for those of a connection that broke, which stay until keepalive finds out.
"""

WAITING_OF_ONE_KEY = 8
"""Unary calls of one certificate key whose request has not arrived yet."""

COUNTS_AGAIN_BYTES = 64 * 1024
"""A unary call counts as one call, and as one more for each 64 KiB of its request."""

SECONDS_AT_ONCE = 5
"""Burst of a method's rate: as many calls at once as the rate gives in this many seconds."""


def streams_of_one_workload(max_calls: int) -> int:
    """Most concurrent streams of one SPIFFE ID: three quarters of `max_calls`, the calls that are
    served at once, and at least as many as one key may have.
    """
    return max(max_calls * 3 // 4, STREAMS_OF_ONE_KEY)


def calls_of_one_workload(max_calls: int) -> int:
    """Most concurrent calls of one SPIFFE ID, streams included: seven eighths of `max_calls`, so
    that a workload with all the streams it may have can still renew its handles.
    """
    return max(max_calls * 7 // 8, STREAMS_OF_ONE_KEY + WAITING_OF_ONE_KEY)


def calls_of_one_key(max_calls: int) -> int:
    """Most concurrent calls of one certificate: three quarters of its workload's, and at least
    three. One pod cannot use up what its siblings share with it.
    """
    return max(calls_of_one_workload(max_calls) * 3 // 4, 3)


class _Share(NamedTuple):
    """One count that a call adds to, and its bound. `who` and `what` are words for the refusal."""

    name: tuple[str, str | bytes]
    most: int
    who: str
    what: str


class PeerQuota:
    """Counts the open calls of each certificate key and each workload. Safe for any thread."""

    def __init__(
        self, policy: PolicyNow, max_calls: int, rates: Buckets, calls_per_second: int
    ) -> None:
        """`max_calls` are served at once. `calls_per_second` is the rate of each unary method for
        each workload. `rates` must not be shared with others: these buckets count calls.
        """
        self._policy = policy
        self._rates = rates
        self._calls_per_second = calls_per_second
        self._streams_of_one_workload = streams_of_one_workload(max_calls)
        self._calls_of_one_workload = calls_of_one_workload(max_calls)
        self._calls_of_one_key = calls_of_one_key(max_calls)
        self._max_calls = max_calls
        self._lock = threading.Lock()
        self.held: Counter[tuple[str, str | bytes]] = Counter()
        """Open calls by kind ("streams", "waiting", "calls") and by key or SPIFFE ID."""
        self._reserved = ReservedCapacity(max_calls, len(policy().tenants))
        self.deadlines = CallDeadlines()
        """Calls that wait for a request, or for their answer to be taken."""

    @contextmanager
    def stream(self, context: grpc.ServicerContext) -> Iterator[Peer]:
        """Count a stream until the block ends; gives its peer. Ends the call with a typed failure
        if the peer is not in policy or a bound is reached.
        """
        peer, leave = self._enter(context, self._for_a_stream)
        try:
            yield peer
        finally:
            leave()

    def each(self, requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Request]:
        """Yields the requests of a stream. `sweep` cancels a stream that waits for longer than
        STREAM_SECONDS for the next one.
        """
        while True:
            self.deadlines.begin(context, STREAM_SECONDS)
            try:
                request = next(requests, None)
            finally:
                self.deadlines.end(context)
            if request is None:
                return
            yield request

    def taken(self, answers: Iterable[Answer], context: grpc.ServicerContext) -> Iterator[Answer]:
        """Yields the answers of a stream. `sweep` cancels a stream whose caller does not take one
        within ANSWER_SECONDS.
        """
        for answer in answers:
            self.deadlines.begin(context, ANSWER_SECONDS)
            try:
                yield answer  # gRPC comes back when this one is sent
            finally:
                self.deadlines.end(context)

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, method: str) -> Iterator[None]:
        """Count a unary call that waits for its request. `sweep` cancels it after
        REQUEST_SECONDS.
        """
        _, leave = self._enter(context, self._for_a_wait)
        try:
            with self.deadlines.of(context):
                yield
        finally:
            leave()

    @contextmanager
    def working(self, context: grpc.ServicerContext, method: str, size: int) -> Iterator[None]:
        """Count a unary call whose request of `size` bytes has come, until its caller has taken
        the answer or `sweep` cancels it (ANSWER_SECONDS).
        """

        def shares_of(peer: Peer) -> list[_Share]:
            self._demand_rate(peer, method, size)
            return self._for_work(peer)

        _, leave = self._enter(context, shares_of)
        with self.deadlines.answering(context, leave):
            yield

    def sweep(self) -> int:
        """Cancel the calls that have waited too long, see `call_deadlines`. Returns how many."""
        return self.deadlines.sweep()

    def _for_a_stream(self, peer: Peer) -> list[_Share]:
        return [
            _Share(("streams", peer.key_hash), STREAMS_OF_ONE_KEY, "This certificate", "streams"),
            _Share(
                ("streams", peer.spiffe_id),
                self._streams_of_one_workload,
                "This workload",
                "streams",
            ),
            *self._for_work(peer),
        ]

    def _for_a_wait(self, peer: Peer) -> list[_Share]:
        return [
            _Share(
                ("waiting", peer.key_hash),
                WAITING_OF_ONE_KEY,
                "This certificate",
                "calls whose request has not come",
            ),
            *self._for_work(peer),
        ]

    def _for_work(self, peer: Peer) -> list[_Share]:
        return [
            _Share(("calls", peer.key_hash), self._calls_of_one_key, "This certificate", "calls"),
            _Share(
                ("calls", peer.spiffe_id), self._calls_of_one_workload, "This workload", "calls"
            ),
        ]

    def _demand_rate(self, peer: Peer, method: str, size: int) -> None:
        """Charge a call to its workload's rate. Raises FailureError RATE_LIMITED.

        Identities with a role are not limited: they are few, and an auditor reads the log as fast
        as it can be read.
        """
        if self._policy().roles_of(peer.spiffe_id):
            return
        rate, count = self._calls_per_second, 1 + size // COUNTS_AGAIN_BYTES
        granted, wait_ms = self._rates.spend(
            peer.spiffe_id, method, rate, rate * SECONDS_AT_ONCE, count, peer.key_hash
        )
        if not granted:
            sentence = f"This workload calls {method} too often."
            raise FailureError(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=wait_ms)

    def _enter(
        self, context: grpc.ServicerContext, shares_of: Callable[[Peer], list[_Share]]
    ) -> tuple[Peer, Callable[[], None]]:
        """Identify the peer and count its call. Returns the peer and a function that ends the
        counting. Ends the call with a typed failure if the peer is unknown or a bound is reached.
        """
        try:
            peer, policy = admit_call(context), self._policy()
            grants = policy.grants_of(peer.spiffe_id)
            if not grants and not policy.roles_of(peer.spiffe_id):
                raise FailureError(
                    failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy does not name this identity."
                )
            shares = shares_of(peer)
            owner = grants[0].tenant if grants else PEOPLE
            self._take(shares, owner, len(policy.tenants))
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        return peer, lambda: self._leave(shares, owner)

    def _take(self, shares: list[_Share], owner: str, tenants: int) -> None:
        """Take all shares or none, where policy has so many tenants. Raises FailureError
        OVERLOADED.
        """
        with self._lock:
            self._reserved.divide(tenants)
            for share in shares:
                if self.held[share.name] >= share.most:
                    sentence = f"{share.who} has {share.most} open {share.what}."
                    raise FailureError(
                        failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000
                    )
            if not self._reserved.has_capacity(owner):
                sentence = (
                    f"Of the {self._max_calls} calls that this adapter serves at once this "
                    f"tenant has all that it may."
                )
                raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
            self._reserved.acquire(owner)
            self.held.update(share.name for share in shares)

    def _leave(self, shares: list[_Share], owner: str) -> None:
        with self._lock:
            self._reserved.release(owner)
            for share in shares:
                self.held[share.name] -= 1
                if not self.held[share.name]:
                    del self.held[share.name]
