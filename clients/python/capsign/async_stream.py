"""The SignStream of the asyncio client: many tasks share one stream, which one task writes and one
reads.

A caller only waits for its own future, so cancelling it never cancels a write that others share.
The two tasks start on demand and end when nobody waits any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.types.v1 import failures_pb2

from capsign.agent_socket import AgentSocket
from capsign.batch_scheduler import BatchScheduler, Settled
from capsign.call import clock
from capsign.channel import AFTER_BREAKS, CONNECT_SLICE
from capsign.jobs import Answer, Job, closed_answer

if TYPE_CHECKING:
    from capsign_wire.agent.v1.agent_pb2_grpc import SigningServiceAsyncStub

ENDING_S = 0.25
"""How long the agent has to end a stream that is closed, seconds."""

Call = Any
"""A grpc.aio.StreamStreamCall; the stubs' name for it differs between releases."""


class AsyncStream:
    """Runs jobs over one stream at a time, in one event loop."""

    def __init__(
        self,
        stub: SigningServiceAsyncStub,
        agent_socket: AgentSocket,
        window: int,
        on_connect: Callable[[pb.ListHandlesResponse], object],
    ) -> None:
        self._stub = stub
        self._agent_socket = agent_socket
        self._on_connect = on_connect
        self.scheduler = BatchScheduler(window)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._connected = False
        self._closed = False

    async def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """Have the jobs signed; returns by their deadline."""
        if self._closed:
            return [closed_answer(job) for job in jobs]
        for job in jobs:
            job.waiter = self._loop.create_future()
            refused = self.scheduler.add(job)
            if refused is not None:
                job.settled = True
                job.waiter.set_result(refused)
            elif self._sweep is None or job.deadline < self._sweep.when():
                self._sweep_at(job.deadline)
        self._wake.set()
        if self._task is None:
            self._task = self._loop.create_task(self._serve(), name="capsign-stream")
        try:
            return [await job.waiter for job in jobs]
        finally:
            for job in jobs:
                if not job.settled:
                    self.scheduler.drop(job)
                    self._wake.set()

    def _sweep_at(self, when: float) -> None:
        # loop.time() is the monotonic clock, as `clock` is, on every loop in use.
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._sweep = None
        # the task that connects waits to this same moment
        if not self._connected and self.scheduler.away is None:
            self.scheduler.away = self._agent_socket.late()
        _tell(self.scheduler.expire(clock()))
        soonest = self.scheduler.soonest_deadline()
        if soonest is not None:
            self._sweep_at(soonest)
        self._wake.set()

    async def _serve(self) -> None:
        breaks, told = 0, False
        try:
            while not self._closed and not self.scheduler.idle:
                if breaks:
                    await asyncio.sleep(AFTER_BREAKS.delay_s(breaks))
                answered = False
                try:
                    answered = await self._connect_and_read()
                except asyncio.CancelledError:
                    if cancelled():
                        raise
                    # else gRPC's word for a call that the writer ended
                except Exception as error:  # whatever it is, callers wait for this task
                    if not told:
                        told = True
                        _report(error)
                breaks, told = (0, False) if answered else (breaks + 1, told)
        finally:
            self._task = None

    async def _connect_and_read(self) -> bool:
        """Connect to the agent, then settle jobs as their answers come, until the stream breaks;
        returns whether any answer came. The answer to ListHandles shows that an agent listens, and
        which handle ids it knows.
        """
        latest = self.scheduler.latest_deadline()
        if latest is None:
            return False
        wait = min(CONNECT_SLICE, max(0.001, latest - clock()))
        try:
            response = await self._stub.ListHandles(
                pb.ListHandlesRequest(), timeout=wait, wait_for_ready=True
            )
        except grpc.RpcError as error:
            self.scheduler.away = failure = self._agent_socket.failed(error, effect=False)
            if failure.outcome == failures_pb2.OUTCOME_REFUSED:
                _tell(self.scheduler.fail(failure))
            return False
        self.scheduler.away, self._connected = None, True
        self._on_connect(response)
        call: Call = self._stub.SignStream()
        writer = self._loop.create_task(self._write(call), name="capsign-stream-write")
        try:
            answered = await self._read(call)
            if self._closed:
                # the last that gRPC says of this call
                await call.code()
                await asyncio.wait([writer])
            return answered
        finally:
            self._connected = False
            writer.cancel()
            call.cancel()
            self.scheduler.lose()

    async def _read(self, call: Call) -> bool:
        answered = False
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                _tell(self.scheduler.answer(response, clock()))
                answered = True
                self._wake.set()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # Why it broke does not matter: what was in flight is unanswered, and sent again it
            # gives the same bytes.
            pass
        return answered

    async def _write(self, call: Call) -> None:
        try:
            while True:
                message = self.scheduler.next_message(clock())
                if message is None and self._closed:
                    await call.done_writing()
                    return  # the agent ends it, and the reader sees that
                if message is None:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                if self._stall is None:
                    self._stall = self._loop.call_later(self.scheduler.stalled_after, self._unstall)
                await call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream broke
        except Exception as error:
            _report(error)
        call.cancel()  # if it did not end by itself: the reader notices and starts again

    def _unstall(self) -> None:
        self._stall = None
        self._wake.set()
        if not self.scheduler.idle:
            self._stall = self._loop.call_later(self.scheduler.stalled_after, self._unstall)

    async def close(self) -> None:
        """Settle every job and end the stream.

        The agent is asked to end it, and has ENDING_S: a call that is cancelled instead has its
        last word of gRPC's after this returns, and a loop that is closed by then makes gRPC report
        "Event loop is closed" in the next one.
        """
        self._closed = True
        _tell(self.scheduler.close())
        for timer in (self._sweep, self._stall):
            if timer is not None:
                timer.cancel()
        self._wake.set()
        if self._task is not None:
            task = self._task
            if self._connected:
                await asyncio.wait([task], timeout=ENDING_S)
            task.cancel()
            await asyncio.wait([task])


def _report(error: Exception) -> None:
    """Report a defect as asyncio reports an exception that ends a task; the stream goes on."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": "capsign: the stream begins anew", "exception": error}
    )


def cancelled() -> bool:
    """Whether the current task was cancelled. gRPC raises CancelledError also when its own
    call is.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _tell(settled: Settled) -> None:
    for job, answer in settled:
        if not job.waiter.done():
            job.waiter.set_result(answer)
