"""Delivery of the journal: in order, the same bytes each time, nothing skipped, nothing deleted
unaccepted.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.reporter import ASIDE_S, GATHERED_S, ROUTINE_S, Reporter
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_home import until
from support.journals import kill


class Adapter:
    """Takes batches; `faults` are reasons for the calls to come, 0 takes the batch, -1 takes it and
    loses the answer.
    """

    def __init__(self, *faults: int) -> None:
        self.faults = list(faults)
        self.seen: list[bytes] = []
        self.taken: list[bytes] = []

    async def submit(
        self, request: evidence_pb2.SubmitAuditRequest
    ) -> evidence_pb2.SubmitAuditResponse:
        self.seen.append(request.batch)
        fault = self.faults.pop(0) if self.faults else 0
        if fault > 0:
            raise FailureError(fault)
        if request.batch not in self.taken:
            self.taken.append(request.batch)
        if fault < 0:
            raise FailureError(fail.REASON_UPSTREAM_UNREACHABLE)
        batch = evidence_pb2.AuditBatch.FromString(request.batch)
        return evidence_pb2.SubmitAuditResponse(accepted_through=batch.records[-1].sequence)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def journal(directory: Path, boot: int, segments: int) -> Journal:
    one = Journal(directory, 1 << 20, bytes([boot]) * 16, 1_700_000_000_000 + boot)
    for _ in range(segments):
        one.append(records.handles(1))
        one.seal()
    return one


def reporter(one: Journal, adapter: Adapter, clock: Clock | None = None) -> Reporter:
    return Reporter(one, adapter, Metrics(), 0.001, clock or Clock())


def numbers(batches: list[bytes]) -> list[tuple[int, int]]:
    parsed = [evidence_pb2.AuditBatch.FromString(batch) for batch in batches]
    return [(batch.boot_id[0], batch.records[0].sequence) for batch in parsed]


async def test_delivers_in_order_and_deletes_what_was_taken(tmp_path: Path) -> None:
    one, adapter = journal(tmp_path, 1, 3), Adapter()
    assert await reporter(one, adapter).deliver()
    assert numbers(adapter.taken) == [(1, 1), (1, 2), (1, 3)]
    assert one.sealed() == []


@pytest.mark.parametrize(
    "fault",
    [fail.REASON_UPSTREAM_UNREACHABLE, fail.REASON_STORE_UNAVAILABLE, fail.REASON_RATE_LIMITED, -1],
)
async def test_what_failed_is_sent_again_with_the_same_bytes(tmp_path: Path, fault: int) -> None:
    """Failed, and failed although it happened: the second delivery is byte for byte the first."""
    one, adapter = journal(tmp_path, 1, 2), Adapter(fault)
    reports = reporter(one, adapter)
    assert not await reports.deliver()
    assert len(one.sealed()) == 2
    one.append(records.handles(2))
    assert await reports.deliver()
    assert adapter.seen[0] == adapter.seen[1]
    assert numbers(adapter.taken) == [(1, 1), (1, 2)]


async def test_a_life_that_is_refused_is_set_aside_whole_and_others_go_on(tmp_path: Path) -> None:
    first = journal(tmp_path, 1, 2)
    kill(first, tmp_path)
    one, adapter, clock = journal(tmp_path, 2, 2), Adapter(fail.REASON_AUDIT_OUT_OF_ORDER), Clock()
    reports = reporter(one, adapter, clock)
    assert await reports.deliver()
    assert numbers(adapter.seen) == [(1, 1), (2, 1), (2, 2)]
    assert [segment.last_sequence for segment in one.sealed()] == [1, 2]
    assert await reports.deliver()
    assert len(adapter.seen) == 3
    clock.now = ASIDE_S + 1
    assert await reports.deliver()
    assert numbers(adapter.seen[3:]) == [(1, 1), (1, 2)]
    assert one.sealed() == []


async def test_an_answer_that_took_less_than_was_sent_deletes_nothing(tmp_path: Path) -> None:
    class Short(Adapter):
        async def submit(
            self, request: evidence_pb2.SubmitAuditRequest
        ) -> evidence_pb2.SubmitAuditResponse:
            return evidence_pb2.SubmitAuditResponse(accepted_through=0)

    one = journal(tmp_path, 1, 1)
    await reporter(one, Short()).deliver()
    assert len(one.sealed()) == 1


async def test_a_damaged_segment_is_kept_and_not_sent(tmp_path: Path) -> None:
    one, adapter = journal(tmp_path, 1, 2), Adapter()
    path = one.sealed()[0].path
    path.write_bytes(path.read_bytes()[:-1])
    await reporter(one, adapter).deliver()
    assert adapter.seen == []
    assert path.exists()
    assert len(one.sealed()) == 2


class Loaded(Adapter):
    """Takes its time."""

    def __init__(self, clock: Clock, took_s: float) -> None:
        super().__init__()
        self._clock, self._took_s = clock, took_s

    async def submit(
        self, request: evidence_pb2.SubmitAuditRequest
    ) -> evidence_pb2.SubmitAuditResponse:
        self._clock.now += self._took_s
        return await super().submit(request)


class Looks(Journal):
    """Counts how often a reporter has looked at it."""

    looks = 0

    def look_again(self) -> None:
        self.looks += 1
        super().look_again()


@pytest.mark.parametrize(("took_s", "gathered_s"), [(0.1, 2.0), (10.0, GATHERED_S)])
async def test_where_an_adapter_takes_long_the_next_report_gathers_longer(
    tmp_path: Path, took_s: float, gathered_s: float
) -> None:
    one = Looks(tmp_path, 1 << 20, b"b" * 16, 1_700_000_000_000)
    clock = Clock()
    adapter = Loaded(clock, took_s)
    task = asyncio.ensure_future(reporter(one, adapter, clock).run())
    try:
        one.append(records.handles(1))
        await until(lambda: len(adapter.taken) == 1, task)
        one.append(records.handles(2))
        clock.now = took_s + gathered_s - 0.01
        seen = one.looks
        await until(lambda: one.looks > seen + 2, task)
        assert len(adapter.taken) == 1
        clock.now = took_s + gathered_s
        await until(lambda: len(adapter.taken) == 2, task)
        one.append(records.handles(3))
        one.seal()  # as one that is full: it does not wait
        await until(lambda: len(adapter.taken) == 3, task)
    finally:
        task.cancel()


async def test_a_flush_goes_on_until_nothing_is_left(tmp_path: Path) -> None:
    one, adapter = journal(tmp_path, 1, 2), Adapter(*[fail.REASON_UPSTREAM_UNREACHABLE] * 2)
    one.append(records.closed())
    assert await reporter(one, adapter).flush()
    assert not one.waiting
    assert numbers(adapter.taken) == [(1, 1), (1, 2), (1, 3)]


async def test_it_runs_by_itself(tmp_path: Path) -> None:
    one, adapter = journal(tmp_path, 1, 0), Adapter()
    task = asyncio.create_task(reporter(one, adapter).run())
    one.append(records.handles(1))
    await until(lambda: not one.waiting)
    task.cancel()
    assert numbers(adapter.taken) == [(1, 1)]


@pytest.mark.parametrize("before", [0, 1])
async def test_a_disk_that_has_room_again_is_noticed_without_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """One write failed. Health said that the journal is full, so no call came, and only a call
    would have tried again.
    """
    one, adapter = journal(tmp_path, 1, 0), Adapter()
    for _ in range(before):
        one.append(records.handles(1))

    def fail_write(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail_write)
        with pytest.raises(FailureError, match="JOURNAL_FULL"):
            one.append(records.handles(2))
        task = asyncio.create_task(reporter(one, adapter).run())
        await asyncio.sleep(0.05)
        assert one.full
    await until(lambda: not one.full, seconds=5)
    one.append(records.handles(3))
    await until(lambda: not one.waiting)
    task.cancel()
    taken = [
        record.handles
        for batch in adapter.taken
        for record in evidence_pb2.AuditBatch.FromString(batch).records
    ]
    assert taken == [1, 3][1 - before :]
    one.close()


async def test_renewals_that_change_nothing_gather_and_go_with_what_is_more(tmp_path: Path) -> None:
    """An idle agent with one handle of ten seconds wrote 720 batches an hour, each a leaf of the
    log for ever.
    """
    one, adapter, clock = (
        Journal(tmp_path, 1 << 20, bytes(16), 1_700_000_000_000),
        Adapter(),
        Clock(),
    )
    run = asyncio.create_task(reporter(one, adapter, clock).run())
    one.append(records.handles(3))
    await until(lambda: len(adapter.taken) == 1)
    for _ in range(5):
        one.append(records.handles(3), routine=True)
    clock.now = ROUTINE_S - 1
    await asyncio.sleep(0.05)
    assert len(adapter.taken) == 1
    assert one.unsealed == 5
    clock.now = ROUTINE_S
    await until(lambda: len(adapter.taken) == 2)
    one.append(records.handles(3), routine=True)
    one.append(records.handles(2))
    await until(lambda: len(adapter.taken) == 3)
    run.cancel()
    kept = [evidence_pb2.AuditBatch.FromString(batch).records for batch in adapter.taken]
    assert [len(one) for one in kept] == [
        1,
        6,  # and that the agent lives
        2,
    ]  # none is left out, and none is counted for another
    assert [record.sequence for batch in kept for record in batch] == list(range(1, 10))
    alive = kept[1][5]
    assert alive.kind == evidence_pb2.AUDIT_KIND_ALIVE
    assert alive.leaf_index_plus_one > 0


async def test_what_has_gathered_goes_with_the_end_of_a_life(tmp_path: Path) -> None:
    one, adapter = Journal(tmp_path, 1 << 20, bytes(16), 1_700_000_000_000), Adapter()
    one.append(records.handles(3), routine=True)
    one.append(records.closed())
    assert await reporter(one, adapter).flush()
    assert [len(evidence_pb2.AuditBatch.FromString(batch).records) for batch in adapter.taken] == [
        2
    ]
