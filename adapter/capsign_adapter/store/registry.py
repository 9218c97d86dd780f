"""Control state in tables: revocations, each with its leaf in the same transaction, and the
replicas that they concern.
"""

from __future__ import annotations

from collections.abc import Callable

from capsign_adapter.model.control import Laggard, Revocation
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Transaction

_COLUMNS = "epoch, kind, target, at_ms, revoked_by, lifted_epoch"


def revoke(
    tx: Transaction,
    head: Head,
    kind: int,
    target: str,
    leaf: Callable[[int], bytes],
    now_ms: int,
    by: str = "",
) -> tuple[int, int]:
    """Raise the epoch and record what was withdrawn under it: a commit decided under an older epoch
    finds it moved (I6).
    """
    head.epoch += 1
    index = log.sequence(tx, head, [leaf(head.epoch)], now_ms)
    tx.send(
        "INSERT INTO revocations (epoch, kind, target, at_ms, leaf_index, revoked_by) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        head.epoch,
        kind,
        target,
        now_ms,
        index,
        by,
    )
    return head.epoch, index


def standing(tx: Reader, kind: int, target: str) -> list[int]:
    """The epochs of the revocations of exactly this that stand, ascending."""
    rows = tx.all(
        "SELECT epoch FROM revocations WHERE kind = ? AND target = ? AND lifted_epoch = 0 "
        "ORDER BY epoch",
        kind,
        target,
    )
    return [epoch for (epoch,) in rows]


def lift(
    tx: Transaction, head: Head, kind: int, target: str, leaf: Callable[[int], bytes], now_ms: int
) -> int:
    """Raise the epoch, and let what was revoked be used again from then on; leaf index. All
    revocations of exactly this are lifted.
    """
    head.epoch += 1
    tx.send(
        "UPDATE revocations SET lifted_epoch = ? WHERE kind = ? AND target = ? "
        "AND lifted_epoch = 0",
        head.epoch,
        kind,
        target,
    )
    return log.sequence(tx, head, [leaf(head.epoch)], now_ms)


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
    """Returns everything that is revoked now, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM revocations WHERE lifted_epoch = 0 ORDER BY epoch"  # noqa: S608 - a constant
    return [Revocation(*row) for row in tx.all(sql)]


def revocation_history(tx: Reader, before_epoch: int, limit: int) -> list[Revocation]:
    """Returns revocations whether lifted or not, newest first; before an epoch if not 0."""
    where = "WHERE epoch < ? " if before_epoch else ""
    sql = f"SELECT {_COLUMNS} FROM revocations {where}ORDER BY epoch DESC LIMIT ?"  # noqa: S608 - constants
    bounds = (before_epoch, limit) if before_epoch else (limit,)
    return [Revocation(*row) for row in tx.all(sql, *bounds)]
