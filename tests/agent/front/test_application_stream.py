"""One application stream without any network: what it takes in, and when."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Any

import grpc
import pytest
from capsign_agent.front.application_stream import ApplicationStream
from capsign_agent.front.memory_budget import CALL_BYTES, MemoryBudget
from capsign_agent.front.read_slots import ReadSlots
from capsign_wire import bounds
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2 as fail

MOST = 4
CALLS = 50
WIDE = 1024 * CALL_BYTES


class Request:
    """A call that can be asked whether anybody still holds it."""

    def __init__(self, call_id: int) -> None:
        self.call_id = call_id

    def ByteSize(self) -> int:
        return 0


class Answering:
    """A servicer that has every answer at once."""

    async def answer(self, request: Any) -> agent_pb2.SignStreamResponse:
        try:
            if isinstance(request, bounds.Unparsed):
                bounds.check(request)
        except FailureError as error:
            return agent_pb2.SignStreamResponse(call_id=request.number, failure=error.to_item())
        return agent_pb2.SignStreamResponse(call_id=request.call_id)


class Application:
    """Writes calls as fast as they are taken, and reads answers once `reads` is set."""

    def __init__(self, calls: int = CALLS, *, ends: bool = True) -> None:
        self.calls = calls
        self.ends = ends
        self.taken = 0
        self.sent: list[weakref.ref[Request]] = []
        self.answers: list[agent_pb2.SignStreamResponse] = []
        self.reads = asyncio.Event()
        self.gone = 0
        """How many writes fail before one succeeds."""

    @property
    def ids(self) -> list[int]:
        return [answer.call_id for answer in self.answers]

    async def read(self) -> Any:
        if self.taken == self.calls:
            if not self.ends:
                await asyncio.Event().wait()
            return grpc.aio.EOF
        request = Request(self.taken)
        self.sent.append(weakref.ref(request))
        self.taken += 1
        return request

    async def write(self, answer: agent_pb2.SignStreamResponse) -> None:
        await self.reads.wait()
        if self.gone:
            self.gone -= 1
            raise RuntimeError("the application has gone")
        self.answers.append(answer)


async def turns() -> None:
    for _ in range(20 * CALLS):
        await asyncio.sleep(0)


def room(most: int = WIDE) -> MemoryBudget:
    return MemoryBudget(most, Metrics())


def stream(
    application: Application, held: MemoryBudget | None = None, most: int = MOST
) -> ApplicationStream:
    servicer: Any = Answering()
    return ApplicationStream(servicer, application, held or room(), ReadSlots(1, 7), "app", most)


async def test_an_application_that_does_not_read_is_not_read_from() -> None:
    """It sent and never read: a call was done once its answer was made, and the answers took all of
    the agent's memory.
    """
    application = Application()
    running = asyncio.create_task(stream(application).run())
    await turns()
    assert application.taken == MOST
    application.reads.set()
    await asyncio.wait_for(running, 5)
    assert application.ids == list(range(CALLS))


async def test_a_stream_that_holds_its_share_of_the_room_is_not_read_from() -> None:
    """A bound in calls alone let one stream hold a GiB of requests while an adapter was slow, or
    180 MiB of answers.
    """
    application, held = Application(), room(16 * CALL_BYTES)
    running = asyncio.create_task(stream(application, held, most=CALLS).run())
    await turns()
    assert application.taken == 5  # the fifth is above the share, a quarter of sixteen
    assert held.held == 5 * CALL_BYTES
    application.reads.set()
    await asyncio.wait_for(running, 5)
    assert application.ids == list(range(CALLS))
    assert held.held == 0


async def test_a_call_without_room_is_answered_so_and_the_stream_goes_on() -> None:
    held = room(2 * CALL_BYTES)
    other = held.acquire(2 * CALL_BYTES)
    application = Application()
    application.reads.set()
    await asyncio.wait_for(stream(application, held).run(), 5)
    assert application.ids == list(range(CALLS))
    assert {answer.failure.reason for answer in application.answers} == {fail.REASON_OVERLOADED}
    held.release(other)
    assert held.held == 0


@pytest.mark.parametrize("failing", [1, 2, MOST])
async def test_answers_that_nobody_takes_give_their_places_back(failing: int) -> None:
    """A write failed with answers behind it: were their places kept, whatever is read afterwards
    would wait for ever.
    """
    application, held = Application(), room()
    application.gone = failing
    running = asyncio.create_task(stream(application, held).run())
    await turns()
    application.reads.set()
    await asyncio.wait_for(running, 5)
    assert application.taken == CALLS
    assert held.held == 0


async def test_a_stream_that_ends_gives_back_what_was_not_read() -> None:
    application, held = Application(), room()
    running = asyncio.create_task(stream(application, held).run())
    await turns()
    assert held.held == MOST * CALL_BYTES
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert held.held == 0
    await turns()  # its calls end after it
    assert held.held == 0


async def test_a_stream_that_idles_holds_no_request() -> None:
    """Each stream kept the last request it had read until the next one came: a hundred idle ones
    held 400 MiB.
    """
    application = Application(calls=3, ends=False)
    application.reads.set()
    running = asyncio.create_task(stream(application).run())
    await turns()
    assert application.ids == [0, 1, 2]
    assert [one() for one in application.sent] == [None] * 3
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
