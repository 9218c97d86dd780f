"""SigningService for one socket: steps 1 and 2 of the signing path, and the calls around it."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from capsign_wire import bounds, logs, trace_context
from capsign_wire.advice import Given
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.tracing import PassingTracer, Span, Tracer, note_items
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as types_pb2

from capsign_agent.front.application_stream import ApplicationStream, number_of
from capsign_agent.front.bounded_rpcs import abort
from capsign_agent.front.calls_in_flight import CallsInFlight
from capsign_agent.front.memory_budget import RPC_MEMORY, MemoryBudget, surplus, weight
from capsign_agent.front.read_slots import ReadSlots
from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.sign.group_work import Asked, GroupWork
from capsign_agent.sign.lookup_limit import LookupLimit
from capsign_agent.sign.lookups import Lookups
from capsign_agent.sign.signing_path import SigningPath
from capsign_agent.upstream.connections import Connections

MOST_HANDLES = 256
"""Handles of one answer: the bound of the message."""

T = TypeVar("T")

_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["SigningService"].full_name
SIGN, SIGN_BATCH, SIGN_STREAM = (
    f"{_SERVICE}/{name}" for name in ("Sign", "SignBatch", "SignStream")
)


@dataclass(frozen=True, slots=True)
class Service:
    """What all sockets have in common."""

    path: SigningPath
    lookups: Lookups
    lookup_limit: LookupLimit
    finder: HandleFinder
    calls_in_flight: CallsInFlight
    connections: Connections
    read_slots: ReadSlots
    timeout_s: float
    """The longest time a call may take, seconds."""
    stream_calls: int
    """The most calls that may be open on one stream."""
    status: Callable[[str], agent_pb2.GetStatusResponse]
    """How the agent is, for a socket."""


class SigningServicer(agent_pb2_grpc.SigningServiceServicer):
    """The service on one socket. There is one object for each socket, so it knows the caller (step
    1).
    """

    def __init__(self, socket: SocketHandles, memory: MemoryBudget, service: Service) -> None:
        self._socket = socket
        self._memory = memory
        self._path = service.path
        self._lookups = service.lookups
        self._finder = service.finder
        self._calls_in_flight = service.calls_in_flight
        self._connections = service.connections
        self._slots = service.read_slots
        self._timeout_s = service.timeout_s
        self._stream_calls = service.stream_calls
        self._lookup_limit = service.lookup_limit
        self._status = service.status
        self.tracer: Tracer = PassingTracer()
        """Replaced once the exporters are loaded."""

    async def Sign(self, request: agent_pb2.SignRequest, context: Any) -> agent_pb2.SignResponse:
        async def act(timeout_s: float) -> agent_pb2.SignResponse:
            answer = agent_pb2.SignResponse()
            signed = answer.signed
            with self.tracer.span("capsign.agent.sign", _traceparent(context), method=SIGN) as span:
                work = GroupWork(request, (request.item,))
                await self._path.run(self._socket, (work,), timeout_s, span.traceparent)
                work.reply_into(signed)
                if span.recording:
                    _note(span, [request], [signed])
            item = signed.items[0]
            if not item.signatures:
                raise FailureError.from_item(item.failure)
            return answer

        return await self._unary(request, context, act)

    async def SignBatch(
        self, request: agent_pb2.SignBatchRequest, context: Any
    ) -> agent_pb2.SignBatchResponse:
        async def act(timeout_s: float) -> agent_pb2.SignBatchResponse:
            _count(request.groups)
            with self.tracer.span(
                "capsign.agent.sign", _traceparent(context), method=SIGN_BATCH
            ) as span:
                groups = await self._path.sign(
                    self._socket, request.groups, timeout_s, span.traceparent
                )
                if span.recording:
                    _note(span, request.groups, groups)
            return agent_pb2.SignBatchResponse(groups=groups)

        return await self._unary(request, context, act)

    async def SignStream(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes by itself
        self, _: AsyncIterator[agent_pb2.SignStreamRequest], context: Any
    ) -> None:
        try:
            await ApplicationStream(
                self, context, self._memory, self._slots, self._socket.name, self._stream_calls
            ).run()
        except FailureError as error:
            await abort(context, error)

    async def ListHandles(
        self, request: agent_pb2.ListHandlesRequest, context: Any
    ) -> agent_pb2.ListHandlesResponse:
        async def act(timeout_s: float) -> agent_pb2.ListHandlesResponse:
            held = await self._finder.wait_for_all(self._socket, timeout_s)
            shown = [one.shown() for one in (*held, *self._socket.withdrawn())]
            return agent_pb2.ListHandlesResponse(handles=shown[:MOST_HANDLES])

        return await self._unary(request, context, act)

    async def Verify(
        self, request: agent_pb2.VerifyRequest, context: Any
    ) -> agent_pb2.VerifyResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.verify, request, timeout_s)
        )

    async def GetPublicKeys(
        self, request: agent_pb2.GetPublicKeysRequest, context: Any
    ) -> agent_pb2.GetPublicKeysResponse:
        return await self._unary(
            request,
            context,
            lambda timeout_s: self._ask(self._lookups.public_keys, request, timeout_s),
        )

    async def GetJwks(
        self, request: agent_pb2.GetJwksRequest, context: Any
    ) -> agent_pb2.GetJwksResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.jwks, request, timeout_s)
        )

    async def GetStatus(
        self, request: agent_pb2.GetStatusRequest, context: Any
    ) -> agent_pb2.GetStatusResponse:
        async def act(_: float) -> agent_pb2.GetStatusResponse:
            return self._status(self._socket.name)

        return await self._unary(request, context, act)

    async def ReportVerifications(
        self, request: agent_pb2.ReportVerificationsRequest, context: Any
    ) -> agent_pb2.ReportVerificationsResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.report, request, timeout_s)
        )

    async def ResolveIntent(
        self, request: agent_pb2.ResolveIntentRequest, context: Any
    ) -> agent_pb2.ResolveIntentResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.resolve, request, timeout_s)
        )

    async def GetReceipt(
        self, request: agent_pb2.GetReceiptRequest, context: Any
    ) -> agent_pb2.GetReceiptResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.receipt, request, timeout_s)
        )

    async def _ask(
        self,
        lookup: Callable[[SocketHandles, Any, float], Awaitable[T]],
        request: Any,
        timeout_s: float,
    ) -> T:
        """Answer a lookup, waiting until the socket may make one more (`LookupLimit`). Raises
        FailureError OVERLOADED if that takes too long.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until):
                await self._lookup_limit.begin(self._socket.name)
        except TimeoutError:
            detail = "Too much is asked on this socket at once."
            raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=250) from None
        try:
            return await lookup(self._socket, request, max(0.001, until - loop.time()))
        finally:
            self._lookup_limit.end(self._socket.name)

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        """Answer one call of a stream. Never raises. A request that cannot be read at all is
        answered with call id 0.
        """
        call_id = number_of(request)
        try:
            self._calls_in_flight.enter()
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=error.to_item())
        self._lookup_limit.calls(self._socket.name)
        try:
            bounds.check(request)  # 2
            _count(request.groups)
            timeout_s = min(request.timeout_ms / 1000 or self._timeout_s, self._timeout_s)
            if self._connections.away:
                timeout_s = await self._after_a_look(timeout_s)
            trace, links = trace_context.of_message(request) if request.traceparent else ("", ())
            with self.tracer.span(
                "capsign.agent.sign", trace, links=links, method=SIGN_STREAM
            ) as span:
                groups = await self._path.sign(
                    self._socket, request.groups, timeout_s, span.traceparent
                )
                if span.recording:
                    _note(span, request.groups, groups)
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=error.to_item())
        # the edge: one call that fails inside must not leave its caller without an answer
        except Exception as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=_defect(error).to_item())
        finally:
            self._calls_in_flight.leave()
        return agent_pb2.SignStreamResponse(call_id=call_id, groups=groups)

    async def _unary(self, request: Any, context: Any, act: Callable[[float], Awaitable[T]]) -> T:
        """Step 2, and what all unary calls have in common: count, take memory, check bounds, act
        before the deadline, and turn failures into a status.
        """
        try:
            self._calls_in_flight.enter()
        except FailureError as error:
            await abort(context, error)
        self._lookup_limit.calls(self._socket.name)
        try:
            RPC_MEMORY.get().take(weight(request))
            bounds.check(request)  # 2
            remaining = context.time_remaining()
            timeout_s = self._timeout_s
            if remaining is not None:
                timeout_s = max(0.001, min(remaining, timeout_s))
            if self._connections.away:
                timeout_s = await self._after_a_look(timeout_s)
            answer = await act(timeout_s)
            if more := surplus(answer):
                RPC_MEMORY.get().take(more)
            return answer
        except FailureError as error:
            await abort(context, error)
        # the edge: gRPC would tell the caller the exception's text, which may quote the call
        except Exception as error:
            await abort(context, _defect(error))
        finally:
            self._calls_in_flight.leave()

    async def _after_a_look(self, timeout_s: float) -> float:
        """Try once more to connect to an adapter; returns what is left of the call's time,
        seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._connections.seek(timeout_s)
        return max(0.001, until - loop.time())


def _count(groups: Sequence[agent_pb2.SignGroup]) -> None:
    items = 0
    for group in groups:
        items += len(group.items)
    if items > bounds.MAX_BATCH_ITEMS:
        sentence = f"The call has {items} items; at most {bounds.MAX_BATCH_ITEMS} are taken."
        raise FailureError(
            failures_pb2.REASON_INPUT_TOO_LARGE, sentence, field="groups", given=Given.LIST
        )


def _defect(error: Exception) -> FailureError:
    """The failure that a caller hears of a defect in this process. The exception is logged under a
    random id, and the failure names that id.
    """
    incident = os.urandom(8).hex()
    logs.error("internal.failed", error, incident=incident)
    return FailureError(
        failures_pb2.REASON_INTERNAL,
        f"The agent failed inside; its log has this as incident {incident}.",
    )


def _traceparent(context: Any) -> str:
    """The caller's W3C trace header, if it is well formed."""
    found = None
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            found = [value] if found is None else [*found, value]
    return trace_context.of_headers(found) if found else ""


def _note(span: Span, asked: Sequence[Asked], signed: Sequence[types_pb2.SignedGroup]) -> None:
    failures = Counter(
        item.failure.reason for group in signed for item in group.items if not item.signatures
    )
    note_items(
        span,
        (group.algorithm for group in asked),
        sum(len(group.items) for group in signed),
        failures,
    )
