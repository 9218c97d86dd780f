"""A connection to the agent for one event loop: channel, stub and stream. It is closed with its
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from capsign_wire import channels
from capsign_wire.agent.v1.agent_pb2_grpc import SigningServiceStub

from capsign import channel as wire
from capsign import green_threads
from capsign.agent_socket import AgentSocket
from capsign.async_stream import AsyncStream
from capsign.call import Ask, clock
from capsign.handles import HandleCache
from capsign.jobs import Answer, Job
from capsign.translate import AgentAwayError, key_handle

if TYPE_CHECKING:
    from capsign_wire.agent.v1.agent_pb2_grpc import SigningServiceAsyncStub


class AsyncConnection:
    """For one event loop, and for the process that made it."""

    def __init__(
        self, target: str, agent_socket: AgentSocket, window: int, book: HandleCache
    ) -> None:
        """Raises RuntimeError if gRPC cannot be used here, because a library has replaced Python's
        threads.
        """
        green_threads.refuse_asyncio()
        self.agent_socket = agent_socket
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.channel = channels.aio_insecure(target, wire.OPTIONS)
        self.stub: SigningServiceAsyncStub = SigningServiceStub(self.channel)
        self.listing = asyncio.Lock()
        self.closing = asyncio.Event()
        self.listed: tuple[int, Any] = (0, None)
        self.stream = AsyncStream(
            self.stub,
            agent_socket,
            window,
            lambda response: book.store([key_handle(h) for h in response.handles]),
        )
        self._ending = self._with_loop()
        with contextlib.suppress(StopIteration):
            # to its yield, which waits for nothing: from now on the loop knows it
            self._ending.__anext__().send(None)

    async def _with_loop(self) -> AsyncGenerator[None, None]:
        """Closes the connection when its loop shuts down, as `asyncio.run` does. Left open, gRPC
        would report the calls of this loop as errors in later ones.
        """
        try:
            yield
        finally:
            await self.close()

    @property
    def usable(self) -> bool:
        return self.pid == os.getpid() and self.loop is asyncio.get_running_loop()

    async def ask(self, step: Ask) -> Any:
        """One unary call: its response, or a FailureError as a value."""
        agent_socket, now = self.agent_socket, clock()
        if (blocked := agent_socket.blocked()) is not None:
            return blocked
        until = agent_socket.deadline(step.deadline, now)
        try:
            ask = getattr(self.stub, step.method)
            answer = await ask(step.request, timeout=max(0.001, until - now), wait_for_ready=True)
        except grpc.RpcError as error:
            return agent_socket.failed(error, effect=step.effect, until=until)
        agent_socket.open = True
        return answer

    async def list_handles(self, step: Ask) -> Any:
        """ListHandles, asked once for all tasks that ask at the same time."""
        seen, _ = self.listed
        try:
            async with asyncio.timeout(max(0.001, step.deadline - clock())):
                await self.listing.acquire()
        except TimeoutError:
            return AgentAwayError("The agent did not list its handles in time.")
        try:
            count, response = self.listed
            if count == seen:
                response = await self.ask(step)
                self.listed = (count + 1, response)
            return response
        finally:
            self.listing.release()

    async def sign(self, job: Job) -> Answer:
        """Sign a job by an RPC of its own, without coalescing."""
        wait, trace = max(0.001, job.deadline - clock()), wire.metadata(job.trace)
        job.sent = True
        try:
            if len(job.items) == 1:
                single = await self.stub.Sign(
                    wire.single(job), timeout=wait, wait_for_ready=True, metadata=trace
                )
                return wire.single_answer(single)
            batch = await self.stub.SignBatch(
                wire.batch(job), timeout=wait, wait_for_ready=True, metadata=trace
            )
            return wire.batch_answer(job, batch)
        except grpc.RpcError as error:
            return wire.failed_answer(job, error)

    async def close(self) -> None:
        if not self.closing.is_set():
            self.closing.set()
            await self.stream.close()
            await self.channel.close()

    def end(self) -> None:
        """Close it from another thread; done when the event loop runs next. A connection that a
        fork left behind is the parent's to close.
        """
        if self.pid == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and all its tasks with it
                self.loop.call_soon_threadsafe(self._begin_to_close)

    def _begin_to_close(self) -> None:
        self._closer = self.loop.create_task(self.close())  # a loop alone does not keep its tasks


def end_all(connections: Mapping[asyncio.AbstractEventLoop, AsyncConnection]) -> None:
    for connection in list(connections.values()):
        connection.end()
