"""Reconciliation in the store, on every engine: an incident's row and its entry are one."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.model.reconciliation import Progress, Reconciliation
from capsign_evidence.incident_leaf import IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import MAX_OF_WORKLOAD, Change, Incident
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


def test_a_lease_of_a_clock_that_was_ahead_is_nobodys(store, second):
    assert store.lead_reconciliation(b"a" * 16, NOW + 3_600_000, NOW + 3_630_000)
    assert second.lead_reconciliation(b"b" * 16, NOW, NOW + 30_000)


def test_how_far_it_came_is_known_to_everybody(store, second):
    assert store.reconciled_through() == 0
    assert store.settle_incidents(store.reconciliation(), Progress(7, b"seven"), NOW)
    assert second.reconciled_through() == 7


def test_what_is_filed_beside_the_log_stands_once_and_overtakes_who_follows(store, second):
    before = store.reconciliation()
    assert second.file_incident(GAP, b"found", NOW)
    assert not store.file_incident(GAP, b"again", NOW)
    assert not store.settle_incidents(before, Progress(1, b"one"), NOW)
    assert [row.incident for row in store.incidents()] == [GAP]
    assert check_log(store) == [b"found"]


def test_one_workload_can_file_so_many_and_no_more(store):
    for number in range(MAX_OF_WORKLOAD):
        assert store.file_incident(replace(GAP, boot_id=number.to_bytes(16, "big")), b"x", NOW)
    assert not store.file_incident(GAP, b"x", NOW)
    assert store.file_incident(replace(GAP, workload="spiffe://t/other"), b"x", NOW)


def test_what_passes_takes_no_place_from_what_is_filed(store):
    late = [replace(LATE, digest=number.to_bytes(32, "big")) for number in range(MAX_OF_WORKLOAD)]
    before = store.reconciliation()
    assert store.settle_incidents(before, Progress(1, b"x", told(*((FOUND, a) for a in late))), NOW)
    assert store.file_incident(GAP, b"x", NOW)


def test_who_closes_an_incident_names_its_entry(store, second):
    store.append([b"before"], NOW)
    assert store.file_incident(GAP, b"found", NOW)
    assert not store.close_incident(0, lambda _: [b"never"], NOW)
    assert second.close_incident(1, lambda one: [one.kind.name.encode(), b"who"], NOW)
    assert not store.close_incident(1, lambda _: [b"again"], NOW)
    assert store.incidents() == []
    assert check_log(store) == [b"before", b"found", b"GAP", b"who"]
