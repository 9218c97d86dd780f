"""Who holds a place: the adapter serves a bounded number of calls at once, and no certificate and no workload may hold them all.

A certificate is known by its key. A renewal makes another key while the last one is still good, so what holds for a key does not
hold for the workload: it is counted too, by its SPIFFE ID, which all the pods of a Deployment share.

A place says how many calls there are at once, not how many one after another: so each workload has a rate for each unary method
too. Signatures are not counted there; they have their grant's.

Streams lie idle for hours by design. A unary call too holds a thread from its headers on, for as long as its caller does not send
the request: so every method is registered as one that takes a stream of requests, which on the wire is the same, and the wait for
its one request is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2
from google.protobuf.message import Message

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.guard import admit_call
from capsign_adapter.sign.edge import failure_of

STREAMS_OF_ONE_KEY = 16
"""Streams of one certificate key. An agent has up to eight that sign and one that watches; the rest is for those of a connection
that broke, which stay until keepalive finds out."""

WAITING_OF_ONE_KEY = 8
"""Unary calls of one certificate key whose request has not arrived yet."""

COUNTS_AGAIN_BYTES = 64 * 1024
"""A unary call counts once, and once more for each of these in its request."""

SECONDS_AT_ONCE = 5
"""After a pause, as many calls as in so many seconds."""

REQUEST_SECONDS = 5.0
"""Longest wait for the request of a unary call."""


def streams_of_one_workload(places: int) -> int:
    """Streams of one SPIFFE ID where so many calls are served at once: three quarters, and never less than a key may have."""
    return max(places * 3 // 4, STREAMS_OF_ONE_KEY)


def calls_of_one_workload(places: int) -> int:
    """Streams and unary calls of one SPIFFE ID together, from the headers to the answer: seven eighths, so that a workload with
    all the streams it may have still renews its handles."""
    return max(places * 7 // 8, STREAMS_OF_ONE_KEY + WAITING_OF_ONE_KEY)


class Waiting:
    """Calls whose request has not arrived yet, each for REQUEST_SECONDS at most. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[grpc.ServicerContext, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    @contextmanager
    def of(self, context: grpc.ServicerContext) -> Iterator[None]:
        """The call waits until the block ends."""
        with self._lock:
            self._until[context] = time.monotonic() + REQUEST_SECONDS
        try:
            yield
        finally:
            with self._lock:
                del self._until[context]

    def sweep(self) -> int:
        """End the calls that have waited too long; how many."""
        now = time.monotonic()
        with self._lock:
            late = [context for context, until in self._until.items() if until < now]
        for context in late:
            context.cancel()
        return len(late)


class _Share(NamedTuple):
    """What one call adds to a count, and how far that may go."""

    name: tuple[str, str | bytes]
    most: int
    who: str
    what: str


class Places:
    """Counts what each certificate key and each workload holds. Any thread may call any method."""

    def __init__(self, policy: Policy, places: int, rates: Buckets, calls_per_second: int) -> None:
        """`places` are the calls that are served at once; `calls_per_second` holds for each unary method and workload.

        `rates` are this one's own: they count calls.
        """
        self._policy = policy
        self._rates = rates
        self._calls_per_second = calls_per_second
        self._streams_of_one_workload = streams_of_one_workload(places)
        self._calls_of_one_workload = calls_of_one_workload(places)
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, str | bytes]] = Counter()
        self._waiting = Waiting()

    @contextmanager
    def stream(self, context: grpc.ServicerContext) -> Iterator[Peer]:
        """The peer of a stream, and a place for it until the block ends. Ends the call with a typed failure if there is none."""
        with self._held_by(context, self._for_a_stream) as peer:
            yield peer

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """The same for a unary call that waits for its request, until `sweep` finds that it has waited too long."""
        with self._held_by(context, self._for_a_wait), self._waiting.of(context):
            yield

    @contextmanager
    def working(self, context: grpc.ServicerContext, method: str, size: int) -> Iterator[None]:
        """The same for a unary call that has its request, of so many bytes, until it is answered."""

        def shares_of(peer: Peer) -> list[_Share]:
            self._demand_rate(peer, method, size)
            return self._for_work(peer)

        with self._held_by(context, shares_of):
            yield

    def sweep(self) -> int:
        """End the calls that have waited too long for their request; how many."""
        return self._waiting.sweep()

    def _for_a_stream(self, peer: Peer) -> list[_Share]:
        return [
            _Share(("streams", peer.key_hash), STREAMS_OF_ONE_KEY, "This certificate", "streams"),
            _Share(("streams", peer.spiffe_id), self._streams_of_one_workload, "This workload", "streams"),
            *self._for_work(peer),
        ]

    def _for_a_wait(self, peer: Peer) -> list[_Share]:
        return [
            _Share(("waiting", peer.key_hash), WAITING_OF_ONE_KEY, "This certificate", "calls whose request has not come"),
            *self._for_work(peer),
        ]

    def _for_work(self, peer: Peer) -> list[_Share]:
        return [_Share(("calls", peer.spiffe_id), self._calls_of_one_workload, "This workload", "calls")]

    def _demand_rate(self, peer: Peer, method: str, size: int) -> None:
        """Raises FailureError RATE_LIMITED. People with roles are few; they read a log as fast as it can be read."""
        if self._policy.roles_of(peer.spiffe_id):
            return
        rate, count = self._calls_per_second, 1 + size // COUNTS_AGAIN_BYTES
        granted, wait_ms = self._rates.spend(peer.spiffe_id, method, rate, rate * SECONDS_AT_ONCE, count)
        if not granted:
            sentence = f"This workload calls {method} too often."
            raise FailureError(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=wait_ms)

    @contextmanager
    def _held_by(self, context: grpc.ServicerContext, shares_of: Callable[[Peer], list[_Share]]) -> Iterator[Peer]:
        try:
            peer = admit_call(context)
            if not self._policy.grants_of(peer.spiffe_id) and not self._policy.roles_of(peer.spiffe_id):
                raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy does not name this identity.")
            shares = shares_of(peer)
            self._take(shares)
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        try:
            yield peer
        finally:
            self._leave(shares)

    def _take(self, shares: list[_Share]) -> None:
        """All of them or none. Raises FailureError OVERLOADED."""
        with self._lock:
            for share in shares:
                if self._held[share.name] >= share.most:
                    sentence = f"{share.who} has {share.most} open {share.what}."
                    raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
            self._held.update(share.name for share in shares)

    def _leave(self, shares: list[_Share]) -> None:
        with self._lock:
            for share in shares:
                self._held[share.name] -= 1
                if not self._held[share.name]:
                    del self._held[share.name]


