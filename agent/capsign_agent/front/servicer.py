"""SigningService for one socket: steps 1, 2 and 11 of the signing path, and the calls around it."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import grpc.aio
from capsign_wire import bounds, logs, trace_context
from capsign_wire.agent.v1 import agent_pb2, agent_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.tracing import PassingTracer, Span, Tracer, note_items
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.front.admission import UNREAD_S, Inbox, abort, at_end_of_call
from capsign_agent.front.memory_budget import Room, surplus, weight
from capsign_agent.front.reading import Turns
from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.registry import SocketHandles
from capsign_agent.sign.lookups import Lookups
from capsign_agent.sign.path import SigningPath

T = TypeVar("T")

LOOKUPS_AT_ONCE = 8
"""Questions of one socket that are under way, of those that may go to the adapter; more wait."""

_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["SigningService"].full_name
SIGN, SIGN_BATCH, SIGN_STREAM = (
    f"{_SERVICE}/{name}" for name in ("Sign", "SignBatch", "SignStream")
)


class Gate(Protocol):
    """Whether new calls are taken."""

    def enter(self) -> None:
        """Count a call in. Raises FailureError DRAINING."""

    @property
    def away(self) -> bool:
        """Whether no adapter is connected."""

    async def seek(self, timeout_s: float) -> None:
        """See whether one is there again, within so many seconds."""

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
        room: Room,
        turns: Turns,
        *,
        timeout_s: float,
        stream_calls: int,
        finder: HandleFinder,
    ) -> None:
        self._finder = finder
        self._socket = socket
        self._path = path
        self._lookups = lookups
        self._gate = gate
        self._room = room
        self._turns = turns
        self._asking = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._timeout_s = timeout_s
        self._stream_calls = stream_calls
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
            with self.tracer.span("capsign.agent.sign", _traceparent(context), method=SIGN) as span:
                [signed] = await self._path.sign(self._socket, [group], timeout_s, span.traceparent)
                if span.recording:
                    _note(span, [group], [signed])
            item = signed.items[0]
            if not item.signature:
                raise FailureError.from_item(item.failure)
            named = item.signed_by if item.HasField("signed_by") else signed.signed_by
            return agent_pb2.SignResponse(
                signature=item.signature, leaf_index=item.leaf_index, signed_by=named
            )

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
            await _Stream(
                self, context, self._room, self._turns, self._socket.name, self._stream_calls
            ).run()
        except FailureError as error:
            await abort(context, error)

    async def ListHandles(
        self, request: agent_pb2.ListHandlesRequest, context: Any
    ) -> agent_pb2.ListHandlesResponse:
        async def act(timeout_s: float) -> agent_pb2.ListHandlesResponse:
            held = await self._finder.wait_for_all(self._socket, timeout_s)
            return agent_pb2.ListHandlesResponse(handles=[one.shown() for one in held])

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

    async def ResolveIntent(
        self, request: agent_pb2.ResolveIntentRequest, context: Any
    ) -> agent_pb2.ResolveIntentResponse:
        return await self._unary(
            request, context, lambda timeout_s: self._ask(self._lookups.resolve, request, timeout_s)
        )

    async def _ask(
        self,
        lookup: Callable[[SocketHandles, Any, float], Awaitable[T]],
        request: Any,
        timeout_s: float,
    ) -> T:
        """Some at a time: they share the way to the adapter, and the adapter's patience with this
        pod, with the other sockets.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until):
                await self._asking.acquire()
        except TimeoutError:
            detail = "Too much is asked on this socket at once."
            raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=250) from None
        try:
            return await lookup(self._socket, request, max(0.001, until - loop.time()))
        finally:
            self._asking.release()

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        """One call of a stream. Never raises; what cannot be read at all is answered under the id
        0.
        """
        call_id = _number(request)
        try:
            self._gate.enter()
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=call_id, failure=error.to_item())
        try:
            bounds.check(request)
            _count(request.groups)
            timeout_s = min(request.timeout_ms / 1000 or self._timeout_s, self._timeout_s)
            if self._gate.away:
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
            self._gate.leave()
        return agent_pb2.SignStreamResponse(call_id=call_id, groups=groups)

    async def _unary(self, request: Any, context: Any, act: Callable[[float], Awaitable[T]]) -> T:
        """Step 2 and the shape of every unary call: count in, check bounds, act in time, say
        failures in our terms.
        """
        try:
            self._gate.enter()
        except FailureError as error:
            await abort(context, error)
        try:
            self._hold(weight(request))
            bounds.check(request)
            remaining = context.time_remaining()
            timeout_s = self._timeout_s
            if remaining is not None:
                timeout_s = max(0.001, min(remaining, timeout_s))
            if self._gate.away:
                timeout_s = await self._after_a_look(timeout_s)
            answer = await act(timeout_s)
            if more := surplus(answer):
                self._hold(more)
            return answer
        except FailureError as error:
            await abort(context, error)
        # the edge: gRPC would tell the caller the exception's text, which may quote the call
        except Exception as error:
            await abort(context, _defect(error))
        finally:
            self._gate.leave()

    async def _after_a_look(self, timeout_s: float) -> float:
        """What is left of a call's time after one more attempt to reach an adapter."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._gate.seek(timeout_s)
        return max(0.001, until - loop.time())

    def _hold(self, weighed: int) -> None:
        """Take room until this RPC is over. Raises FailureError OVERLOADED."""
        self._room.take(weighed)
        at_end_of_call(lambda: self._room.give(weighed))


class _Stream:
    """One application stream: calls run side by side up to a bound, answers go out one at a time as
    they come.

    A call counts, and holds its room, until its answer is written: an application that does not
    read is not read from either.
    """

    def __init__(
        self,
        servicer: SigningServicer,
        context: Any,
        room: Room,
        turns: Turns,
        socket: str,
        most: int,
    ) -> None:
        self._servicer = servicer
        self._context = context
        self._room = room
        self._turns = turns
        self._socket = socket
        self._most = most
        self._task: asyncio.Task[Any] | None = None
        self._calls = 0
        self._held = 0
        """Bytes of the room."""
        self._freed = asyncio.Event()
        self._ready: deque[tuple[agent_pb2.SignStreamResponse, int]] = deque()
        self._writing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Raises FailureError OVERLOADED if it was ended for the sake of others. Who opens another
        loses nothing by it.
        """
        self._task = asyncio.current_task()
        inbox = Inbox(self._context, self._turns, self._socket, lambda: not self._calls)
        try:
            while self._take_in(await inbox.next()):
                # the socket's flow control holds back the rest
                while self._calls >= self._most or self._held > self._room.share:
                    inbox.close()
                    self._freed.clear()
                    await self._freed.wait()
            inbox.close()
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            inbox.close()
            for task in self._tasks:
                task.cancel()
            self._room.give(self._held)
            self._held = 0
            self._ready.clear()

    def _take_in(self, request: Any) -> bool:
        """Begin a call; False if there was no more. Nobody else keeps the request: a stream that
        idles holds none.
        """
        if request is grpc.aio.EOF:
            return False
        weighed = 0
        try:
            weighed = self._room.take(weight(request))
        except FailureError as error:
            request = bounds.Unparsed(error.to_item(), _number(request))
        self._calls += 1
        self._held += weighed
        task = asyncio.get_running_loop().create_task(self._one(request, weighed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _one(self, request: agent_pb2.SignStreamRequest, weighed: int) -> None:
        self._ready.append((await self._servicer.answer(request), weighed))
        if self._writing:
            return
        self._writing = True
        self._watch_writing()
        try:
            while self._ready:
                await self._context.write(self._ready[0][0])
                self._done_with(self._ready.popleft()[1])
        except Exception:
            # whatever gRPC raises when the application has gone: nobody is left to tell
            while self._ready:  # that answer and those behind it
                self._done_with(self._ready.popleft()[1])
        finally:
            self._writing = False
            self._watch.cancel()

    def _watch_writing(self) -> None:
        """Should the answer that is being written now still be there after a while, the stream is
        cut off.
        """
        self._watch = asyncio.get_running_loop().call_later(UNREAD_S, self._look_at, self._ready[0])

    def _look_at(self, answer: tuple[agent_pb2.SignStreamResponse, int]) -> None:
        if self._ready[0] is answer and self._task is not None:
            self._task.cancel()
        else:
            self._watch_writing()

    def _done_with(self, weighed: int) -> None:
        self._calls -= 1
        self._held -= weighed
        self._room.give(weighed)
        self._freed.set()


def _number(request: Any) -> int:
    """The `call_id`, where it could be read."""
    return request.number if isinstance(request, bounds.Unparsed) else request.call_id


def _count(groups: Sequence[agent_pb2.SignGroup]) -> None:
    items = sum(len(group.items) for group in groups)
    if items > bounds.MAX_BATCH_ITEMS:
        sentence = f"The call has {items} items; at most {bounds.MAX_BATCH_ITEMS} are taken."
        raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, sentence, field="groups")


def _defect(error: Exception) -> FailureError:
    """A defect of ours: the log has its place under an id, the caller has the id."""
    incident = os.urandom(8).hex()
    logs.error("internal.failed", error, incident=incident)
    return FailureError(
        failures_pb2.REASON_INTERNAL,
        f"The agent failed inside; its log has this as incident {incident}.",
    )


def _traceparent(context: Any) -> str:
    """The caller's W3C trace header, if it is well formed."""
    given = context.invocation_metadata() or ()
    return trace_context.of_headers(
        value for key, value in given if key == "traceparent" and isinstance(value, str)
    )


def _note(
    span: Span, asked: Sequence[agent_pb2.SignGroup], signed: Sequence[agent_pb2.SignedGroup]
) -> None:
    failures = Counter(
        item.failure.reason for group in signed for item in group.items if not item.signature
    )
    note_items(
        span,
        (group.algorithm for group in asked),
        sum(len(group.items) for group in asked),
        failures,
    )
