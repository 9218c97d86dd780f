"""Handles that are renewed, revoked, refused and asked for anew while an application uses them."""

from __future__ import annotations

import asyncio

from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import one, reason
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter, Grant


async def test_revocation_is_heeded_the_moment_it_is_told(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        await until(lambda: adapter.watchers)
        adapter.grants.clear()
        adapter.tell(revocation_epoch=1, policy_digest=bytes(32), dropped_grants=["tokens"])
        await until(lambda: "no_handles" in agent.faults())
        assert reason(await one(stub, handle)) == fail.REASON_HANDLE_REVOKED
        (listed,) = (await stub.ListHandles(agent_pb2.ListHandlesRequest())).handles
        assert (listed.id, listed.withdrawn) == (handle, "The adapter withdrew this handle.")
        adapter.grants["tokens"] = Grant()
        adapter.tell(revocation_epoch=2, policy_digest=bytes(32))
        await until(lambda: not agent.faults())
        assert (await first_handle(stub)).id == handle
    assert adapter.requests == []


async def test_a_refusal_by_the_adapter_drops_the_handle_and_asks_for_a_new_one(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.faults.refuse_item = lambda *_: fail.REASON_HANDLE_REVOKED
        issued = adapter.issued
        assert reason(await one(stub, handle)) == fail.REASON_HANDLE_REVOKED
        await until(lambda: adapter.issued > issued)
        adapter.faults.refuse_item = lambda *_: 0
        await until(lambda: not agent.faults())
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)


async def test_handles_are_renewed_at_half_of_their_life(place: Home, adapter: FakeAdapter) -> None:
    adapter.grants = {"tokens": Grant(life_s=3.0)}
    async with running(place):
        await until(lambda: adapter.renewed >= 1)
        assert (await first_handle(place.stub())).grant == "tokens"
    assert adapter.issued == 1


async def test_new_certificate_files_bring_new_connections_and_new_handles(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)
        before, issued = agent.connections.current, adapter.issued
        place.ca.write(place.root / "tls")
        await until(lambda: agent.connections.current is not before and adapter.issued > issued)
        assert isinstance(await one(stub, handle), agent_pb2.SignResponse)


async def test_an_expired_certificate_is_named_and_does_not_spin(
    place: Home, adapter: FakeAdapter
) -> None:
    from datetime import timedelta

    place.ca.write(place.root / "tls", life=timedelta(seconds=-60))
    place.upstream = "unreachable_after_ms = 0"
    place.extra = "[limits]\ndrain_ms = 200"
    async with running(place, ready=False) as agent:
        refusal = agent.connections.refusing()
        assert refusal is not None
        assert "certificate has expired" in refusal.detail
        await asyncio.sleep(0.5)
        tries = sum(agent.metrics.counters["capsign.retries"].cells.values())
        assert tries < 12
        assert "no_upstream" in agent.faults()


async def test_a_change_of_policy_brings_new_handles_and_forgets_keys(
    place: Home, adapter: FakeAdapter
) -> None:
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        ask = agent_pb2.GetPublicKeysRequest(handle_id=handle, algorithm=alg.ALGORITHM_ED25519)
        before = await stub.GetPublicKeys(ask)
        assert len(before.keys) == 1
        adapter.rotate(alg.ALGORITHM_ED25519)
        assert len((await stub.GetPublicKeys(ask)).keys) == 1
        await until(lambda: adapter.watchers and agent.watch.policy)
        issued = adapter.issued
        adapter.tell(revocation_epoch=1, policy_digest=b"2" * 32)
        await until(lambda: adapter.issued > issued)
        assert len((await stub.GetPublicKeys(ask)).keys) == 2
