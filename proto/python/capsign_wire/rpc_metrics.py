"""`rpc.server.call.duration`: OpenTelemetry's stable RPC convention (1.45) for every method that a
process serves.

What is measured is an RPC, so a stream counts once, when it ends: calls and batches on it have
metrics of our own.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc

from capsign_wire.metric_catalogue import RPC_SYSTEM
from capsign_wire.telemetry import Histogram, Metrics

SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Status codes that the convention counts as errors of a server; the others are answers that a
caller asked for.
"""

_UNARY, _STREAMING = ("unary_unary", "stream_unary"), ("unary_stream", "stream_stream")
"""Of a handler: where its behaviour is, by whether that answers once or many times."""


class MeasuredRegistrar:
    """Give this to the other registrars in place of the server, sync or aio: so it is around what
    they do too.
    """

    def __init__(self, server: Any, metrics: Metrics, *, by_name: bool = True) -> None:
        """`by_name`: register each method with gRPC by its name too. An aio server waits for the
        next call of each such method apart, and takes that whole wait up anew with every call.
        """
        self._server = server
        self._by_name = by_name
        self._durations = metrics.histogram("rpc.server.call.duration")

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on, each with a clock around it."""
        measured = {
            name: self._measured(f"{service}/{name}", handler) for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, measured),)
        )
        if self._by_name:
            self._server.add_registered_method_handlers(service, measured)

    def _measured(self, method: str, handler: Any) -> Any:
        kind = next(one for one in (*_UNARY, *_STREAMING) if getattr(handler, one) is not None)
        behaviour = getattr(handler, kind)
        if inspect.iscoroutinefunction(behaviour):
            around = self._coroutine
        else:
            around = self._generator if kind in _STREAMING else self._function
        return handler._replace(**{kind: around(method, behaviour)})

    def _coroutine(
        self, method: str, behaviour: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        durations = self._durations

        # without `_Clock`: an application's call with an RPC of its own pays each step of this
        async def measured(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            try:
                answer = await behaviour(request, context)
            except BaseException as error:
                _note(durations, method, started, context, error)
                raise
            if context.code():
                _note(durations, method, started, context, None)
            else:
                durations.record(time.perf_counter() - started, RPC_SYSTEM, method, "OK", "")
            return answer

        return measured

    def _generator(
        self, method: str, behaviour: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        def measured(request: Any, context: Any) -> Any:
            with _Clock(method, self._durations, context):
                yield from behaviour(request, context)

        return measured

    def _function(
        self, method: str, behaviour: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        def measured(request: Any, context: Any) -> Any:
            with _Clock(method, self._durations, context):
                return behaviour(request, context)

        return measured


class _Clock:
    """Around one RPC: how long it took, and with which status it ended."""

    __slots__ = ("_context", "_durations", "_method", "_started")

    def __init__(self, method: str, durations: Histogram, context: Any) -> None:
        self._method = method
        self._durations = durations
        self._context = context
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        _note(self._durations, self._method, self._started, self._context, error)


def _note(
    durations: Histogram, method: str, started: float, context: Any, error: BaseException | None
) -> None:
    """Record an RPC that has ended, `started` by `time.perf_counter`."""
    status = _status(context, error)
    fault = status if status in SERVER_FAULTS else ""
    durations.record(time.perf_counter() - started, RPC_SYSTEM, method, status, fault)


_NAMES: Mapping[int | None, str] = MappingProxyType(
    {None: "OK", **{code.value[0]: code.name for code in grpc.StatusCode}}
)
"""Status codes by number; None: none was set."""


def _status(context: Any, error: BaseException | None) -> str:
    """The name of the status code: the one that was set, or what gRPC makes of the exception."""
    code = context.code()
    # gRPC's aio context says it as a number, and 0 where nothing was set
    name = _NAMES[code if isinstance(code, int) or code is None else code.value[0]]
    if error is None or name != "OK":
        return name
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)) or not _active(context):
        remaining = context.time_remaining()
        late = remaining is not None and remaining <= 0
        return (grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED).name
    return grpc.StatusCode.UNKNOWN.name


def _active(context: Any) -> bool:
    """Whether the caller is still there. Only the synchronous context can tell; the other cancels
    the task.
    """
    return not isinstance(context, grpc.ServicerContext) or context.is_active()
