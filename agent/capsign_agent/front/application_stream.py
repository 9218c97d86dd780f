"""The stream on which an application makes its calls, one after the other or many at once."""

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
    """Who answers the calls of a stream."""

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        """One call. Never raises."""


class ApplicationStream:
    """One application stream: calls run side by side up to a bound, answers go out one at a time as
    they come.

    A call counts, and holds its memory, until its answer is written: an application that does not
    read is not read from either.
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
        """Begin a call; False if there was no more. Nobody else keeps the request: a stream that
        idles holds none.
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
        self._memory.release(weighed)
        self._freed.set()


def number_of(request: Any) -> int:
    """The `call_id`, where it could be read."""
    return request.number if isinstance(request, bounds.Unparsed) else request.call_id
