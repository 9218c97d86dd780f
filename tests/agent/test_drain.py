"""What callers hear, and what is written down, when the agent stops in the middle of their
calls.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from capsign_agent.agent import Agent
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import group, one, outcomes, reason
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter


async def test_a_drain_finishes_what_is_in_flight_and_refuses_what_is_new(
    place: Home, adapter: FakeAdapter
) -> None:
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    agent: Agent
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        call = stub.SignStream()
        await call.write(agent_pb2.SignStreamRequest(call_id=1, groups=[group(handle, b"a")]))
        await until(lambda: adapter.requests)
        agent.stop()
        await call.write(agent_pb2.SignStreamRequest(call_id=2, groups=[group(handle, b"b")]))
        refused = await call.read()
        assert (refused.call_id, refused.failure.reason) == (2, fail.REASON_DRAINING)
        gate.set()
        done = await call.read()
        assert (done.call_id, bool(done.groups[0].items[0].signatures)) == (1, True)
        call.cancel()
    assert adapter.records[-1].kind == evidence_pb2.AUDIT_KIND_CLOSE
    assert outcomes(adapter) == [fail.OUTCOME_DONE]


@pytest.mark.parametrize(
    "again_after_s", [0.05, 60.0], ids=["queued again", "not yet queued again"]
)
async def test_a_drain_does_not_say_that_a_signed_call_did_not_happen(
    again_after_s: float, place: Home, adapter: FakeAdapter
) -> None:
    """Signed, then no replica was left for the second try: a drain told the caller "unavailable"
    and wrote no outcome down.
    """
    place.hurry(second_try_s=again_after_s)
    dying = adapter.die_instead_of_answering()
    place.extra = "[limits]\ndrain_ms = 500"
    async with running(place) as agent:
        stub = place.stub()
        asked = asyncio.create_task(one(stub, (await first_handle(stub)).id))
        await until(lambda: adapter.signed and agent.reach.connected == 0)
        await asyncio.sleep(0.2)
        agent.stop()
        assert reason(await asked) == fail.REASON_ANSWER_LOST
    adapter.faults.before_answer = lambda _: None
    await asyncio.to_thread(dying.join)
    adapter.start()
    async with running(place):
        await until(lambda: outcomes(adapter) == [fail.OUTCOME_UNKNOWN])


async def test_a_stream_that_breaks_late_in_a_drain_tells_its_callers(
    place: Home, adapter: FakeAdapter
) -> None:
    """The queue was closed, then a stream broke: its call was kept for a second try that never
    came, and heard nothing.
    """
    dying = threading.Thread(target=adapter.stop)
    gate = threading.Event()
    adapter.faults.before_answer = lambda _: gate.wait(10) and None
    place.extra = "[limits]\ndrain_ms = 500"
    async with running(place) as agent:
        stub = place.stub()
        asked = asyncio.create_task(one(stub, (await first_handle(stub)).id))
        await until(lambda: adapter.signed)
        agent.stop()
        await until(lambda: agent.coalescer.closed)
        dying.start()
        assert reason(await asked) == fail.REASON_ANSWER_LOST
    gate.set()
    await asyncio.to_thread(dying.join)
    adapter.start()
    async with running(place):
        await until(lambda: outcomes(adapter) == [fail.OUTCOME_UNKNOWN])
