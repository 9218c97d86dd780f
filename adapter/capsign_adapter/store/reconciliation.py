"""Reconciliation in tables."""

from __future__ import annotations

from capsign_evidence.incident_leaf import IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import Incident

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Transaction

_COLUMNS = (
    "kind, workload, boot_id, digest, intent_id, leaf_plus_one, first_sequence, last_sequence, "
    "subjects, since_ms, leaf_index"
)


_KEY = "kind = ? AND workload = ? AND boot_id = ? AND digest = ?"


def lead(tx: Transaction, replica: bytes, now_ms: int, until_ms: int) -> bool:
    """See the interface."""
    _begun(tx)
    return bool(
        tx.run(
            "UPDATE reconciliation SET holder = ?, until_ms = ?"
            " WHERE id = 1 AND (holder = ? OR until_ms <= ?)",
            replica,
            until_ms,
            replica,
            now_ms,
        )
    )


def read(tx: Reader) -> Reconciliation:
    """See the interface."""
    row = tx.one("SELECT revision, position, state FROM reconciliation WHERE id = 1")
    revision, position, state = row if row is not None else (0, 0, b"")
    return Reconciliation(int(revision), int(position), bytes(state), tuple(incidents(tx)))


def incidents(tx: Reader) -> list[IncidentRow]:
    """See the interface."""
    sql = f"SELECT {_COLUMNS} FROM incidents ORDER BY leaf_index"  # noqa: S608 - a constant
    return [
        IncidentRow(
            Incident(
                IncidentKind(kind), workload, bytes(boot), bytes(digest), bytes(intent), *rest
            ),
            leaf_index,
        )
        for kind, workload, boot, digest, intent, *rest, leaf_index in tx.all(sql)
    ]


def settle(tx: Transaction, head: Head, revision: int, progress: Progress, now_ms: int) -> bool:
    """See the interface."""
    _begun(tx)
    if not tx.run(
        "UPDATE reconciliation SET revision = revision + 1, position = ?, state = ?"
        " WHERE id = 1 AND revision = ?",
        progress.position,
        progress.state,
        revision,
    ):
        return False
    first = log.sequence(tx, head, [entry for _, entry in progress.changes], now_ms)
    for index, (change, _) in enumerate(progress.changes, first):
        if change.state is IncidentState.FOUND:
            _insert(tx, change.incident, index)
        else:
            tx.send(f"DELETE FROM incidents WHERE {_KEY}", *_key(change.incident))  # noqa: S608 - a constant
    for one in progress.grown:
        tx.send(
            f"UPDATE incidents SET subjects = ?, last_sequence = ? WHERE {_KEY}",  # noqa: S608 - a constant
            one.count,
            one.last,
            *_key(one),
        )
    return True


def _begun(tx: Transaction) -> None:
    tx.send(
        "INSERT INTO reconciliation (id, revision, holder, until_ms, position, state)"
        " VALUES (1, 0, ?, 0, 0, ?) ON CONFLICT DO NOTHING",
        b"",
        b"",
    )


def _key(one: Incident) -> tuple[int, str, bytes, bytes]:
    return int(one.kind), one.workload, one.boot_id, one.digest


def _insert(tx: Transaction, one: Incident, leaf_index: int) -> None:
    tx.send(
        f"INSERT INTO incidents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        int(one.kind),
        one.workload,
        one.boot_id,
        one.digest,
        one.intent_id,
        one.leaf_index_plus_one,
        one.first,
        one.last,
        one.count,
        one.since_ms,
        leaf_index,
    )
