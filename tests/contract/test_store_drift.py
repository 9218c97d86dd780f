"""Drift in the store, on every engine: a row and its entry are one."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from capsign_adapter.model.drift import Difference, DriftState, KeyUse, ReplicaReport
from capsign_evidence.drift_leaf import DriftKind
from support.drafts import NOW, check_log

A = Difference(DriftKind.TLS, "replica/ab/listener/people", "oldest", "at least 1.3", "1.2")
B = Difference(DriftKind.UNKNOWN_OBJECT, "capsign/demo/stranger", "object", "nothing", "data")
REPORT = ReplicaReport(
    b"r" * 16, NOW, NOW, "1.0", "ab" * 32, (("control.lease_ms", "3000"),), (A, B)
)


def entry(one: Difference, since_ms: int, there: bool) -> bytes:
    return f"{one.subject} {since_ms - NOW} {there}".encode()


def settle(store, revision, found=(), gone=(), at=0):
    return store.settle_drift(revision, list(found), list(gone), entry, NOW + at)


def test_a_difference_comes_and_goes_with_an_entry_each_time(store, second):
    assert store.drift() == DriftState(0, (), ())
    assert settle(store, 0, [A, B])
    state = second.drift()
    assert state.revision == 1
    assert [(row.difference, row.since_ms, row.leaf_index) for row in state.rows] == [
        (A, NOW, 0),
        (B, NOW, 1),
    ]
    assert settle(second, 1, gone=[state.rows[1]], at=9)
    assert [row.difference for row in store.drift().rows] == [A]
    assert check_log(store) == [entry(A, NOW, True), entry(B, NOW, True), entry(B, NOW, False)]


def test_a_difference_that_looks_otherwise_takes_the_place_of_the_former(store):
    settle(store, 0, [A])
    other = replace(A, found="1.1")
    assert settle(store, 1, [other], store.drift().rows, at=5)
    (row,) = store.drift().rows
    assert (row.difference, row.since_ms, row.leaf_index) == (other, NOW + 5, 2)


def test_who_looked_before_somebody_else_wrote_writes_nothing(store, second):
    """A replica that saw an object before another one saw it gone must not bring it back."""
    settle(store, 0, [B])
    seen = second.drift()
    settle(store, 1, gone=store.drift().rows)
    assert not settle(second, seen.revision, [A])
    assert store.drift().rows == ()
    assert len(check_log(store)) == 2


def test_of_replicas_that_find_the_same_at_once_one_writes_it(store, second):
    outcomes = []
    gate = threading.Barrier(2)

    def look(one):
        gate.wait()
        outcomes.append(settle(one, 0, [A]))

    threads = [threading.Thread(target=look, args=(one,)) for one in (store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, True]
    assert len(check_log(store)) == 1


def test_what_fails_on_the_way_has_neither_row_nor_entry(store):
    def failing(one, since_ms, there):
        if one == B:
            raise RuntimeError("killed here")
        return entry(one, since_ms, there)

    with pytest.raises(RuntimeError):
        store.settle_drift(0, [A, B], [], failing, NOW)
    assert store.drift() == DriftState(0, (), ())
    assert check_log(store) == []
    assert settle(store, 0, [A, B])


def test_reports_are_kept_until_nobody_hears_of_their_replica(store, second):
    other = replace(REPORT, replica=b"s" * 16, seen_ms=NOW + 50, own=())
    store.report_replica(REPORT, 0)
    second.report_replica(other, 0)
    assert store.drift().reports == (other, REPORT)
    later = replace(REPORT, seen_ms=NOW + 100, software="1.1")
    store.report_replica(later, NOW + 60)
    assert store.drift().reports == (later,)
    store.end_report(REPORT.replica)
    assert store.drift().reports == ()


def test_uses_are_added_up_and_the_last_one_counts(store, second):
    one = KeyUse("demo", "orders", 1, NOW + 5, 3)
    store.add_key_uses([one, replace(one, version=2)])
    second.add_key_uses([replace(one, last_ms=NOW, count=4)])
    assert store.key_uses() == [replace(one, count=7), replace(one, version=2)]
