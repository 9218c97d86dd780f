"""Batches that share a transaction: one commit for all who waited, and nobody pays for a
neighbour.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from capsign_adapter.model.intents import Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.store import audit as audit_tables
from capsign_adapter.store import log
from capsign_adapter.store.errors import (
    AuditOutOfOrderError,
    EpochMovedError,
    StoreUnavailableError,
)
from capsign_adapter.store.group_commit import MAX_DRAFTS, Batch, Errand, GroupCommit
from capsign_evidence.merkle import leaf_hash
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2
from support.drafts import APP, NOW, audit, check_log, draft


def batch_of(store, *drafts, epoch: int = 1) -> Batch:
    workloads = {item.workload: store.workload_id(item.workload) for item in drafts}
    return Batch(epoch, drafts, [leaf_hash(item.leaf) for item in drafts], workloads, NOW)


class SlowCommit:
    """Settles groups, one at a time, each when it is let go; remembers them."""

    def __init__(self) -> None:
        self.groups: list[list[Batch]] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, group: list[Batch]) -> None:
        self.groups.append(group)
        self.entered.release()
        assert self.go.acquire(timeout=30)
        if self.error:
            raise self.error
        for batch in group:
            batch.results = []


def submit_in_threads(
    group_commit: GroupCommit, batches: list[Batch], outcomes: list
) -> list[threading.Thread]:
    """One thread for each batch; returns when all of them wait in the queue."""

    def submit(batch: Batch) -> None:
        try:
            outcomes.append(group_commit.submit(batch))
        except StoreUnavailableError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=submit, args=(batch,), daemon=True) for batch in batches]
    for thread in threads:
        thread.start()
    return threads


def first(part: Batch) -> Any:
    """The first result of a part of a commit that went well."""
    assert part.results is not None, part.error
    return part.results[0]


def queued(group_commit: GroupCommit, count: int) -> None:
    pause = threading.Event()
    while group_commit.queued < count:
        pause.wait(0.001)


def plain(size: int = 1) -> Batch:
    return Batch(1, [draft() for _ in range(size)], [], {}, NOW)


def test_those_who_come_during_a_commit_share_the_next_one():
    outcomes: list[Any]
    commit, outcomes = SlowCommit(), []
    group_commit = GroupCommit(commit)
    first = submit_in_threads(group_commit, [plain()], outcomes)
    assert commit.entered.acquire(timeout=30)
    rest = submit_in_threads(group_commit, [plain() for _ in range(9)], outcomes)
    queued(group_commit, 9)
    commit.go.release(2)
    for thread in first + rest:
        thread.join(30)
    assert [len(group) for group in commit.groups] == [1, 9]
    assert outcomes == [[]] * 10
    # And then nobody is in the way of a single caller.
    commit.go.release()
    assert group_commit.submit(plain()) == []


def test_a_commit_that_hangs_keeps_nobody_who_came_after_it():
    """The disk stood still, and every stream of the replica waited behind it with its thread, for
    ever.
    """
    late: list[Any]
    outcomes: list[Any]
    commit, outcomes, late = SlowCommit(), [], []
    group_commit = GroupCommit(commit, queued_s=0.05)
    first = submit_in_threads(group_commit, [plain()], outcomes)
    assert commit.entered.acquire(timeout=30)
    for thread in submit_in_threads(group_commit, [plain() for _ in range(9)], late):
        thread.join(30)
    assert [type(each) for each in late] == [StoreUnavailableError] * 9
    commit.go.release(2)
    first[0].join(30)
    assert outcomes == [[]]
    assert group_commit.submit(plain()) == []
    assert [len(group) for group in commit.groups] == [1, 1], "what was given up is not committed"


def test_a_group_is_bounded():
    outcomes: list[Any]
    commit, outcomes = SlowCommit(), []
    group_commit = GroupCommit(commit)
    threads = submit_in_threads(group_commit, [plain(MAX_DRAFTS + 1)], outcomes)
    assert commit.entered.acquire(timeout=30)
    threads += submit_in_threads(group_commit, [plain(MAX_DRAFTS // 2) for _ in range(5)], outcomes)
    queued(group_commit, 5)
    commit.go.release(10)
    for thread in threads:
        thread.join(30)
    assert [len(group) for group in commit.groups] == [1, 2, 2, 1]
    assert outcomes == [[]] * 6


def test_a_failed_commit_fails_everyone_in_it_and_nobody_after_it():
    outcomes: list[Any]
    commit, outcomes = SlowCommit(), []
    group_commit = GroupCommit(commit)
    commit.error = StoreUnavailableError("disk")
    threads = submit_in_threads(group_commit, [plain()], outcomes)
    assert commit.entered.acquire(timeout=30)
    threads += submit_in_threads(group_commit, [plain() for _ in range(3)], outcomes)
    queued(group_commit, 3)
    commit.go.release(2)
    for thread in threads:
        thread.join(30)
    assert [str(outcome) for outcome in outcomes] == ["disk"] * 4
    commit.error = None
    commit.go.release()
    assert group_commit.submit(plain()) == []


def test_batches_in_one_transaction_make_one_segment(store):
    group = [batch_of(store, *[draft() for _ in range(size)]) for size in (1, 3, 2)]
    store.commit_group(group)
    assert [[answer.leaf_index for answer in batch.results] for batch in group] == [
        [0],
        [1, 2, 3],
        [4, 5],
    ]
    assert check_log(store) == [item.leaf for batch in group for item in batch.drafts]
    assert store.read(lambda tx: tx.one("SELECT COUNT(*) FROM log_segments"))[0] == 1


def test_a_batch_under_an_old_epoch_does_not_stop_its_neighbours(store):
    epoch, _ = store.revoke(1, "handle", lambda _: b"revocation", NOW)
    stale, good = batch_of(store, draft(), epoch=epoch - 1), batch_of(store, draft(), epoch=epoch)
    store.commit_group([stale, good])
    assert isinstance(stale.error, EpochMovedError)
    assert stale.results is None
    assert [answer.verdict for answer in good.results] == [Verdict.NEW]
    assert store.find(APP, [stale.drafts[0].intent_id]) == {}
    assert len(check_log(store)) == 2


def test_the_same_intent_from_two_callers_in_one_transaction(store):
    item = draft()
    other = draft(item.intent_id, fingerprint=b"other")
    group = [batch_of(store, item), batch_of(store, item), batch_of(store, other)]
    store.commit_group(group)
    assert [first(batch).verdict for batch in group] == [
        Verdict.NEW,
        Verdict.REPLAY,
        Verdict.REFUSED,
    ]
    assert first(group[1]).stored.result == item.result
    assert first(group[2]).reason == failures_pb2.REASON_INTENT_CONFLICT
    check_log(store)


def test_a_defect_in_one_batch_is_not_its_neighbours_fault(store):
    def broken(reason):
        raise ZeroDivisionError

    item = draft()
    store.commit(1, [item], NOW)
    bad = batch_of(store, draft(item.intent_id, fingerprint=b"other", refusal_leaf=broken))
    too_long = batch_of(store, draft(leaf=b"x" * 70_000))
    good = [batch_of(store, draft()) for _ in range(2)]
    store.commit_group([good[0], bad, too_long, good[1]])
    assert isinstance(bad.error, ZeroDivisionError)
    assert isinstance(too_long.error, ValueError)
    assert [first(batch).verdict for batch in good] == [Verdict.NEW, Verdict.NEW]
    assert len(check_log(store)) == 3
    with pytest.raises(ZeroDivisionError):
        store.commit(1, bad.drafts, NOW)


def in_line(
    group_commit: GroupCommit, commit: SlowCommit, waiting: list[Batch], outcomes: list
) -> list[threading.Thread]:
    """A commit under way, and those that wait for the next one, in this order."""
    threads = submit_in_threads(group_commit, [plain()], outcomes)
    assert commit.entered.acquire(timeout=30)
    for number, batch in enumerate(waiting, 1):
        threads += submit_in_threads(group_commit, [batch], outcomes)
        queued(group_commit, number)
    return threads


def test_what_is_small_does_not_wait_behind_what_is_large():
    """Batches of 1,024 signatures by one workload left others nothing: each small commit waited
    behind two thousand drafts.
    """
    outcomes: list[Any]
    commit, outcomes = SlowCommit(), []
    group_commit = GroupCommit(commit, overtaken_s=60.0)
    threads = in_line(
        group_commit, commit, [plain(1024), plain(512), plain(4), plain(512), plain(2)], outcomes
    )
    commit.go.release(9)
    for thread in threads:
        thread.join(30)
    assert [[len(batch.drafts) for batch in group] for group in commit.groups[:2]] == [[1], [4, 2]]
    assert outcomes == [[]] * 6


def test_what_is_large_is_not_overtaken_for_ever():
    outcomes: list[Any]
    commit, outcomes = SlowCommit(), []
    group_commit = GroupCommit(commit, overtaken_s=0.0)
    threads = in_line(group_commit, commit, [plain(1024), plain(4), plain(2)], outcomes)
    commit.go.release(9)
    for thread in threads:
        thread.join(30)
    assert [len(batch.drafts) for batch in commit.groups[1]] == [1024, 4, 2]


class HeldCommits:
    """Between a store and its group commit: the first transaction waits until it is let go."""

    def __init__(self, store) -> None:
        self._real = store.commit_group
        self.begun = 0
        self.first = threading.Event()
        self.go = threading.Event()
        store.group_commit = GroupCommit(self)

    def __call__(self, group):
        self.begun += 1
        self.first.set()
        assert self.go.wait(30)
        self._real(group)


def test_all_that_workloads_write_shares_a_commit(store):
    """`ResolveIntent` in a loop had a transaction and an fsync for each call, and whoever signed
    waited for all of them.
    """
    drafts = [draft() for _ in range(2)]
    store.commit(1, [drafts[0]], NOW)  # its workload has a number from now on
    report = audit()
    held, outcomes = HeldCommits(store), []
    writes = [
        lambda: store.commit(1, [drafts[1]], NOW),
        lambda: store.resolve(APP, drafts[0].intent_id, "orders", b"never", NOW),
        *[lambda: store.resolve(APP, new_intent_id(NOW), "orders", b"never", NOW)] * 4,
        lambda: store.submit_audit(report, NOW),
        lambda: store.append([b"refused"], NOW),
    ]
    threads = [threading.Thread(target=lambda one=one: outcomes.append(one())) for one in writes]
    threads[0].start()
    assert held.first.wait(30)
    for thread in threads[1:]:
        thread.start()
    pause = threading.Event()
    while held.begun + store.group_commit.queued < len(writes):
        pause.wait(0.001)
    held.go.set()
    for thread in threads:
        thread.join(30)
    assert held.begun == 2
    assert len(outcomes) == len(writes)
    assert len(check_log(store)) == 8
    assert sum(getattr(each, "state", None) is IntentState.NEVER for each in outcomes) == 4


def test_a_refused_errand_does_not_stop_its_neighbours(store):
    late = audit(audit())
    store.commit(1, [draft()], NOW)
    number = store.workload_id(APP)
    good = batch_of(store, draft())
    refused = Errand(lambda tx, head: audit_tables.submit(tx, head, number, late, late.batch, NOW))
    other = Errand(lambda tx, head: log.sequence(tx, head, [b"refused"], NOW))
    store.commit_group([refused, good, other])
    assert isinstance(refused.error, AuditOutOfOrderError)
    assert first(good).verdict is Verdict.NEW
    assert other.results == [2]
    assert len(check_log(store)) == 3


def test_a_defect_in_an_errand_is_not_its_neighbours_fault(store):
    def broken(tx, head):
        log.sequence(tx, head, [b"half"], NOW)
        raise ZeroDivisionError

    good, bad = batch_of(store, draft()), Errand(broken)
    store.commit_group([bad, good])
    assert isinstance(bad.error, ZeroDivisionError)
    assert first(good).verdict is Verdict.NEW
    assert len(check_log(store)) == 1, "what the other had written is not in the log"
