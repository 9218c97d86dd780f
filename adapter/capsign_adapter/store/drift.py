"""Drift in tables: rows and their entries in one transaction, reports of replicas, uses of keys."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from capsign_evidence.drift_leaf import DriftKind

from capsign_adapter.model.drift import Difference, DriftRow, DriftState, KeyUse, ReplicaReport
from capsign_adapter.store import log
from capsign_adapter.store.interfaces.drift import MAX_REPORTS, Entry
from capsign_adapter.store.transaction import Head, Reader, Transaction

_COLUMNS = "kind, subject, aspect, expected, found, since_ms, leaf_index"


def state(tx: Reader) -> DriftState:
    """All of it."""
    sql = f"SELECT {_COLUMNS} FROM drift ORDER BY kind, subject, aspect"  # noqa: S608 - a constant
    rows = [
        DriftRow(Difference(DriftKind(kind), *rest), since_ms, index)
        for kind, *rest, since_ms, index in tx.all(sql)
    ]
    reports = tx.all(
        "SELECT report FROM replica_reports ORDER BY seen_ms DESC LIMIT ?", MAX_REPORTS
    )
    read = [msgspec.json.decode(text, type=ReplicaReport) for (text,) in reports]
    return DriftState(_revision(tx), tuple(rows), tuple(read))


def _revision(tx: Reader) -> int:
    found = tx.one("SELECT revision FROM drift_revision WHERE id = 1")
    return int(found[0]) if found else 0


def settle(
    tx: Transaction,
    head: Head,
    revision: int,
    found: Sequence[Difference],
    gone: Sequence[DriftRow],
    entry: Entry,
    now_ms: int,
) -> bool:
    """See the interface. What is gone goes first: what was found may bear the same name."""
    if _revision(tx) != revision:
        return False
    entries = [entry(row.difference, row.since_ms, False) for row in gone]
    entries += [entry(one, now_ms, True) for one in found]
    first = log.sequence(tx, head, entries, now_ms) + len(gone)
    for row in gone:
        one = row.difference
        tx.send(
            "DELETE FROM drift WHERE kind = ? AND subject = ? AND aspect = ?",
            int(one.kind),
            one.subject,
            one.aspect,
        )
    for index, one in enumerate(found, first):
        tx.send(
            f"INSERT INTO drift ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
            int(one.kind),
            one.subject,
            one.aspect,
            one.expected,
            one.found,
            now_ms,
            index,
        )
    tx.send("UPDATE drift_revision SET revision = revision + 1 WHERE id = 1")
    return True


def report(tx: Transaction, told: ReplicaReport, forget_before_ms: int) -> None:
    """See the interface."""
    tx.send("DELETE FROM replica_reports WHERE seen_ms < ?", forget_before_ms)
    tx.send(
        "INSERT INTO replica_reports (replica_id, seen_ms, report) VALUES (?, ?, ?)"
        " ON CONFLICT (replica_id) DO UPDATE SET seen_ms = excluded.seen_ms,"
        " report = excluded.report",
        told.replica,
        told.seen_ms,
        msgspec.json.encode(told).decode(),
    )


def end_report(tx: Transaction, replica: bytes) -> None:
    """See the interface."""
    tx.send("DELETE FROM replica_reports WHERE replica_id = ?", replica)


def key_uses(tx: Reader) -> list[KeyUse]:
    """See the interface."""
    rows = tx.all(
        "SELECT tenant, key_name, version, last_ms, uses FROM key_uses "
        "ORDER BY tenant, key_name, version"
    )
    return [KeyUse(*row) for row in rows]


def add_key_uses(tx: Transaction, uses: Sequence[KeyUse]) -> None:
    """See the interface."""
    for use in uses:
        tx.send(
            "INSERT INTO key_uses (tenant, key_name, version, last_ms, uses)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant, key_name, version) DO UPDATE SET"
            " uses = key_uses.uses + excluded.uses, last_ms ="
            " CASE WHEN excluded.last_ms > key_uses.last_ms"
            " THEN excluded.last_ms ELSE key_uses.last_ms END",
            use.tenant,
            use.key,
            use.version,
            use.last_ms,
            use.count,
        )
