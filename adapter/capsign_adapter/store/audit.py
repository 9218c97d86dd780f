"""Agents' audit batches in tables: each is accepted exactly once, and only after the one before it
in its boot.
"""

from __future__ import annotations

from capsign_evidence.packed_batch import unpack

from capsign_adapter.model.evidence import AuditAccepted, AuditDraft
from capsign_adapter.store import cold, log
from capsign_adapter.store.errors import AuditOutOfOrderError
from capsign_adapter.store.transaction import Head, Reader, Transaction

MAX_BATCHES = 256
"""Most batches that one read returns; each is at most a mebibyte."""


def submit(
    tx: Transaction, head: Head, workload_id: int, draft: AuditDraft, kept: bytes, now_ms: int
) -> AuditAccepted:
    """Accept the next batch of its boot, or find one that was accepted before. `kept` is the batch
    as it is stored. Raises AuditOutOfOrderError for any other.
    """
    boot = tx.one(
        "SELECT accepted_through, last_hash, closed FROM audit_boots WHERE workload_id = "
        "? AND boot_id = ?",
        workload_id,
        draft.boot_id,
    )
    through, last_hash, closed = (
        (int(boot[0]), bytes(boot[1]), bool(boot[2])) if boot else (0, b"", False)
    )
    if draft.last_sequence <= through:
        return _taken_before(tx, workload_id, draft, through, last_hash)
    follows = draft.first_sequence == through + 1 and draft.previous == last_hash and not closed
    if not follows or draft.last_sequence < draft.first_sequence:
        raise AuditOutOfOrderError(through)
    index = log.sequence(tx, head, [draft.leaf], now_ms)
    tx.send(
        "INSERT INTO audit_batches (leaf_index, workload_id, boot_id, first_sequence, "
        "last_sequence, batch_hash, batch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        index,
        workload_id,
        draft.boot_id,
        draft.first_sequence,
        draft.last_sequence,
        draft.batch_hash,
        kept,
    )
    tx.send(
        "INSERT INTO audit_boots (workload_id, boot_id, accepted_through, last_hash, "
        "closed) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (workload_id, boot_id) DO UPDATE SET accepted_through = "
        "excluded.accepted_through,"
        " last_hash = excluded.last_hash, closed = excluded.closed",
        workload_id,
        draft.boot_id,
        draft.last_sequence,
        draft.batch_hash,
        int(draft.closes),
    )
    return AuditAccepted(draft.last_sequence, index, duplicate=False)


def _taken_before(
    tx: Transaction, workload_id: int, draft: AuditDraft, through: int, last_hash: bytes
) -> AuditAccepted:
    row = tx.one(
        "SELECT leaf_index, batch_hash FROM audit_batches WHERE workload_id = ? AND "
        "boot_id = ? AND last_sequence = ?",
        workload_id,
        draft.boot_id,
        draft.last_sequence,
    )
    if row is None and _moved(tx, workload_id, draft):
        # Of the last one the hash is known still; of earlier ones nothing is (decision 58).
        if draft.last_sequence == through and draft.batch_hash != last_hash:
            raise AuditOutOfOrderError(through)
        return AuditAccepted(through, 0, duplicate=True)
    # Same sequence numbers, other bytes: an agent that tells two stories of one boot. Not a
    # duplicate.
    if row is None or bytes(row[1]) != draft.batch_hash:
        raise AuditOutOfOrderError(through)
    return AuditAccepted(through, int(row[0]), duplicate=True)


def _moved(tx: Transaction, workload_id: int, draft: AuditDraft) -> bool:
    """Whether a batch that ends where this one does would be in cold files: all that the store
    still has of this life came after it.
    """
    if not cold.moved(tx):
        return False
    row = tx.one(
        "SELECT MIN(first_sequence) FROM audit_batches WHERE workload_id = ? AND boot_id = ?",
        workload_id,
        draft.boot_id,
    )
    return row is None or row[0] is None or draft.last_sequence < int(row[0])


def batches(
    tx: Reader, workload: str, first_leaf: int, end_leaf: int, limit: int
) -> list[tuple[int, str, bytes]]:
    """Returns batches by ascending leaf index; of one workload if it is not empty."""
    query = (
        "SELECT b.leaf_index, w.spiffe_id, b.batch FROM audit_batches b JOIN workloads w "
        "ON w.id = b.workload_id"
        " WHERE b.leaf_index >= ? AND b.leaf_index < ?"
    )
    limit = max(0, min(limit, MAX_BATCHES))
    if workload:
        rows = tx.all(
            f"{query} AND w.spiffe_id = ? ORDER BY b.leaf_index LIMIT ?",
            first_leaf,
            end_leaf,
            workload,
            limit,
        )
    else:
        rows = tx.all(f"{query} ORDER BY b.leaf_index LIMIT ?", first_leaf, end_leaf, limit)
    return [(index, spiffe_id, unpack(bytes(batch))) for index, spiffe_id, batch in rows]
