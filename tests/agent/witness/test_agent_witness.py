"""An agent at adapters that show it another log: it leaves them, says so, keeps the proof, and goes
on with the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc.aio
import pytest
from capsign_agent.agent import Agent
from capsign_agent.journal.journal import Journal
from capsign_agent.upstream.connection_generation import Replica
from capsign_agent.witness.memory import WitnessMemory
from capsign_agent.witness.told_leaves import ToldLeaves
from capsign_agent.witness.witness import Witness
from capsign_evidence.split_view import Fault, Finding, SplitView, judge
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_calls import one, reason
from support.agent_home import Home, first_handle, home, running, until
from support.agent_pki import TestCa
from support.fake_adapter import FakeAdapter
from support.fake_log import FakeLog


@pytest.fixture
def log() -> FakeLog:
    return FakeLog(leaves=5)


@pytest.fixture
def other(ca: TestCa, adapter: FakeAdapter, log: FakeLog) -> Iterator[FakeAdapter]:
    """A second replica of the first's log and store."""
    fake = FakeAdapter(ca)
    fake.mint, fake.log, adapter.log = adapter.mint, log, log
    fake.boots, fake.lock = adapter.boots, adapter.lock
    yield fake.start()
    fake.stop()


@pytest.fixture
def place(ca: TestCa, adapter: FakeAdapter, other: FakeAdapter) -> Iterator[Home]:
    with home(ca, adapter.port, other.port) as both:
        both.extra = "[limits]\ndrain_ms = 500\n[log]\nlook_every_s = 3600"
        yield both


def kept(place: Home) -> list[SplitView]:
    paths = (place.journal / "witness").glob("split-view-*.json")
    return [SplitView.parse(path.read_bytes()) for path in paths]


async def seen(agent: Agent, log: FakeLog) -> None:
    """The agent has seen the log as it is, through both."""
    await until(lambda: agent.reach.connected == 4)
    await agent.witness.look()
    assert agent.witness.size == len(log.leaves)


async def signs(place: Home, agent: Agent) -> None:
    await until(lambda: not agent.faults())
    stub = place.stub()
    answer = await one(stub, (await first_handle(stub)).id)
    assert isinstance(answer, agent_pb2.SignResponse)


def reported(*adapters: FakeAdapter) -> list[evidence_pb2.AuditRecord]:
    kind = evidence_pb2.AUDIT_KIND_SPLIT_VIEW
    return [one for adapter in adapters for one in adapter.handed if one.kind == kind]


async def test_a_log_that_grows_is_followed_by_proofs_from_what_was_seen(
    place: Home, log: FakeLog
) -> None:
    async with running(place) as agent:
        await seen(agent, log)
        log.asked.clear()
        log.grow(8)
        await agent.witness.look()
        assert agent.witness.size == 13
        # its own first look may fall into this one
        assert set(log.asked) == {(5, 3_600_000), (13, 3_600_000)}
        assert not agent.witness.left


async def test_an_older_adapter_proves_when_it_is_asked_apart(place: Home, log: FakeLog) -> None:
    log.proves = False
    async with running(place) as agent:
        await seen(agent, log)
        log.grow(8)
        await agent.witness.look()
        assert agent.witness.size == 13


async def test_a_checkpoint_that_a_replica_kept_may_be_older(
    place: Home, other: FakeAdapter, log: FakeLog
) -> None:
    async with running(place) as agent:
        await seen(agent, log)
        other.log = log.fork(0)
        other.log.shows = 2
        await agent.witness.look()
        assert not agent.witness.left


ATTACKS: dict[str, tuple[Callable[[FakeLog], FakeLog], Fault]] = {
    "fork": (lambda log: _forked_before(log), Fault.INCONSISTENT),
    "same size": (lambda log: _forked_before(log, more=0), Fault.FORKED),
    "shrunk": (lambda log: _cut(log), Fault.SHRUNK),
    "forged": (lambda log: log.forged(), Fault.SIGNATURE),
    "another log": (lambda _: FakeLog("else.test", 9), Fault.OTHER_LOG),
}


