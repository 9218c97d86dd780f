"""A journal whose files somebody removes under a running agent."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress

import grpc.aio
from capsign_agent.agent import Agent
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from support.agent_calls import one
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter


async def test_records_that_somebody_removed_end_this_life_and_show_in_the_next(
    place: Home, adapter: FakeAdapter
) -> None:
    """The descriptor still took what was written, so signing went on, and nobody ever heard of it.
    The agent ends; its life has no CLOSE, which reconciliation calls by its name.
    """
    agent = Agent(place.config(), place.timing)
    task = asyncio.create_task(agent.run())
    await until(lambda: not agent.faults(), task)
    for life in place.journal.iterdir():
        if life.is_dir() and life.name != "witness":
            shutil.rmtree(life)
    stub = place.stub()
    with suppress(grpc.aio.AioRpcError):  # it may have seen it already, and have gone
        await one(stub, (await first_handle(stub)).id)
    assert await asyncio.wait_for(task, 30) is False  # it was not asked to
    async with running(place):
        stub = place.stub()
        assert isinstance(await one(stub, (await first_handle(stub)).id), agent_pb2.SignResponse)
        await until(lambda: bool(adapter.boots))
    lives = [[record.kind for record in boot.records] for boot in adapter.boots.values()]
    assert [life[-1] == evidence_pb2.AUDIT_KIND_CLOSE for life in lives][-1]
    assert not any(evidence_pb2.AUDIT_KIND_CLOSE in life for life in lives[:-1])
