"""Who holds a place: the adapter serves a bounded number of calls at once, and no certificate may hold them all.

Streams lie idle for hours by design. A unary call too holds a thread from its headers on, for as long as its caller does not send
the request: so every method is registered as one that takes a stream of requests, which on the wire is the same, and the wait for
its one request is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.guard import admit_call
from capsign_adapter.sign.edge import failure_of

STREAMS_OF_ONE_KEY = 16
"""Streams of one certificate key. An agent has up to eight that sign and one that watches; the rest is for those of a connection
that broke, which stay until keepalive finds out."""

WAITING_OF_ONE_KEY = 8
"""Unary calls of one certificate key whose request has not arrived yet."""

REQUEST_SECONDS = 5.0
"""Longest wait for the request of a unary call."""


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


class Places:
    """Counts what each certificate key holds. Any thread may call any method."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._held: Counter[tuple[str, bytes]] = Counter()
        self._waiting = Waiting()

    @contextmanager
    def stream(self, context: grpc.ServicerContext) -> Iterator[Peer]:
        """The peer of a stream, and a place for it until the block ends. Ends the call with a typed failure if there is none."""
        peer = self._admit(context, "stream", STREAMS_OF_ONE_KEY)
        try:
            yield peer
        finally:
            self._leave("stream", peer)

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """The same for a unary call that waits for its request, until `sweep` finds that it has waited too long."""
        peer = self._admit(context, "waiting", WAITING_OF_ONE_KEY)
        try:
            with self._waiting.of(context):
                yield
        finally:
            self._leave("waiting", peer)

    def sweep(self) -> int:
        """End the calls that have waited too long for their request; how many."""
        return self._waiting.sweep()

    def _admit(self, context: grpc.ServicerContext, kind: str, most: int) -> Peer:
        try:
            peer = admit_call(context)
            if not self._policy.grants_of(peer.spiffe_id) and not self._policy.roles_of(peer.spiffe_id):
                raise FailureError(failures_pb2.REASON_IDENTITY_UNKNOWN, "The policy does not name this identity.")
            with self._lock:
                if self._held[kind, peer.key_hash] >= most:
                    sentence = f"This certificate has {most} open calls of this kind."
                    raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
                self._held[kind, peer.key_hash] += 1
        except Exception as error:  # the edge: nothing passes it untyped
            abort(context, failure_of(error))
        return peer

    def _leave(self, kind: str, peer: Peer) -> None:
        with self._lock:
            self._held[kind, peer.key_hash] -= 1
            if not self._held[kind, peer.key_hash]:
                del self._held[kind, peer.key_hash]


class WaitingRoom(Protocol):
    """Where unary calls wait for their request; `Places` is one."""

    def waiting(self, context: grpc.ServicerContext) -> AbstractContextManager[None]:
        """A place to wait in until the block ends. Ends the call with a typed failure if there is none."""


class PatientRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods wait for their request within bounds."""

    def __init__(self, server: Any, places: WaitingRoom) -> None:
        self._server = server
        self._places = places

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on, each unary one with a bounded wait before it."""
        patient = {name: self._patient(handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, patient)

    def _patient(self, handler: Any) -> Any:
        if handler.request_streaming:
            return handler
        make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
        behaviour: Callable[[Any, Any], Any] = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return behaviour(self._one_of(requests, context), context)

        return make(call, handler.request_deserializer, handler.response_serializer)

    def _one_of(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with self._places.waiting(context):
            request = next(requests, None)
        if request is None:
            abort(context, FailureError(failures_pb2.REASON_INPUT_MALFORMED, "The call carries no request."))
        return request