def _forked_before(log: FakeLog, more: int = 4) -> FakeLog:
    """A fork from before what was seen: one leaf is missing, others are there."""
    other = log.fork(0)
    del other.leaves[-2:]
    return other.grow(2 + more, b"instead ")


def _cut(log: FakeLog) -> FakeLog:
    other = log.fork(0)
    del other.leaves[2:]
    return other


async def test_two_looks_at_once_tell_of_one_split_view(
    place: Home, adapter: FakeAdapter, other: FakeAdapter, log: FakeLog
) -> None:
    async with running(place) as agent:
        await seen(agent, log)
        other.log = _cut(log)
        await asyncio.gather(agent.witness.look(), agent.witness.look())
        assert agent.witness.left == {f"127.0.0.1:{other.port}"}
        await until(lambda: agent.reach.connected == 2)
    assert len(reported(adapter)) == 1


async def test_an_adapter_whose_log_stands_still_is_left(
    place: Home, adapter: FakeAdapter, other: FakeAdapter, log: FakeLog
) -> None:
    """Each checkpoint is good and extends the one before; what it lacks is what the same adapter
    says that it has signed.
    """
    place.hurry(covered_after_s=lambda _: 0.0)
    async with running(place) as agent:
        await seen(agent, log)
        while max(adapter.signed, other.signed) < 7:  # in leaf 6, of a log that shows 5
            await signs(place, agent)
        honest, frozen = sorted((adapter, other), key=lambda one: one.signed)
        honest.log = log.fork(0).grow(200)
        frozen.log = honest.log.fork(0)
        frozen.log.shows = 5
        await agent.witness.look()
        assert agent.witness.left == {f"127.0.0.1:{frozen.port}"}
        assert agent.faults() == []
        await until(lambda: agent.reach.connected == 2)
    [split] = kept(place)
    assert (split.fault, split.told) == (Fault.WITHHELD, 7)
    [told] = reported(honest)
    assert (told.log_fault, told.leaf_index_plus_one) == (evidence_pb2.LOG_FAULT_WITHHELD, 7)
    assert judge(split, log.key) is Finding.UNDECIDED
    tree = honest.log.tree
    assert judge(split, log.key, lambda size: tree(size).root()) is Finding.WITHHELD


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_adapter_with_another_log_is_left_for_good_and_told_of(
    place: Home,
    adapter: FakeAdapter,
    other: FakeAdapter,
    log: FakeLog,
    attack: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, fault = ATTACKS[attack]
    address = f"127.0.0.1:{other.port}"
    async with running(place) as agent:
        await seen(agent, log)
        other.log = change(log)
        await agent.witness.look()
        assert agent.witness.left == {address}
        assert agent.faults() == []  # the other one is there
        signed = other.signed
        for _ in range(4):
            await signs(place, agent)
        assert other.signed == signed
        assert '"log.split_view"' in capsys.readouterr().err
        await until(lambda: agent.reach.connected == 2)
    [split] = kept(place)
    assert (split.adapter, split.fault) == (address, fault)
    assert split.log_key == log.key.text()
    [told] = reported(adapter)
    assert told.log_fault == fault
    assert (told.seen_size, told.seen_root) == (5, log.tree(5).root())
    assert not reported(other)
    signed = other.signed
    async with running(place) as agent:  # a restart changes nothing
        await signs(place, agent)
        assert agent.witness.left == {address}
    assert other.signed == signed


async def test_the_proof_that_is_kept_convinces_others(
    place: Home, other: FakeAdapter, log: FakeLog
) -> None:
    async with running(place) as agent:
        await seen(agent, log)
        other.log = _forked_before(log)
        await agent.witness.look()
    [split] = kept(place)
    assert judge(split, log.key) is Finding.UNDECIDED
    assert judge(split, log.key, lambda size: log.tree(size).root() if size <= 5 else None) is (
        Finding.UNDECIDED
    )
    log.grow(20)
    assert judge(split, log.key, lambda size: log.tree(size).root()) is Finding.NOT_IN_LOG


async def test_an_application_may_ask_its_socket_what_its_agent_has_seen(
    place: Home, adapter: FakeAdapter, other: FakeAdapter, log: FakeLog
) -> None:
    """It signs on with the other adapter, so its health is good: whoever wants to know asks."""
    async with running(place) as agent:
        await seen(agent, log)
        stub = place.stub()
        before = await stub.GetStatus(agent_pb2.GetStatusRequest())
        assert (list(before.faults), before.split_views, before.log_size) == ([], 0, 5)
        other.log = _forked_before(log)
        await agent.witness.look()
        assert (await stub.GetStatus(agent_pb2.GetStatusRequest())).split_views == 1
        adapter.log = other.log
        await agent.witness.look()
        after = await stub.GetStatus(agent_pb2.GetStatusRequest())
        assert "split_view" in after.faults
        assert after.split_views == 2


async def test_if_none_is_left_nothing_is_signed_and_it_says_why(
    place: Home, adapter: FakeAdapter, other: FakeAdapter, log: FakeLog
) -> None:
    async with running(place) as agent:
        await seen(agent, log)
        stub = place.stub()
        handle = (await first_handle(stub)).id
        adapter.log = other.log = _forked_before(log)
        await agent.witness.look()
        before = adapter.signed + other.signed
        assert reason(await one(stub, handle)) == fail.REASON_LOG_SPLIT_VIEW
        assert "split_view" in agent.faults()
        assert adapter.signed + other.signed == before
    async with running(place, ready=False) as agent:
        await until(lambda: "split_view" in agent.faults())
        assert agent.reach.connected == 0


async def test_a_new_certificate_does_not_bring_back_who_was_left(
    place: Home, adapter: FakeAdapter, other: FakeAdapter, log: FakeLog
) -> None:
    place.hurry(look_at_files_s=0.05)
    async with running(place) as agent:
        await seen(agent, log)
        other.log = _forked_before(log)
        await agent.witness.look()
        streams, issued = other.streams, adapter.issued
        place.ca.write(place.root / "tls")
        await until(lambda: adapter.issued > issued)
        await signs(place, agent)
        assert other.streams == streams
        assert agent.reach.connected <= 4


async def test_a_key_in_the_settings_is_demanded_from_the_first_look(
    place: Home, adapter: FakeAdapter, log: FakeLog
) -> None:
    place.extra += f'\nkey = "{log.key.text()}"'
    adapter.log = FakeLog(leaves=9)
    async with running(place) as agent:
        await until(lambda: agent.reach.connected == 4)
        await agent.witness.look()
        assert agent.witness.left == {f"127.0.0.1:{adapter.port}"}


async def test_an_adapter_that_does_not_show_its_log_is_asked_again(
    place: Home, other: FakeAdapter, log: FakeLog
) -> None:
    other.log = None
    async with running(place) as agent:
        await seen(agent, log)
        assert not agent.witness.left
        other.log = log.grow()
        await agent.witness.look()
        assert agent.witness.size == 6


async def test_a_connection_that_was_closed_before_the_look_is_no_end(tmp_path: Path) -> None:
    """gRPC raises UsageError for a call on a closed channel, which a change of certificate leaves
    behind.
    """

    def closed(*_: object, **__: object) -> None:
        raise grpc.aio.UsageError("Channel is closed.")

    ask = SimpleNamespace(evidence=SimpleNamespace(GetCheckpoint=closed))
    replica = SimpleNamespace(address="a:1", connections=[SimpleNamespace(ready=True, ask=ask)])
    journal = cast(Journal, None)
    witness = Witness(
        WitnessMemory(tmp_path),
        lambda: [cast(Replica, replica)],
        lambda _: None,
        journal,
        60,
        ToldLeaves(60),
    )
    await witness.look()
    assert not witness.left
