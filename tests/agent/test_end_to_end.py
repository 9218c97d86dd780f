"""The agent over real sockets and real TLS against an adapter that behaves."""

from __future__ import annotations

import errno
import os
from typing import Any

import grpc
import pytest
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_evidence import told_calls
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import ALL, FakeAdapter
from support.journals import kill, last_segment
from support.signed import only_of


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("algorithm", ALL)
async def test_signs_and_verifies(algorithm: int, place: Home, adapter: FakeAdapter) -> None:
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"hello")
        signed = await stub.Sign(
            agent_pb2.SignRequest(handle_id=handle.id, algorithm=algorithm, item=item)
        )
        assert signed.signed.signed_by[0].kid
        good = agent_pb2.VerifyRequest(
            handle_id=handle.id,
            algorithm=algorithm,
            message=b"hello",
            signature=only_of(signed.signed),
        )
        assert (await stub.Verify(good)).key.kid == signed.signed.signed_by[0].kid
        bad = agent_pb2.VerifyRequest(
            handle_id=handle.id,
            algorithm=algorithm,
            message=b"other",
            signature=only_of(signed.signed),
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Verify(bad)
        assert "SIGNATURE_INVALID" in str(caught.value.trailing_metadata())
    kinds = [record.kind for record in adapter.records]
    assert kinds[0] == evidence_pb2.AUDIT_KIND_OPEN
    assert kinds[-1] == evidence_pb2.AUDIT_KIND_CLOSE
    assert evidence_pb2.AUDIT_KIND_INTENT in kinds
    assert evidence_pb2.AUDIT_KIND_OUTCOME in kinds
    assert not list(place.journal.glob("*/*.seg"))


@pytest.mark.usefixtures("engine")
async def test_a_batch_gives_a_result_for_each_item(place: Home, adapter: FakeAdapter) -> None:
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        items = [
            agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m%d" % number)
            for number in range(100)
        ]
        items[7].intent_id = bytes(16)
        group = agent_pb2.SignGroup(
            handle_id=handle.id, algorithm=alg.ALGORITHM_ED25519, items=items
        )
        wrong = agent_pb2.SignGroup(
            handle_id="nothing", algorithm=alg.ALGORITHM_ED25519, items=items[:2]
        )
        answer = await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group, wrong]))
        assert [bool(item.signatures) for item in answer.groups[0].items] == [
            number != 7 for number in range(100)
        ]
        assert answer.groups[0].items[7].failure.reason == fail.REASON_INPUT_MALFORMED
        assert {item.failure.reason for item in answer.groups[1].items} == {
            fail.REASON_HANDLE_UNKNOWN
        }


async def test_a_call_of_many_is_two_records(place: Home, adapter: FakeAdapter) -> None:
    """It was two for each signature."""
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        items = [
            agent_pb2.SignItem(intent_id=new_intent_id(), message=b"%d" % number)
            for number in range(100)
        ]
        group = agent_pb2.SignGroup(
            handle_id=handle.id, algorithm=alg.ALGORITHM_ED25519, items=items
        )
        await stub.SignBatch(agent_pb2.SignBatchRequest(groups=[group]))
    calls = [one for one in adapter.records if one.kind in told_calls.CALLS]
    asked, outcome = calls
    ids = [item.intent_id for item in items]
    assert told_calls.intents(asked) == told_calls.intents(outcome) == ids
    assert outcome.outcome == fail.OUTCOME_DONE


@pytest.mark.usefixtures("engine")
async def test_a_stream_carries_many_calls(place: Home, adapter: FakeAdapter) -> None:
    async with running(place):
        stub = place.stub()
        handle = await first_handle(stub)
        call = stub.SignStream()
        for number in range(50):
            item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m%d" % number)
            group = agent_pb2.SignGroup(
                handle_id=handle.id, algorithm=alg.ALGORITHM_ED25519, items=[item]
            )
            await call.write(agent_pb2.SignStreamRequest(call_id=number, groups=[group]))
        await call.done_writing()
        seen = {answer.call_id: answer async for answer in call}
        assert sorted(seen) == list(range(50))
        assert all(answer.groups[0].items[0].signatures for answer in seen.values())
    assert len(adapter.requests) < 50


async def test_handles_appear_by_themselves_when_the_adapter_comes_late(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.stop()
    async with running(place, ready=False) as agent:
        assert "no_handles" in agent.faults()
        adapter.start()
        await until(lambda: not agent.faults())
        assert (await first_handle(place.stub())).grant == "tokens"


async def test_a_start_on_a_full_disk_delivers_what_is_there_and_then_signs(
    place: Home, adapter: FakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last life left fills the disk, and only delivering it makes room. The agent once
    ended at its first record, at every start again: nothing was ever delivered.
    """
    last = Journal(place.journal, 1 << 20, os.urandom(16), 1_700_000_000_000)
    last.append(records.opened())
    kill(last, place.journal)
    write, left = os.write, last_segment(place.journal)

    def write_if_room(descriptor: int, data: Any) -> int:
        if left.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_if_room)
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    async with running(place, ready=False) as agent:
        await until(lambda: agent.faults() == ["journal_full"])
        stub = place.stub()
        handle = (await first_handle(stub)).id
        item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"hello")
        request = agent_pb2.SignRequest(
            handle_id=handle, algorithm=alg.ALGORITHM_ED25519, item=item
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Sign(request)
        told = FailureError.from_rpc(caught.value)
        assert told is not None
        assert told.reason == fail.REASON_JOURNAL_FULL
        adapter.faults.audit = lambda _: 0
        await until(lambda: not left.exists())
        assert (await stub.Sign(request)).signed.items
    before, now = adapter.boots.values()
    assert [record.kind for record in before.records] == [evidence_pb2.AUDIT_KIND_OPEN]
    kinds = [record.kind for record in now.records]
    assert (kinds[0], kinds[-1]) == (evidence_pb2.AUDIT_KIND_OPEN, evidence_pb2.AUDIT_KIND_CLOSE)


async def test_a_start_with_a_certificate_asks_for_handles_once(
    place: Home, adapter: FakeAdapter, capfd: pytest.CaptureFixture[str]
) -> None:
    """They were asked for before the connections of the first certificate were there, and again
    after a pause: twice the time.
    """
    async with running(place):
        await first_handle(place.stub())
    assert "handles.fetch_failed" not in capfd.readouterr().err
