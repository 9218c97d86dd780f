"""Reconciliation in the store, on every engine: an incident's row and its entry are one."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.model.reconciliation import Progress, Reconciliation
from capsign_evidence.incident_leaf import IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import Change, Incident
from support.drafts import NOW, check_log

LATE = Incident(IncidentKind.LATE, "spiffe://t/w", b"", b"k" * 32, b"i" * 16, 8, 0, 0, 1, NOW)
GAP = Incident(IncidentKind.GAP, "spiffe://t/w", b"b" * 16, b"", b"", 0, 3, 4, 2, NOW + 1)


def told(*changes: tuple[IncidentState, Incident]) -> tuple[tuple[Change, bytes], ...]:
    return tuple(
        (Change(state, one), f"{state.name} {one.kind.name}".encode()) for state, one in changes
    )


FOUND, ENDED = IncidentState.FOUND, IncidentState.ENDED


def test_an_incident_comes_and_goes_with_an_entry_each_time(store, second):
    nothing = store.reconciliation()
    assert nothing == Reconciliation(0, 0, b"", ())
    assert store.settle_incidents(
        nothing, Progress(5, b"five", told((FOUND, LATE), (FOUND, GAP))), NOW
    )
    found = second.reconciliation()
    assert (found.revision, found.position, found.state) == (1, 5, b"five")
    assert [(row.incident, row.leaf_index) for row in found.rows] == [(LATE, 0), (GAP, 1)]
    grown = replace(GAP, count=7, last=9)
    assert second.settle_incidents(found, Progress(9, b"nine", told((ENDED, LATE)), (grown,)), NOW)
    assert [row.incident for row in store.incidents()] == [grown]
    assert check_log(store) == [b"FOUND LATE", b"FOUND GAP", b"ENDED LATE"]


def test_who_was_overtaken_writes_nothing(store, second):
    before = store.reconciliation()
    assert store.settle_incidents(before, Progress(1, b"one"), NOW)
    assert not second.settle_incidents(before, Progress(2, b"two", told((FOUND, GAP))), NOW)
    assert (store.reconciliation().position, check_log(store)) == (1, [])


def test_one_replica_leads_until_its_lease_ends(store, second):
    assert store.lead_reconciliation(b"a" * 16, NOW, NOW + 30)
    assert not second.lead_reconciliation(b"b" * 16, NOW + 29, NOW + 60)
    assert store.lead_reconciliation(b"a" * 16, NOW + 29, NOW + 60)
    assert not second.lead_reconciliation(b"b" * 16, NOW + 59, NOW + 90)
    assert second.lead_reconciliation(b"b" * 16, NOW + 60, NOW + 90)
    assert store.reconciliation().revision == 0
