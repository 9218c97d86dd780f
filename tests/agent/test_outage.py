"""An outage of the adapter that lasts longer than a handle lives. Nobody withdrew anything: every
answer is *unavailable*.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from capsign_agent.agent import Agent
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import one, outcomes
from support.agent_home import Home, first_handle, running, until
from support.agent_pki import TestCa
from support.fake_adapter import FakeAdapter, Grant

LIFE_S = 2.5


async def told(call: Awaitable[Any]) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    return failure


def _sign(stub: Any, handle: str) -> Awaitable[Any]:
    item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"message")
    return stub.Sign(
        agent_pb2.SignRequest(handle_id=handle, algorithm=alg.ALGORITHM_ED25519, item=item)
    )


def _public_keys(stub: Any, handle: str) -> Awaitable[Any]:
    return stub.GetPublicKeys(
        agent_pb2.GetPublicKeysRequest(handle_id=handle, algorithm=alg.ALGORITHM_ED25519)
    )


def _verify(stub: Any, handle: str) -> Awaitable[Any]:
    request = agent_pb2.VerifyRequest(
        handle_id=handle, algorithm=alg.ALGORITHM_ED25519, message=b"m", signature=bytes(64)
    )
    return stub.Verify(request)


def _resolve(stub: Any, handle: str) -> Awaitable[Any]:
    return stub.ResolveIntent(
        agent_pb2.ResolveIntentRequest(handle_id=handle, intent_id=new_intent_id())
    )


def _list(stub: Any, _: str) -> Awaitable[Any]:
    return stub.ListHandles(agent_pb2.ListHandlesRequest())


CALLS: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "sign": _sign,
    "public keys": _public_keys,
    "verify": _verify,
    "resolve": _resolve,
    "list": _list,
}


async def ended(agent: Agent) -> None:
    """Until the handles are past their end and an attempt to renew them has failed."""
    await until(
        lambda: "no_handles" in agent.faults() and agent.handles.last_error.failure is not None
    )


async def test_after_the_end_of_its_handles_an_agent_says_unavailable_and_signs_again_at_once(
    place: Home, adapter: FakeAdapter
) -> None:
    """Handles of 10 s, an adapter that was away for 22 s: applications heard *refused*,
    HANDLE_EXPIRED, and gave up for good.
    """
    adapter.grants = {"tokens": Grant(life_s=LIFE_S)}
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.stop()
        await ended(agent)
        for name, call in CALLS.items():
            failure = await told(call(stub, handle))
            assert (name, failure.reason) == (name, fail.REASON_UPSTREAM_UNREACHABLE), failure
            assert "adapter" in failure.detail
            assert failure.retry_after_ms > 0
        [item] = (
            (
                await stub.SignBatch(
                    agent_pb2.SignBatchRequest(
                        groups=[
                            agent_pb2.SignGroup(
                                handle_id=handle,
                                algorithm=alg.ALGORITHM_ED25519,
                                items=[agent_pb2.SignItem(intent_id=new_intent_id(), message=b"m")],
                            )
                        ]
                    )
                )
            )
            .groups[0]
            .items
        )
        assert item.failure.reason == fail.REASON_UPSTREAM_UNREACHABLE
        adapter.start()
        assert isinstance(
            await one(stub, handle, timeout=10), agent_pb2.SignResponse
        )  # the first call, and no other
        assert (await first_handle(stub)).id == handle
    assert fail.OUTCOME_REFUSED not in outcomes(adapter)


@pytest.mark.parametrize("name", CALLS)
async def test_the_first_call_after_the_adapters_return_is_answered(
    place: Home, adapter: FakeAdapter, name: str
) -> None:
    """gRPC waits between its attempts, six seconds at last. Whoever called meanwhile was refused,
    although the adapter was there again.
    """
    place.upstream = "unreachable_after_ms = 0"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.stop()
        await until(lambda: not agent.reach.connected)
        assert (await told(_sign(stub, handle))).reason == fail.REASON_UPSTREAM_UNREACHABLE
        adapter.start()
        if name == "verify":  # of a signature that is none
            failure = await told(_verify(stub, handle))
            assert failure.reason == fail.REASON_SIGNATURE_INVALID
        else:
            await CALLS[name](stub, handle)


async def test_all_who_call_in_an_outage_share_one_attempt(
    place: Home, adapter: FakeAdapter
) -> None:
    """A pod that goes on calling is no flood for an adapter that starts."""
    came = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        writer.transport.abort()

    place.upstream = "unreachable_after_ms = 0\nstreams = 1"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.stop()
        await until(lambda: not agent.reach.connected)
        async with await asyncio.start_server(hang_up, "127.0.0.1", adapter.port):
            told_all = await asyncio.gather(*(told(_sign(stub, handle)) for _ in range(200)))
    assert {failure.reason for failure in told_all} == {fail.REASON_UPSTREAM_UNREACHABLE}
    assert 0 < came < 20


async def test_an_agent_that_starts_while_the_adapter_is_away_calls_no_id_unknown(
    place: Home, adapter: FakeAdapter
) -> None:
    """An application that lived longer than its agent has ids of the old one. They are not unknown
    before it is known which there are: it could only be told *refused*.
    """
    adapter.stop()
    async with running(place, ready=False) as agent:
        stub = place.stub()
        for name, call in CALLS.items():
            failure = await told(call(stub, "an-id-of-the-life-before"))
            assert (name, failure.reason) == (name, fail.REASON_UPSTREAM_UNREACHABLE), failure
        adapter.start()
        await until(lambda: agent.reach.connected)
        assert (
            await told(_sign(stub, "an-id-of-the-life-before"))
        ).reason == fail.REASON_HANDLE_UNKNOWN


async def test_who_waits_in_vain_for_an_adapter_that_hangs_hears_why_before_the_time_is_up(
    place: Home, adapter: FakeAdapter
) -> None:
    """It was told at the very end of the caller's time, which had gone by then: to the caller the
    agent seemed to hang, and its signature unknown.
    """
    hangs = threading.Event()
    adapter.faults.before_issue = lambda: hangs.wait(20)
    item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"message")
    request = agent_pb2.SignRequest(handle_id="an-id", algorithm=alg.ALGORITHM_ED25519, item=item)
    try:
        async with running(place, ready=False) as agent:
            await until(lambda: agent.reach.connected)
            stub = place.stub()
            lists, signs = (
                told(call)
                for call in (
                    stub.ListHandles(agent_pb2.ListHandlesRequest(), timeout=2),
                    stub.Sign(request, timeout=2),
                )
            )
            for failure in await asyncio.gather(lists, signs):
                assert failure.reason == fail.REASON_UPSTREAM_UNREACHABLE, failure
            hangs.set()
    finally:
        hangs.set()


async def test_what_was_withdrawn_before_the_outage_stays_refused_during_it(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.grants = {"kept": Grant("kept", life_s=LIFE_S), "gone": Grant("gone", life_s=LIFE_S)}
    async with running(place) as agent:
        stub = place.stub()
        handles = {
            h.grant: h.id for h in (await stub.ListHandles(agent_pb2.ListHandlesRequest())).handles
        }
        await until(lambda: adapter.watchers)
        del adapter.grants["gone"]
        adapter.tell(revocation_epoch=1, policy_digest=bytes(32), dropped_grants=["gone"])
        await until(lambda: "gone" not in agent.handles.issued)
        adapter.stop()
        await ended(agent)
        for name in ("sign", "public keys", "verify", "resolve"):
            assert (
                await told(CALLS[name](stub, handles["gone"]))
            ).reason == fail.REASON_HANDLE_REVOKED
            assert (
                await told(CALLS[name](stub, handles["kept"]))
            ).reason == fail.REASON_UPSTREAM_UNREACHABLE
        adapter.start()


async def test_handles_that_the_adapter_refuses_to_give_again_are_refused_when_they_end(
    place: Home, adapter: FakeAdapter
) -> None:
    """The policy dropped the workload: the adapter is there, and says no. That is not an outage."""
    adapter.grants = {"tokens": Grant(life_s=LIFE_S)}
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.faults.issue = fail.REASON_IDENTITY_UNKNOWN
        await ended(agent)
        failure = await told(_sign(stub, handle))
        assert failure.reason == fail.REASON_HANDLE_EXPIRED
        assert "IDENTITY_UNKNOWN" in failure.detail
        assert (await told(_list(stub, handle))).reason == fail.REASON_HANDLE_EXPIRED


async def test_an_adapter_that_is_there_and_cannot_issue_is_the_cause_that_is_told(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.grants = {"tokens": Grant(life_s=LIFE_S)}
    place.upstream = "timeout_ms = 3000"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.faults.issue = fail.REASON_STORE_UNAVAILABLE
        await ended(agent)
        assert (await told(_sign(stub, handle))).reason == fail.REASON_STORE_UNAVAILABLE
        adapter.faults.issue = 0
        assert isinstance(await one(stub, handle, timeout=10), agent_pb2.SignResponse)


async def test_a_handle_that_ended_by_the_adapters_clock_is_renewed_and_the_same_intent_signed(
    place: Home, adapter: FakeAdapter
) -> None:
    """The agent's clock is behind. The adapter refuses the token and binds no intent to that, so
    the intent stays good.
    """
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        issued = adapter.issued
        adapter.faults.refuse_item = lambda *_: fail.REASON_HANDLE_EXPIRED
        item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"message")
        request = agent_pb2.SignRequest(
            handle_id=handle, algorithm=alg.ALGORITHM_ED25519, item=item
        )
        failure = await told(stub.Sign(request))
        assert failure.reason == fail.REASON_UPSTREAM_UNREACHABLE
        assert "clock" in failure.detail
        await until(lambda: adapter.issued > issued)
        adapter.faults.refuse_item = lambda *_: 0
        assert (await stub.Sign(request)).signed.items
        assert not agent.faults()
    assert fail.OUTCOME_REFUSED not in outcomes(adapter)


def test_one_that_ended_is_listed_beside_one_that_has_not(ca: TestCa) -> None:
    """Left out, the application would be told that no handle fits: refused, for want of a grant."""
    fake, socket = FakeAdapter(ca), SocketHandles("app", (), Narrowing())
    book = HandleRegistry([socket])
    handles = [fake.handle(Grant("long")), fake.handle(Grant("short", life_s=10))]
    now = handles[0].not_before.ToMilliseconds() / 1000
    book.replace(handles, now, bytes(fake.mint.public_key.to_bytes()))
    later = now + 60
    book.last_error.failure = FailureError(
        fail.REASON_UPSTREAM_UNREACHABLE, "No adapter can be reached."
    )
    assert [one.grant for one in socket.listed(later, 5.0)] == ["long", "short"]
    [short] = [one for one in socket.listed(later, 5.0) if one.grant == "short"]
    with pytest.raises(FailureError) as caught:
        socket.find(short.id, later, 5.0)
    assert caught.value.outcome == fail.OUTCOME_UNAVAILABLE
    assert "No adapter can be reached." in caught.value.detail
    book.last_error.failure = FailureError(
        fail.REASON_IDENTITY_UNKNOWN, "The policy gives this workload no grant."
    )
    assert [one.grant for one in socket.listed(later, 5.0)] == ["long"]
