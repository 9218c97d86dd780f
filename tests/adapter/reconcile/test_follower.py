"""The follower on a real store: it takes up where another left off, and tells each thing once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from capsign_adapter.reconcile.follower import LEASE_MS, RENEW_MS, SAVE_MS, STEP, Follower
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_evidence.incident_leaf import IncidentKind, IncidentLeaf, IncidentState
from capsign_evidence.leaf_reader import decode
from capsign_evidence.reconcile.incidents import Incident
from capsign_evidence.reconcile.timing import Timing
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from support.stored_log import StoredLog
from support.two_streams import MINUTE, POLICY, Agent

TIMING = Timing()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    create_sqlite(tmp_path / "state" / "store.db")
    opened = SqliteStore(tmp_path / "state" / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def log(store: SqliteStore) -> StoredLog:
    return StoredLog(store)


def follower(log: StoredLog, name: bytes = b"a") -> Follower:
    return Follower(log.store, TIMING, name * 16, lambda: POLICY, lambda: log.now_ms)


def incidents(store: SqliteStore) -> list[tuple[str, IncidentKind]]:
    """What the log says of them."""
    decoded = [decode(entry) for entry in store.entries(0, 10_000)]
    return [(one.state.name, one.incident) for one in decoded if isinstance(one, IncidentLeaf)]


def test_what_is_missing_is_found_and_ends_with_an_entry_each(log: StoredLog) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    log.sign(agent.workload, agent.key, log.intent())
    agent.sign()
    one = follower(log)
    assert not one.step()
    assert one.standing == ()
    agent.deliver()
    log.now_ms += TIMING.report_ms
    one.step()
    standing: tuple[Incident, ...] = one.standing
    assert [incident.kind for incident in standing] == [IncidentKind.SIGNED_NOT_REPORTED]
    [row] = log.store.incidents()
    told = decode(log.store.entries(row.leaf_index, 1)[0])
    assert isinstance(told, IncidentLeaf)
    assert (told.state, told.incident) == (IncidentState.FOUND, IncidentKind.SIGNED_NOT_REPORTED)
    assert told.digest == agent.key


def test_another_replica_goes_on_where_the_first_ended_and_says_nothing_twice(
    log: StoredLog,
) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    first, second = follower(log), follower(log, b"b")
    log.now_ms += TIMING.report_ms
    first.step()
    assert incidents(log.store) == [("FOUND", IncidentKind.LATE)]
    second.step()
    assert not second.leads
    assert [one.kind for one in second.standing] == [IncidentKind.LATE]
    log.now_ms += LEASE_MS + RENEW_MS
    second.step()
    assert second.leads
    agent.deliver()
    second.step()
    assert incidents(log.store) == [("FOUND", IncidentKind.LATE), ("ENDED", IncidentKind.LATE)]
    assert log.store.incidents() == []


def test_who_was_overtaken_forgets_and_reads_again(log: StoredLog) -> None:
    first, second = follower(log), follower(log, b"b")
    Agent(log, 1).deliver()
    first.step()
    log.now_ms += LEASE_MS
    second.step()
    log.now_ms += SAVE_MS
    Agent(log, 2).deliver()
    second.step()
    assert log.store.reconciliation().position == 2
    Agent(log, 3).deliver()
    first.step()
    assert not first.leads


def test_a_long_log_is_read_in_steps(log: StoredLog) -> None:
    agent = Agent(log, 1)
    for _ in range(STEP):
        agent.sign()
    agent.deliver()
    one = follower(log)
    assert one.step()
    assert not one.step()
    assert one.position == STEP + 1
    log.now_ms += MINUTE
    one.step()
    assert log.store.reconciliation().position == STEP + 1


def test_a_clock_that_is_put_back_keeps_nobody_from_following(log: StoredLog) -> None:
    one = follower(log)
    log.now_ms += 3_600_000
    one.step()
    log.now_ms -= 3_600_000
    Agent(log, 1).deliver()
    assert not one.step()
    assert one.leads
    assert log.store.reconciliation().position == one.position == 1


def test_a_record_of_an_older_log_that_names_more_than_a_store_holds(log: StoredLog) -> None:
    agent = Agent(log, 1)
    log.now_ms += 1
    agent.write(
        pb.AuditRecord(
            kind=pb.AUDIT_KIND_RECOVERED, other_boot=b"o" * 16, other_sequence=(1 << 64) - 1
        )
    )
    agent.deliver()
    one = follower(log)
    one.step()
    for _ in range(3):
        log.now_ms += TIMING.silence_ms // 2
        one.step()
    [gap] = [row.incident for row in log.store.incidents() if row.incident.kind is IncidentKind.GAP]
    assert gap.last == (1 << 53) - 1


class FailingStore:
    """Reads of batches fail while `fails`."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.fails = store, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def audit_batches(self, *asked: Any) -> Any:
        if self.fails:
            raise StoreUnavailableError("away")
        return self.store.audit_batches(*asked)


def test_a_store_that_fails_leaves_no_half_read_step(log: StoredLog) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.deliver()
    failing = FailingStore(log.store)
    one = Follower(failing, TIMING, b"a" * 16, lambda: POLICY, lambda: log.now_ms)
    with pytest.raises(StoreUnavailableError):
        one.step()
    failing.fails = False
    log.now_ms += RENEW_MS
    one.step()
    assert one.position == 2
    assert one.standing == ()
