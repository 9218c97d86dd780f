"""The agent as it lives in a pod: no certificate at first, then one, then another, and an
application that notices none of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from capsign_agent import process
from capsign_agent.agent import Agent
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import outcomes
from support.agent_home import Home, first_handle, home, running, until
from support.agent_pki import TestCa
from support.clocks import ShiftedClock
from support.fake_adapter import FakeAdapter
from support.fake_identity import FakeIdentity
from support.fake_workload_api import FakeWorkloadApi, svid
from support.identity_sections import kubernetes_section
from support.signed import only_of


@pytest.fixture
def identity() -> FakeIdentity:
    return FakeIdentity()


@pytest.fixture
def adapter(identity: FakeIdentity) -> Iterator[FakeAdapter]:
    fake = FakeAdapter(identity.active, identity=identity).start()
    yield fake
    fake.stop()


@pytest.fixture
def place(
    ca: TestCa, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> Iterator[Home]:
    with home(ca, adapter.port) as one:
        one.hurry(
            certificate_clock=clock,
            retry_delay_s=lambda failures: 0.02,
            look_at_clock_s=0.01,
            spread_s=0.0,
        )
        one.in_a_pod(adapter.enrolment_port, identity.active.pem)
        yield one


@pytest.fixture
def clock() -> ShiftedClock:
    """By which the agent judges its certificates."""
    return ShiftedClock()


async def sign(stub: Any, handle: str) -> agent_pb2.SignResponse:
    item = agent_pb2.SignItem(intent_id=new_intent_id(), message=b"message")
    return await stub.Sign(
        agent_pb2.SignRequest(handle_id=handle, algorithm=alg.ALGORITHM_ED25519, item=item)
    )


async def refused(call: Any) -> FailureError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    told = FailureError.from_rpc(caught.value)
    assert told is not None
    return told


async def probed(place: Home) -> str:
    reader, writer = await asyncio.open_unix_connection(f"{place.health}.probe")
    line = await reader.readline()
    writer.close()
    return line.decode().strip()


async def generation(agent: Agent, change: Any) -> None:
    """Do what leads to new credentials and wait until the agent works with them alone: the old
    connections are closed.
    """
    before = agent.connections.current
    channels = [one.channel for target in before.targets for one in target.connections]
    change()
    await until(
        lambda: all(one.get_state() is grpc.ChannelConnectivity.SHUTDOWN for one in channels)
    )
    await until(lambda: not agent.faults())


def wake(clock: ShiftedClock, identity: FakeIdentity) -> None:
    """More than half of the certificate's life goes by, all at once. The next one lives longer: it
    is dated by the real clock.
    """
    passed_s = identity.life.total_seconds() * 0.55
    identity.life *= 2
    clock.ahead_s += passed_s


async def test_a_pod_enrols_and_signs(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity
) -> None:
    async with running(place):
        assert await probed(place) == "SERVING"
        stub = place.stub()
        assert (await sign(stub, (await first_handle(stub)).id)).signed.items
    assert identity.enrolled == ["token-1"]
    kinds = [record.kind for record in adapter.records]
    assert kinds[:2] == [evidence_pb2.AUDIT_KIND_OPEN, evidence_pb2.AUDIT_KIND_IDENTITY_ISSUED]


async def test_before_the_adapter_is_up_the_sockets_refuse_and_health_says_why(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.stop()
    place.upstream = "unreachable_after_ms = 0"
    async with running(place, ready=False) as agent:
        probe = Path(f"{place.health}.probe")
        await until(lambda: "UPSTREAM_UNREACHABLE" in agent.faults() and probe.exists())
        assert (
            await probed(place)
            == "NOT_SERVING no_identity UPSTREAM_UNREACHABLE no_handles no_upstream"
        )
        stub = place.stub()
        told = await refused(stub.ListHandles(agent_pb2.ListHandlesRequest()))
        assert (told.reason, told.outcome) == (
            fail.REASON_UPSTREAM_UNREACHABLE,
            fail.OUTCOME_UNAVAILABLE,
        )
        refusal = agent.connections.refusing()
        assert refusal is not None
        assert "no identity yet" in refusal.detail
        adapter.start()
        await until(lambda: not agent.faults())
        assert await probed(place) == "SERVING"
        assert (await sign(stub, (await first_handle(stub)).id)).signed.items


def asked_in_vain(agent: Agent, advice: str) -> bool:
    """Whether handles were asked for since this advice is known."""
    failure = agent.handles.last_error.failure
    return failure is not None and advice in failure.detail


async def unserved(place: Home, capsys: pytest.CaptureFixture[str], word: str) -> list[str]:
    """What is told of an agent that gets no identity for this reason: by its probe, its log, to
    whoever calls it, and in the status of its pod.
    """
    place.upstream = "unreachable_after_ms = 0\ntimeout_ms = 3000"
    async with running(place, ready=False) as agent:
        await until(
            lambda: word in agent.faults() and asked_in_vain(agent, agent.identity_events.advice)
        )
        probe = await probed(place)
        assert probe.startswith(f"NOT_SERVING no_identity {word} no_handles no_upstream. ")
        told = await refused(place.stub().ListHandles(agent_pb2.ListHandlesRequest()))
        assert told.reason == fail.REASON_UPSTREAM_UNREACHABLE
        status = place.root / "termination-log"
        status.touch()
        process.leave_word(agent.last_word, status)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [advice] = [line["advice"] for line in lines if line.get("reason") == word]
    assert status.read_text().startswith(word)
    return [probe, told.detail, advice, status.read_text()]


async def test_a_pod_without_dns_hears_that_the_name_is_the_matter(
    place: Home, adapter: FakeAdapter, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `dnsPolicy: None` it hung in `Init`, and all that it said was that nobody answers."""
    targets = ["no-such-name.invalid:7444"]
    place.identity = kubernetes_section(
        targets, place.root / "token", place.ca.pem, place.root / "i"
    )
    (place.root / "token").write_text("token-1")
    for told in await unserved(place, capsys, "NAME_UNRESOLVED"):
        assert "cannot be resolved" in told
        assert "dnsPolicy: None" in told


