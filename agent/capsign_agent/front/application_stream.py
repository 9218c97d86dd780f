"""SignStream: the stream on which an application makes its calls, one after the other or many at
once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

import grpc.aio
from capsign_wire import bounds
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError

from capsign_agent.front.bounded_rpcs import UNREAD_S, MessageReader
from capsign_agent.front.memory_budget import MemoryBudget, weight
from capsign_agent.front.read_slots import ReadSlots


class Answering(Protocol):
    """The servicer that answers the calls of a stream."""

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        """The response to one call. Never raises."""


class ApplicationStream:
    """One application stream. Up to `most` calls run at the same time; each answer is written as
    soon as it is there.

    A call counts, and holds its memory, until its answer has been written. So an application that
    does not read its answers is not read from either.
    """

    def __init__(
        self,
        servicer: Answering,
        context: Any,
        memory: MemoryBudget,
        slots: ReadSlots,
        socket: str,
        most: int,
    ) -> None:
        self._servicer = servicer
        self._context = context
        self._memory = memory
        self._slots = slots
        self._socket = socket
        self._most = most
        self._task: asyncio.Task[Any] | None = None
        self._calls = 0
        self._held = 0
        """Bytes that its calls hold of the socket's memory."""
        self._freed = asyncio.Event()
        self._ready: deque[tuple[agent_pb2.SignStreamResponse, int]] = deque()
        self._writing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the stream until the application ends it. Raises FailureError OVERLOADED if it was
        ended so that other sockets can be read; the application may open another stream at once.
        """
        self._task = asyncio.current_task()
        inbox = MessageReader(self._context, self._slots, self._socket, lambda: not self._calls)
        try:
            while self._take_in(await inbox.next()):
                # the socket's flow control holds back the rest
                while self._calls >= self._most or self._held > self._memory.share:
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
            self._memory.release(self._held)
            self._held = 0
            self._ready.clear()

    def _take_in(self, request: Any) -> bool:
        """Begin a call; returns False at the end of the stream. The request is not kept here: a
        stream without calls holds no request in memory.
        """
        if request is grpc.aio.EOF:
            return False
        weighed = 0
        try:
            weighed = self._memory.acquire(weight(request))
        except FailureError as error:
            request = bounds.Unparsed(error.to_item(), number_of(request))
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
        """Cancel the stream if the answer that is being written now is still not taken after
        UNREAD_S.
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
        self._memory.release(weighed)
        self._freed.set()


def number_of(request: Any) -> int:
    """The `call_id` of a request; 0 if it could not be read."""
    return request.number if isinstance(request, bounds.Unparsed) else request.call_id
