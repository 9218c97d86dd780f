"""One application stream without any network: what it takes in, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from capsign_agent.servicer import _Stream
from capsign_wire.agent.v1 import agent_pb2

MOST = 4
CALLS = 50


class Answering:
    """A servicer that has every answer at once."""

    async def answer(self, request: agent_pb2.SignStreamRequest) -> agent_pb2.SignStreamResponse:
        return agent_pb2.SignStreamResponse(call_id=request.call_id)


class Application:
    """Writes calls as fast as they are taken, and reads answers once `reads` is set."""

    def __init__(self) -> None:
        self.taken = 0
        self.read: list[int] = []
        self.reads = asyncio.Event()
        self.gone = 0
        """How many writes fail before one succeeds."""

    async def calls(self) -> AsyncIterator[agent_pb2.SignStreamRequest]:
        for number in range(CALLS):
            self.taken += 1
            yield agent_pb2.SignStreamRequest(call_id=number)

    async def write(self, answer: agent_pb2.SignStreamResponse) -> None:
        await self.reads.wait()
        if self.gone:
            self.gone -= 1
            raise RuntimeError("the application has gone")
        self.read.append(answer.call_id)


async def turns() -> None:
    for _ in range(20 * CALLS):
        await asyncio.sleep(0)


def stream(application: Application) -> _Stream:
    servicer: Any = Answering()
    return _Stream(servicer, application, MOST)


async def test_an_application_that_does_not_read_is_not_read_from() -> None:
    """It sent and never read: a call was done once its answer was made, and the answers took all of the agent's memory."""
    application = Application()
    running = asyncio.create_task(stream(application).run(application.calls()))
    await turns()
    assert application.taken == MOST + 1  # one more waits for a slot
    application.reads.set()
    await asyncio.wait_for(running, 5)
    assert application.read == list(range(CALLS))


@pytest.mark.parametrize("failing", [1, 2, MOST])
async def test_answers_that_nobody_takes_give_their_slots_back(failing: int) -> None:
    """A write failed with answers behind it: were their slots kept, whatever is read afterwards would wait for ever."""
    application = Application()
    application.gone = failing
    one = stream(application)
    running = asyncio.create_task(one.run(application.calls()))
    await turns()
    application.reads.set()
    await asyncio.wait_for(running, 5)
    assert application.taken == CALLS
    assert one._slots._value == MOST
