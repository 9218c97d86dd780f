"""Who is refused, and who is not, when the journal has no more room."""

from __future__ import annotations

import grpc
import pytest
from capsign_agent.journal.journal import Journal
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import batch, group, intents, one, outcomes
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter


async def test_a_full_journal_refuses_to_sign_and_recovers(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    place.journal_extra = "max_bytes = 1048576"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        while True:
            [signed] = await batch(stub, group(handle, *[b"x"] * 500))
            if signed.items[0].failure.reason:
                break
        assert {item.failure.reason for item in signed.items} == {fail.REASON_JOURNAL_FULL}
        assert agent.journal.size_bytes <= 1 << 20
        adapter.faults.audit = lambda _: 0
        await until(lambda: not agent.journal.sealed())
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)
    assert len(intents(adapter)) == len(outcomes(adapter)) == adapter.signed


async def test_refusals_without_end_at_one_socket_leave_the_others_room(
    place: Home, adapter: FakeAdapter
) -> None:
    """One container asked for what it may not until the journal was full, and no other could sign.
    What was told was recorded.
    """
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    place.journal_extra = "max_bytes = 1048576"
    other = place.root / "o" / "agent.sock"
    place.sockets += f'[[sockets]]\nname = "other"\npath = "{other}"\n'
    told = 0
    async with running(place):
        loud = place.stub()
        place.socket = other
        quiet = place.stub()
        while told < 20_000:
            [refused] = await batch(loud, group("nothing", *[b"x"] * 500))
            if refused.items[0].failure.reason != fail.REASON_HANDLE_UNKNOWN:
                break
            told += 500
        assert {item.failure.reason for item in refused.items} == {fail.REASON_JOURNAL_SHARE_FULL}
        [refused] = await batch(quiet, group("nothing", b"x"))
        assert refused.items[0].failure.reason == fail.REASON_HANDLE_UNKNOWN
        assert isinstance(await one(quiet, (await first_handle(quiet)).id), agent_pb2.SignResponse)
        adapter.faults.audit = lambda _: 0
    assert outcomes(adapter).count(fail.OUTCOME_REFUSED) == told + 1


def promise_all(journal: Journal) -> int:
    """Reserve all the room there is; returns for how many calls."""
    calls, step = 0, 1024
    while step:
        try:
            journal.promise(step)
            calls += step
        except FailureError:
            step //= 2
    return calls


async def test_resolving_needs_room_in_the_journal_too(place: Home, adapter: FakeAdapter) -> None:
    """Its record was written whatever the bound: whoever resolved on and on filled the disk."""
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        calls = promise_all(agent.journal)
        resolve = agent_pb2.ResolveIntentRequest(handle_id=handle, intent_id=new_intent_id())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ResolveIntent(resolve)
        told = FailureError.from_rpc(caught.value)
        assert told is not None
        assert told.reason == fail.REASON_JOURNAL_FULL
        agent.journal.forget(2 * calls)
        promised = agent.journal.promised
        assert (await stub.ResolveIntent(resolve)).HasField("never")
        assert agent.journal.promised == promised
        adapter.faults.audit = lambda _: 0