class WaitingRoom(Protocol):
    """Where unary calls wait for their request; `Places` is one."""

    def waiting(self, context: grpc.ServicerContext) -> AbstractContextManager[None]:
        """A place to wait in until the block ends. Ends the call with a typed failure if there is none."""


class PatientRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods wait for their request within bounds.

    `working` gives the place of a unary call, from its request to its answer, for the method's name and the request's bytes; it
    ends the call if there is none. Without it the methods see to that.
    """

    def __init__(
        self,
        server: Any,
        places: WaitingRoom,
        working: Callable[[grpc.ServicerContext, str, int], AbstractContextManager[None]] = lambda *_: nullcontext(),
    ) -> None:
        self._server = server
        self._places = places
        self._working = working

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on, each unary one with a bounded wait before it."""
        patient = {name: self._patient(name, handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, patient)

    def _patient(self, name: str, handler: Any) -> Any:
        if handler.request_streaming:
            return handler
        make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        behaviour: Callable[[Any, Any], Any] = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return behaviour(self._one_of(requests, context), context)

        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            request = self._one_of(requests, context)
            size = request.ByteSize() if isinstance(request, Message) else 0
            with self._working(context, name, size):
                return behaviour(request, context)

        return make(stream if handler.response_streaming else call, handler.request_deserializer, handler.response_serializer)

    def _one_of(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with self._places.waiting(context):
            request = next(requests, None)
        if request is None:
            abort(context, FailureError(failures_pb2.REASON_INPUT_MALFORMED, "The call carries no request."))
        return request
