"""Who holds a place: the adapter serves a bounded number of calls at once, and no certificate and
no workload may hold them all.

A certificate is known by its key. A renewal makes another key while the last one is still good, so
what holds for a key does not hold for the workload: it is counted too, by its SPIFFE ID, which all
the pods of a Deployment share.

Tenants come before workloads: each has a part of the places that the others cannot take, see
`decide.reserved_capacity`.

A place says how many calls there are at once, not how many one after another: so each workload has
a rate for each unary method too. Signatures are not counted there; they have their grant's.

A place is held from the headers of a call until it is over: until its answer was taken, or will
never be. How long it may wait for its request, and an answer for its caller, is in `patience`.
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
from capsign_adapter.decide.policy import Policy
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
"""A unary call counts once, and once more for each of these in its request."""

SECONDS_AT_ONCE = 5
"""After a pause, as many calls as in so many seconds."""


def streams_of_one_workload(places: int) -> int:
    """Streams of one SPIFFE ID where so many calls are served at once: three quarters, and never
    less than a key may have.
    """
    return max(places * 3 // 4, STREAMS_OF_ONE_KEY)


def calls_of_one_workload(places: int) -> int:
    """Streams and unary calls of one SPIFFE ID together, from the headers to the answer: seven
    eighths, so that a workload with all the streams it may have still renews its handles.
    """
    return max(places * 7 // 8, STREAMS_OF_ONE_KEY + WAITING_OF_ONE_KEY)


def calls_of_one_key(places: int) -> int:
    """The same of one certificate: three quarters of its workload's, and three at least. One pod
    leaves its siblings a way in.
    """
    return max(calls_of_one_workload(places) * 3 // 4, 3)


class _Share(NamedTuple):
    """What one call adds to a count, and how far that may go."""

    name: tuple[str, str | bytes]
    most: int
    who: str
    what: str


class PeerQuota:
    """Counts what each certificate key and each workload holds. Any thread may call any method."""

    def __init__(self, policy: Policy, places: int, rates: Buckets, calls_per_second: int) -> None:
        """`places` are the calls that are served at once; `calls_per_second` holds for each unary
        method and workload.

        `rates` are this one's own: they count calls.
        """
        self._policy = policy
        self._rates = rates
        self._calls_per_second = calls_per_second
        self._streams_of_one_workload = streams_of_one_workload(places)
        self._calls_of_one_workload = calls_of_one_workload(places)
        self._calls_of_one_key = calls_of_one_key(places)
        self._places = places
        self._lock = threading.Lock()
        self.held: Counter[tuple[str, str | bytes]] = Counter()
        """How many places each share has taken: what, and whose."""
        self._reserved = ReservedCapacity(places, len(policy.tenants))
        self.deadlines = CallDeadlines()
        """Who waits."""

    @contextmanager
    def stream(self, context: grpc.ServicerContext) -> Iterator[Peer]:
        """The peer of a stream, and a place for it until the block ends. Ends the call with a typed
        failure if there is none.
        """
        peer, leave = self._enter(context, self._for_a_stream)
        try:
            yield peer
        finally:
            leave()

    def each(self, requests: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Request]:
        """The requests of a stream. `sweep` ends one that waits too long for its next."""
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
        """The answers of a stream, each of which its caller must take. `sweep` ends one that does
        not.
        """
        for answer in answers:
            self.deadlines.begin(context, ANSWER_SECONDS)
            try:
                yield answer  # gRPC comes back when this one is sent
            finally:
                self.deadlines.end(context)

    @contextmanager
    def waiting(self, context: grpc.ServicerContext, method: str) -> Iterator[None]:
        """The same for a unary call that waits for its request, until `sweep` finds that it has
        waited too long.
        """
        _, leave = self._enter(context, self._for_a_wait)
        try:
            with self.deadlines.of(context):
                yield
        finally:
            leave()

    @contextmanager
    def working(self, context: grpc.ServicerContext, method: str, size: int) -> Iterator[None]:
        """The same for a unary call that has its request, of so many bytes, until its caller has
        taken the answer, or until `sweep` finds that it has had long enough."""

        def shares_of(peer: Peer) -> list[_Share]:
            self._demand_rate(peer, method, size)
            return self._for_work(peer)

        _, leave = self._enter(context, shares_of)
        with self.deadlines.answering(context, leave):
            yield

    def sweep(self) -> int:
        """End the calls that have waited too long, see `patience`; how many."""
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
        """Raises FailureError RATE_LIMITED. People with roles are few; they read a log as fast as
        it can be read.
        """
        if self._policy.roles_of(peer.spiffe_id):
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
        """The peer, and what gives its place back. Ends the call with a typed failure if there is
        none.
        """
        try:
            peer = admit_call(context)
            grants = self._policy.grants_of(peer.spiffe_id)
            if not grants and not self._policy.roles_of(peer.spiffe_id):
                raise FailureError(
                    failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy does not name this identity."
                )
            shares = shares_of(peer)
            owner = grants[0].tenant if grants else PEOPLE
            self._take(shares, owner)
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        return peer, lambda: self._leave(shares, owner)

    def _take(self, shares: list[_Share], owner: str) -> None:
        """All of them or none. Raises FailureError OVERLOADED."""
        with self._lock:
            for share in shares:
                if self.held[share.name] >= share.most:
                    sentence = f"{share.who} has {share.most} open {share.what}."
                    raise FailureError(
                        failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000
                    )
            if not self._reserved.has_capacity(owner):
                sentence = (
                    f"Of the {self._places} calls that this adapter serves at once this "
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