async def test_a_pod_of_an_installation_that_is_gone_names_the_command_that_heals_it(
    place: Home, adapter: FakeAdapter, capsys: pytest.CaptureFixture[str]
) -> None:
    """No restart of its container changes the bundle that it was made with. It said so by a word
    whose meaning only the manual told.
    """
    place.in_a_pod(adapter.enrolment_port, TestCa("another authority").pem)
    for told in await unserved(place, capsys, "TRUST_OUTDATED"):
        assert "kubectl delete pod" in told


async def test_a_refusal_is_seen_in_health_log_and_evidence_and_is_no_end(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, capfd: pytest.CaptureFixture[str]
) -> None:
    identity.refuse = fail.REASON_SERVICE_TOKEN_MISPLACED
    async with running(place, ready=False) as agent:
        await until(lambda: len(identity.enrolled) > 3)
        assert (
            await probed(place)
            == "NOT_SERVING no_identity SERVICE_TOKEN_MISPLACED no_handles no_upstream"
        )
        identity.refuse = 0
        await until(lambda: not agent.faults())
    logged = [
        json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")
    ]
    assert [one["reason"] for one in logged if one["event"] == "identity.refused"] == [
        "SERVICE_TOKEN_MISPLACED"
    ]
    noted = [
        record
        for record in adapter.records
        if record.kind == evidence_pb2.AUDIT_KIND_IDENTITY_REFUSED
    ]
    assert [record.reason for record in noted] == [fail.REASON_SERVICE_TOKEN_MISPLACED]


