"""Waits for requests, each of which has an end: a call or stream that lies there with half a
message is not for ever.

A unary call holds a thread from its headers on, for as long as its caller does not send the
request: so every method is registered as one that takes a stream of requests, which on the wire is
the same, and the wait for its one request is bounded. Likewise an answer that nobody takes: what it
holds is given back when the call is over, and a call is not left open for long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import grpc
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2
from google.protobuf.message import Message

from capsign_adapter.front.threads import refusing

REQUEST_SECONDS = 5.0
"""Longest wait for the request of a unary call."""

ANSWER_SECONDS = 5.0
"""Longest wait for a caller to take the answer of a unary call."""

STREAM_SECONDS = 30.0
"""Longest wait for the next batch on a stream. Nobody can see from here whether half of one has
come: what is silent for so long is ended, and an agent opens its idle streams anew well before."""


class CallDeadlines:
    """Calls and streams for which something must happen before a moment. Any thread may call any
    method."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[grpc.ServicerContext, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, context: grpc.ServicerContext, seconds: float) -> None:
        """From now on it waits, for so long at most."""
        now = self._clock()
        with self._lock:
            self._until[context] = now, now + seconds

    def end(self, context: grpc.ServicerContext) -> None:
        """It waits no more."""
        with self._lock:
            self._until.pop(context, None)

    @contextmanager
    def answering(self, context: grpc.ServicerContext, leave: Callable[[], None]) -> Iterator[None]:
        """A unary call that has its request. `leave` gives its place back when its caller has taken
        the answer; one who does not has ANSWER_SECONDS for it.
        """
        try:
            yield
        finally:
            self.begin(context, ANSWER_SECONDS)

            def over() -> None:
                self.end(context)
                leave()

            if not context.add_callback(over):
                over()

    @contextmanager
    def of(self, context: grpc.ServicerContext, seconds: float | None = None) -> Iterator[None]:
        """The call waits until the block ends; REQUEST_SECONDS, if nothing else is said."""
        self.begin(context, REQUEST_SECONDS if seconds is None else seconds)
        try:
            yield
        finally:
            self.end(context)

    def sweep(self) -> int:
        """End those that have waited too long; how many."""
        now = self._clock()
        return self._cancel(lambda _, until: until < now)

    def cancel_older_than(self, seconds: float) -> int:
        """End those that have waited for so long already; how many."""
        begun = self._clock() - seconds
        return self._cancel(lambda since, _: since <= begun)

    def _cancel(self, late: Callable[[float, float], bool]) -> int:
        with self._lock:
            found = [
                context for context, (since, until) in self._until.items() if late(since, until)
            ]
        for context in found:
            context.cancel()
        return len(found)


class RequestQuota(Protocol):
    """Where unary calls wait for their request; `PeerQuota` is one."""

    def waiting(self, context: grpc.ServicerContext, method: str) -> AbstractContextManager[None]:
        """A place to wait in until the block ends. Ends the call with a typed failure if there
        is none."""


class DeadlineRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods wait for their request within
    bounds, and what finds no thread is refused in our terms.

    `working` gives the place of a unary call, from its request to its answer, for the method's name
    and the request's bytes; it ends the call if there is none. Without it the methods see to that.
    """

    def __init__(
        self,
        server: Any,
        quota: RequestQuota,
        working: Callable[
            [grpc.ServicerContext, str, int], AbstractContextManager[None]
        ] = lambda *_: nullcontext(),
    ) -> None:
        self._server = server
        self._quota = quota
        self._working = working

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on, each unary one with a bounded wait before it."""
        patient = {name: self._patient(name, handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, patient)

    def _patient(self, name: str, handler: Any) -> Any:
        if handler.request_streaming:
            return handler._replace(stream_stream=_with_a_thread(handler.stream_stream))
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        behaviour: Callable[[Any, Any], Any] = (
            handler.unary_stream if handler.response_streaming else handler.unary_unary
        )

        def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return behaviour(self._one_of(name, requests, context), context)

        def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            request = self._one_of(name, requests, context)
            size = request.ByteSize() if isinstance(request, Message) else 0
            with self._working(context, name, size):
                return behaviour(request, context)

        return make(
            _with_a_thread(stream if handler.response_streaming else call),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _one_of(self, name: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with self._quota.waiting(context, name):
            request = next(requests, None)
        if request is None:
            abort(
                context,
                FailureError(failures_pb2.REASON_INPUT_MALFORMED, "The call carries no request."),
            )
        return request


def _with_a_thread(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The behaviour, or a refusal where no thread is left for it; see `threads`."""

    def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        if refusing():
            detail = "This adapter serves as many calls as it can."
            abort(context, FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=500))
        return behaviour(requests, context)

    return run
