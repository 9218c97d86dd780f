"""The server's own deadlines: how long a call may wait for its request, and an answer for its
caller.

gRPC gives a unary call a thread from its headers on, even if its caller never sends the request. So
every method is registered as one that takes a stream of requests, which is the same on the wire,
and the wait for its single request is bounded here. An answer that its caller does not take counts
until the call has ended, and such a call is ended after a while too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import grpc
from capsign_wire.advice import Given
from capsign_wire.failures import FailureError, abort
from capsign_wire.types.v1 import failures_pb2
from google.protobuf.message import Message

from capsign_adapter.front.threads import refusing

REQUEST_SECONDS = 5.0
"""Longest wait for the request of a unary call."""

ANSWER_SECONDS = 5.0
"""Longest wait for a caller to take the answer of a unary call."""

STREAM_SECONDS = 30.0
"""Longest wait for the next batch on a stream. gRPC does not say whether a part of one has come, so
a stream that is silent for this long is ended. An agent opens its idle streams anew well before.
"""


class CallDeadlines:
    """Calls and streams that wait, each until its deadline. Safe for any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[grpc.ServicerContext, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, context: grpc.ServicerContext, seconds: float) -> None:
        """The call waits from now on, for `seconds` at most."""
        now = self._clock()
        with self._lock:
            self._until[context] = now, now + seconds

    def end(self, context: grpc.ServicerContext) -> None:
        """The call waits no more."""
        with self._lock:
            self._until.pop(context, None)

    @contextmanager
    def answering(self, context: grpc.ServicerContext, leave: Callable[[], None]) -> Iterator[None]:
        """Around the work of a unary call. After it, the caller has ANSWER_SECONDS to take the
        answer; `leave` is called once the call is over.
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
        """The call waits until the block ends, for `seconds` at most (None: REQUEST_SECONDS)."""
        self.begin(context, REQUEST_SECONDS if seconds is None else seconds)
        try:
            yield
        finally:
            self.end(context)

    def sweep(self) -> int:
        """Cancel the calls whose deadline has passed. Returns how many."""
        now = self._clock()
        return self._cancel(lambda _, until: until < now)

    def cancel_older_than(self, seconds: float) -> int:
        """Cancel the calls that have waited for `seconds` or longer. Returns how many."""
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
    """Counts unary calls that wait for their request; `PeerQuota` is one."""

    def waiting(self, context: grpc.ServicerContext, method: str) -> AbstractContextManager[None]:
        """Count the call until the block ends. Ends it with a typed failure if a bound is
        reached.
        """


class DeadlineRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods wait for their request within
    bounds, and calls for which no thread is left are refused with OVERLOADED.

    `working` counts a unary call from its request to its answer. It gets the context, the method's
    name and the request's size in bytes, and ends the call if a bound is reached. By default the
    methods count their calls themselves.
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
                FailureError(
                    failures_pb2.REASON_INPUT_MALFORMED,
                    "The call carries no request.",
                    given=Given.REQUEST,
                ),
            )
        return request


def _with_a_thread(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Returns `behaviour`, with a refusal before it for calls without a thread; see `threads`."""

    def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        if refusing():
            detail = "This adapter serves as many calls as it can."
            abort(context, FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=500))
        return behaviour(requests, context)

    return run