async def test_a_new_certificate_costs_no_call(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """Callers that never pause, across three renewals. Handles are bound to the key: one that is
    sent late would be refused.
    """
    stop = asyncio.Event()
    done = 0

    async def caller(stub: Any, handle: str) -> None:
        nonlocal done
        while not stop.is_set():
            assert (await sign(stub, handle)).signed.items
            done += 1

    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        callers = [asyncio.create_task(caller(stub, handle)) for _ in range(8)]
        for number in range(3):
            await generation(agent, lambda: wake(clock, identity))
            before = done
            await until(
                lambda reached=before: done > reached + 20 or any(one.done() for one in callers)
            )
            assert len(identity.renewed) == number + 1
        stop.set()
        await asyncio.gather(*callers)
    assert outcomes(adapter) == [fail.OUTCOME_DONE] * done
    assert len(set(adapter.bound.values())) == 4


async def test_a_new_certificate_while_no_handles_can_be_had_looks_like_no_theft(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """The store fails, the certificate changes, the store comes back: at no time may a handle be
    sent over the connections of another key. Handles of the new key were once taken while the old
    streams signed: calls were refused as stolen, finally.
    """
    stop, heard = asyncio.Event(), []

    async def caller(stub: Any, handle: str) -> None:
        while not stop.is_set():
            heard.append(len(only_of((await sign(stub, handle)).signed)))
            await asyncio.sleep(0.002)

    async with running(place) as agent:
        stub = place.stub()
        calling = asyncio.create_task(caller(stub, (await first_handle(stub)).id))
        await until(lambda: adapter.watchers and agent.watch.policy)
        adapter.faults.issue = fail.REASON_STORE_UNAVAILABLE
        adapter.tell(
            revocation_epoch=2, policy_digest=b"2" * 32
        )  # handles are to be asked for anew
        wake(clock, identity)
        await until(lambda: identity.renewed)
        # longer than four tries: the new streams once took over without handles
        await asyncio.sleep(2.0)
        before = len(heard)
        await until(lambda: len(heard) > before + 20 or calling.done())
        adapter.faults.issue = 0
        await until(lambda: len(set(adapter.bound.values())) == 2)
        before = len(heard)
        await until(lambda: len(heard) > before + 50 or calling.done())
        stop.set()
        await calling


async def test_a_certificate_that_no_adapter_takes_does_not_keep_out_the_next(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """Handles are refused under the second certificate for as long as it lives; the third is used
    though the second never was.
    """
    place.hurry(retry_delay_s=lambda failures: 30.0)
    async with running(place) as agent:
        first = agent.connections.current
        adapter.faults.issue = fail.REASON_STORE_UNAVAILABLE
        wake(clock, identity)
        await until(lambda: identity.renewed)
        await asyncio.sleep(0.2)
        assert agent.connections.current is first
        adapter.faults.issue = 0
        await generation(agent, lambda: wake(clock, identity))
        assert len(identity.renewed) == 2


async def test_when_the_old_certificate_ended_callers_hear_that_they_may_try_again(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """No handle of the new certificate can be had and the old one has ended: nothing is signed,
    nothing is refused for good, and evidence goes over the new connections.
    """
    place.upstream = "unreachable_after_ms = 0"
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        first = agent.connections.current
        adapter.faults.issue = fail.REASON_STORE_UNAVAILABLE
        wake(clock, identity)
        await until(lambda: identity.renewed)
        assert (await sign(stub, handle)).signed.items
        clock.ahead_s += first.remaining_s(clock()) + 1  # the next lives twice as long
        await until(lambda: agent.connections.current is not first and not agent.reach.connected)
        told = await refused(sign(stub, handle))
        assert told.outcome == fail.OUTCOME_UNAVAILABLE
        await until(lambda: not agent.journal.waiting)
        adapter.faults.issue = 0
        await until(lambda: not agent.faults())
        assert (await sign(stub, handle)).signed.items


async def test_revocations_are_heard_after_a_renewal_too(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """Closing the old connections cancels the Watch stream in a way that looks like the end of its
    task. It opens anew.
    """
    async with running(place) as agent:
        await until(lambda: adapter.watchers)
        [before] = adapter.watchers
        await generation(agent, lambda: wake(clock, identity))
        await until(lambda: adapter.watchers and adapter.watchers[0] is not before)
        adapter.grants.clear()
        adapter.tell(revocation_epoch=1, policy_digest=bytes(32), dropped_grants=["tokens"])
        await until(lambda: "no_handles" in agent.faults())


async def test_evidence_under_way_while_connections_change_arrives(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    """A batch hangs at the adapter when its connection is closed. It is sent again, and the one who
    sends lives on.
    """
    hanging, gate = threading.Event(), threading.Event()

    def hang(_: bytes) -> int:
        hanging.set()
        gate.wait(20)
        return 0

    async with running(place) as agent:
        stub = place.stub()
        adapter.faults.audit = hang
        await sign(stub, (await first_handle(stub)).id)
        await until(hanging.is_set)
        await generation(agent, lambda: wake(clock, identity))
        adapter.faults.audit = lambda _: 0
        gate.set()
        await until(
            lambda: any(one.kind == evidence_pb2.AUDIT_KIND_OUTCOME for one in adapter.records)
        )
        await until(
            lambda: any(
                one.kind == evidence_pb2.AUDIT_KIND_IDENTITY_RENEWED for one in adapter.records
            )
        )


async def test_a_question_under_way_while_connections_change_is_answered(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, clock: ShiftedClock
) -> None:
    hanging, gate = threading.Event(), threading.Event()

    def hang_once() -> None:
        if not hanging.is_set():
            hanging.set()
            gate.wait(20)

    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.faults.before_keys = hang_once
        ask = agent_pb2.GetPublicKeysRequest(handle_id=handle, algorithm=alg.ALGORITHM_ED25519)
        asked = stub.GetPublicKeys(ask)
        await until(hanging.is_set)
        await generation(agent, lambda: wake(clock, identity))
        assert len((await asked).keys) == 1
        gate.set()


async def test_an_authority_rolls_while_the_agent_is_connected(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity
) -> None:
    """Published, told on the stream, trusted; then adapters show certificates of the new one, and
    the agent connects to them.
    """
    async with running(place) as agent:
        stub = place.stub()
        handle = (await first_handle(stub)).id
        await until(lambda: adapter.watchers)
        identity.roll()
        told = {
            "revocation_epoch": 1,
            "policy_digest": bytes(32),
            "trust_bundle_sequence": identity.sequence,
        }
        await generation(agent, lambda: adapter.tell(**told))
        assert (await sign(stub, handle)).signed.items
        identity.active = identity.authorities[-1]
        adapter.stop()
        adapter.start()
        await until(lambda: not agent.faults())
        assert (await sign(stub, handle)).signed.items
    assert (len(identity.enrolled), len(identity.renewed), identity.bundles_asked) == (1, 0, 1)


async def test_a_restart_in_an_old_pod_finds_the_adapter_again(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity
) -> None:
    identity.roll()
    async with running(place):
        pass
    identity.retire()
    adapter.stop()
    adapter.start()
    async with running(place):
        stub = place.stub()
        assert (await sign(stub, (await first_handle(stub)).id)).signed.items


async def test_the_certificate_in_use_is_measured(place: Home, adapter: FakeAdapter) -> None:
    async with running(place) as agent:
        [(_, left)] = agent.metrics.gauge_values("capsign.certificate.remaining")
        assert 3000 < left <= 3600


@pytest.fixture
async def spire(place: Home) -> AsyncIterator[FakeWorkloadApi]:
    api = FakeWorkloadApi(place.root / "w.sock").start()
    place.identity = (
        f'[identity]\nsource = "workload-api"\n[identity.workload_api]\nsocket = "{api.path}"\n'
    )
    yield api
    await asyncio.to_thread(api.stop)


async def test_the_workload_api_is_waited_for_and_followed(
    place: Home, adapter: FakeAdapter, identity: FakeIdentity, spire: FakeWorkloadApi
) -> None:
    spire.stop()
    async with running(place, ready=False) as agent:
        await until(lambda: "WORKLOAD_API_UNREACHABLE" in agent.faults())
        spire.refuse = grpc.StatusCode.PERMISSION_DENIED
        spire.start()
        await until(lambda: "WORKLOAD_API_REFUSED" in agent.faults())
        spire.refuse = None
        spire.push(svid(identity.active))
        await until(lambda: not agent.faults())
        stub = place.stub()
        handle = (await first_handle(stub)).id
        assert (await sign(stub, handle)).signed.items
        await generation(agent, lambda: spire.push(svid(identity.active)))
        assert (await sign(stub, handle)).signed.items
    assert set(spire.headers) == {"true"}
    assert identity.enrolled == []
