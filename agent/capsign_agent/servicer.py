"""SigningService for one socket: steps 1, 2 and 11 of the signing path, and the calls around it."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
from capsign_wire import bounds, logs
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.failures import FailureError, RpcStatus
from capsign_wire.tracing import PassingTracer, Tracer
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles import SocketHandles
from capsign_agent.lookups import Lookups
from capsign_agent.sign import SigningPath

T = TypeVar("T")

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Gate(Protocol):
    """Whether new calls are taken."""

    def enter(self) -> None:
        """Count a call in. Raises FailureError DRAINING."""

    def leave(self) -> None:
        """Count it out."""


class SigningServicer(agent_pb2_grpc.SigningServiceServicer):
    """One object for each socket: it *is* the caller's identity (step 1)."""

    def __init__(
        self,
        socket: SocketHandles,
        path: SigningPath,
        lookups: Lookups,
        gate: Gate,
        *,
        timeout_s: float,
        stream_calls: int,
        skew_s: float,
    ) -> None:
        self._socket = socket
        self._path = path
        self._lookups = lookups
        self._gate = gate
        self._timeout_s = timeout_s
        self._stream_calls = stream_calls
        self._skew_s = skew_s
        self.tracer: Tracer = PassingTracer()
        """Replaced once exporters are loaded."""

    async def Sign(self, request: agent_pb2.SignRequest, context: Any) -> agent_pb2.SignResponse:
        async def act(timeout_s: float) -> agent_pb2.SignResponse:
            group = agent_pb2.SignGroup(
                handle_id=request.handle_id,
                purpose=request.purpose,
                algorithm=request.algorithm,
                context=request.context if request.HasField("context") else None,
                items=[request.item],
            )
            with self.tracer.span("capsign.agent.sign", _traceparent(context)) as span:
                [signed] = await self._path.sign(self._socket, [group], timeout_s, span.traceparent)
            item = signed.items[0]
            if not item.signature:
                raise FailureError.from_item(item.failure)
            named = item.signed_by if item.HasField("signed_by") else signed.signed_by
            return agent_pb2.SignResponse(signature=item.signature, leaf_index=item.leaf_index, signed_by=named)

        return await self._unary(request, context, act)

    async def SignBatch(self, request: agent_pb2.SignBatchRequest, context: Any) -> agent_pb2.SignBatchResponse:
        async def act(timeout_s: float) -> agent_pb2.SignBatchResponse:
            _count(request.groups)
            with self.tracer.span("capsign.agent.sign", _traceparent(context)) as span:
                groups = await self._path.sign(self._socket, request.groups, timeout_s, span.traceparent)
            return agent_pb2.SignBatchResponse(groups=groups)

        return await self._unary(request, context, act)

    async def SignStream(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes by itself
        self, request_iterator: AsyncIterator[agent_pb2.SignStreamRequest], context: Any
    ) -> None:
        await _Stream(self, context, self._stream_calls).run(request_iterator)

    async def ListHandles(self, request: agent_pb2.ListHandlesRequest, context: Any) -> agent_pb2.ListHandlesResponse:
        async def act(_: float) -> agent_pb2.ListHandlesResponse:
            held = self._socket.listed(time.time(), self._skew_s)
            return agent_pb2.ListHandlesResponse(handles=[one.shown() for one in held])

        return await self._unary(request, context, act)

    async def Verify(self, request: agent_pb2.VerifyRequest, context: Any) -> agent_pb2.VerifyResponse:
        return await self._unary(request, context, lambda timeout_s: self._lookups.verify(self._socket, request, timeout_s))

    async def GetPublicKeys(self, request: agent_pb2.GetPublicKeysRequest, context: Any) -> agent_pb2.GetPublicKeysResponse:
        return await self._unary(request, context, lambda timeout_s: self._lookups.public_keys(self._socket, request, timeout_s))

    async def ResolveIntent(self, request: agent_pb2.ResolveIntentRequest, context: Any) -> agent_pb2.ResolveIntentResponse:
        return await self._unary(request, context, lambda timeout_s: self._lookups.resolve(self._socket, request, timeout_s))

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        """One call of a stream. Never raises; what cannot be read at all is answered under the id 0."""
        call_id = request.number if isinstance(request, bounds.Unparsed) else request.call_id
        try:
            self._gate.enter()
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=error.to_item())
        try:
            bounds.check(request)
            _count(request.groups)
            timeout_s = min(request.timeout_ms / 1000 or self._timeout_s, self._timeout_s)
            with self.tracer.span("capsign.agent.sign", request.traceparent) as span:
                groups = await self._path.sign(self._socket, request.groups, timeout_s, span.traceparent)
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=error.to_item())
        except Exception as error:  # the edge: one call that fails inside must not leave its caller without an answer
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=_defect(error).to_item())
        finally:
            self._gate.leave()
        return agent_pb2.SignStreamResponse(call_id=call_id, groups=groups)

    async def _unary(self, request: Any, context: Any, act: Callable[[float], Awaitable[T]]) -> T:
        """Step 2 and the shape of every unary call: count in, check bounds, act in time, say failures in our terms."""
        try:
            self._gate.enter()
        except FailureError as error:
            await _abort(context, error)
        try:
            bounds.check(request)
            remaining = context.time_remaining()
            return await act(self._timeout_s if remaining is None else max(0.001, min(remaining, self._timeout_s)))
        except FailureError as error:
            await _abort(context, error)
        except Exception as error:  # the edge: gRPC would tell the caller the exception's text, which may quote the call
            await _abort(context, _defect(error))
        finally:
            self._gate.leave()


class _Stream:
    """One application stream: calls run side by side up to a bound, answers go out one at a time as they come."""

    def __init__(self, servicer: SigningServicer, context: Any, most: int) -> None:
        self._servicer = servicer
        self._context = context
        self._slots = asyncio.Semaphore(most)
        self._ready: deque[agent_pb2.SignStreamResponse] = deque()
        self._writing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterator[agent_pb2.SignStreamRequest]) -> None:
        try:
            async for request in requests:
                await self._slots.acquire()  # the socket's flow control holds back what comes above the bound
                self._start(self._one(request))
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, request: agent_pb2.SignStreamRequest) -> None:
        """A call keeps its slot until its answer is written: an application that does not read is not read from either."""
        self._ready.append(await self._servicer.answer(request))
        if self._writing:
            return
        self._writing = True
        try:
            while self._ready:
                await self._context.write(self._ready.popleft())
                self._slots.release()
        except Exception:  # whatever gRPC raises when the application has gone: nobody is left to tell
            for _ in range(1 + len(self._ready)):  # that answer and those behind it
                self._slots.release()
            self._ready.clear()
        finally:
            self._writing = False


def _count(groups: Sequence[agent_pb2.SignGroup]) -> None:
    items = sum(len(group.items) for group in groups)
    if items > bounds.MAX_BATCH_ITEMS:
        sentence = f"The call has {items} items; at most {bounds.MAX_BATCH_ITEMS} are taken."
        raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, sentence, field="groups")


def _defect(error: Exception) -> FailureError:
    """A defect of ours: the log has its place under an id, the caller has the id."""
    incident = os.urandom(8).hex()
    logs.error("internal.failed", error, incident=incident)
    return FailureError(failures_pb2.REASON_INTERNAL, f"The agent failed inside; its log has this as incident {incident}.")


def _traceparent(context: Any) -> str:
    """The caller's W3C trace header, if it is well formed."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str) and _TRACEPARENT.fullmatch(value):
            return value
    return ""


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: FailureError) -> NoReturn:
    await context.abort_with_status(RpcStatus(error))
    raise AssertionError("abort_with_status raises")
