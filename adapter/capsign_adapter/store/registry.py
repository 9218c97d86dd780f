"""Control state in tables: revocations, each with its leaf in the same transaction, and the
replicas that they concern.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_adapter.model.control import Laggard, Revocation
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Transaction


def revoke(
    tx: Transaction, head: Head, kind: int, target: str, leaf: Callable[[int], bytes], now_ms: int
) -> tuple[int, int]:
    """Raise the epoch and record what was withdrawn under it: a commit decided under an older epoch
    finds it moved (I6).
    """
    head.epoch += 1
    index = log.sequence(tx, head, [leaf(head.epoch)], now_ms)
    tx.send(
        "INSERT INTO revocations (epoch, kind, target, at_ms, leaf_index) VALUES (?, ?, ?, ?, ?)",
        head.epoch,
        kind,
        target,
        now_ms,
        index,
    )
    return head.epoch, index


def announce(tx: Transaction, replica_id: bytes, working: int, drained: int, lease_ms: int) -> None:
    """Write a replica's row; neither of its epochs ever falls."""
    tx.send(
        "INSERT INTO replicas (replica_id, working_epoch, drained_epoch, lease_ms) "
        "VALUES (?, ?, ?, ?)"
        " ON CONFLICT (replica_id) DO UPDATE SET lease_ms = excluded.lease_ms,"
        " working_epoch = CASE WHEN excluded.working_epoch > replicas.working_epoch"
        " THEN excluded.working_epoch ELSE replicas.working_epoch END,"
        " drained_epoch = CASE WHEN excluded.drained_epoch > replicas.drained_epoch"
        " THEN excluded.drained_epoch ELSE replicas.drained_epoch END",
        replica_id,
        working,
        drained,
        lease_ms,
    )


def laggards(tx: Reader, epoch: int) -> list[Laggard]:
    """Returns the replicas that may hold something of an older epoch."""
    rows = tx.all("SELECT replica_id, lease_ms FROM replicas WHERE drained_epoch < ?", epoch)
    return [Laggard(bytes(replica_id), lease_ms) for replica_id, lease_ms in rows]


def revocations(tx: Reader) -> list[Revocation]:
    """Returns all revocations, oldest first."""
    rows = tx.all("SELECT epoch, kind, target, at_ms FROM revocations ORDER BY epoch")
    return [Revocation(*row) for row in rows]
