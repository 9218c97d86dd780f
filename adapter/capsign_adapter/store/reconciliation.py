"""Reconciliation in tables."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_evidence.incident_leaf import PASSING, IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import MAX_OF_WORKLOAD, MAX_STANDING, Incident

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation
from capsign_adapter.store import log
from capsign_adapter.store.interfaces.reconciliation import Closing
from capsign_adapter.store.transaction import Head, Reader, Transaction

TOO_LONG = 10
"""A lease that is so many times as long as one was written by a clock that is ahead."""


def _of_one(statement: str) -> str:
    """The statement, of the incident whose `_key` are its last parameters."""
    return f"{statement} WHERE kind = ? AND workload = ? AND boot_id = ? AND digest = ?"


_COLUMNS = (
    "kind, workload, boot_id, digest, intent_id, leaf_plus_one, first_sequence, last_sequence, "
    "subjects, since_ms, leaf_index"
)
_PASSING = ", ".join(str(int(kind)) for kind in sorted(PASSING))

_EVERY = " ".join(("SELECT", _COLUMNS, "FROM incidents ORDER BY leaf_index"))
_KNOWN = _of_one("SELECT kind FROM incidents")
_LASTING = " ".join(("SELECT COUNT(*) FROM incidents WHERE kind NOT IN (", _PASSING, ")"))
_LASTING_OF_WORKLOAD = f"{_LASTING} AND workload = ?"
_ADD = " ".join(("INSERT INTO incidents (", _COLUMNS, ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"))
_GROW = _of_one("UPDATE incidents SET subjects = ?, last_sequence = ?")
_END = _of_one("DELETE FROM incidents")


def lead(tx: Transaction, replica: bytes, now_ms: int, until_ms: int) -> bool:
    """See the interface."""
    _begun(tx)
    return bool(
        tx.run(
            "UPDATE reconciliation SET holder = ?, until_ms = ?"
            " WHERE id = 1 AND (holder = ? OR until_ms <= ? OR until_ms > ?)",
            replica,
            until_ms,
            replica,
            now_ms,
            now_ms + TOO_LONG * (until_ms - now_ms),
        )
    )


def through(tx: Reader) -> int:
    """See the interface."""
    row = tx.one("SELECT position FROM reconciliation WHERE id = 1")
    return int(row[0]) if row is not None else 0


def read(tx: Reader) -> Reconciliation:
    """See the interface."""
    row = tx.one("SELECT revision, position, state FROM reconciliation WHERE id = 1")
    revision, position, state = row if row is not None else (0, 0, b"")
    return Reconciliation(int(revision), int(position), bytes(state), tuple(incidents(tx)))


def incidents(tx: Reader) -> list[IncidentRow]:
    """See the interface."""
    return [
        IncidentRow(
            Incident(
                IncidentKind(kind), workload, bytes(boot), bytes(digest), bytes(intent), *rest
            ),
            leaf_index,
        )
        for kind, workload, boot, digest, intent, *rest, leaf_index in tx.all(_EVERY)
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
            tx.send(_END, *_key(change.incident))
    for one in progress.grown:
        tx.send(_GROW, one.count, one.last, *_key(one))
    return True


def file(tx: Transaction, head: Head, one: Incident, entries: Sequence[bytes], now_ms: int) -> bool:
    """See the interface."""
    if tx.one(_KNOWN, *_key(one)) is not None:
        return False
    row = tx.one(_LASTING)
    of_one = tx.one(_LASTING_OF_WORKLOAD, one.workload)
    assert row is not None
    assert of_one is not None
    if row[0] >= MAX_STANDING or (one.workload and of_one[0] >= MAX_OF_WORKLOAD):
        return False
    _overtaken(tx)
    _insert(tx, one, log.sequence(tx, head, entries, now_ms))
    return True


def close(tx: Transaction, head: Head, leaf_index: int, entries: Closing, now_ms: int) -> bool:
    """See the interface."""
    found = [row for row in incidents(tx) if row.leaf_index == leaf_index]
    if not found:
        return False
    _overtaken(tx)
    log.sequence(tx, head, entries(found[0].incident), now_ms)
    tx.send("DELETE FROM incidents WHERE leaf_index = ?", leaf_index)
    return True


def _overtaken(tx: Transaction) -> None:
    """Whoever follows the log learns that the rows are others now."""
    _begun(tx)
    tx.send("UPDATE reconciliation SET revision = revision + 1 WHERE id = 1")


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
        _ADD,
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
