"""Control state in tables: revocations and key versions. Each change is a leaf in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.model.control import Laggard, Revocation
from capsign_adapter.model.key_versions import KeyVersionRow, moved
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "tenant, key_name, version, state, algorithms, label, check_value, created_ms, "
    "activated_ms, activation_epoch, derived"
)


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
    """Write what a replica says of itself; neither epoch ever falls."""
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
    """Replicas with something of an older epoch, or that have not said otherwise."""
    rows = tx.all("SELECT replica_id, lease_ms FROM replicas WHERE drained_epoch < ?", epoch)
    return [Laggard(bytes(replica_id), lease_ms) for replica_id, lease_ms in rows]


def revocations(tx: Reader) -> list[Revocation]:
    """Everything revoked, oldest first."""
    rows = tx.all("SELECT epoch, kind, target, at_ms FROM revocations ORDER BY epoch")
    return [Revocation(*row) for row in rows]


def key_versions(tx: Reader) -> list[KeyVersionRow]:
    """All versions of all keys, in the order in which they were added."""
    return [_key_version(row) for row in tx.all(f"SELECT {_COLUMNS} FROM key_versions ORDER BY id")]  # noqa: S608 - a constant


def _key_version(row: Row) -> KeyVersionRow:
    (
        tenant,
        key,
        version,
        state,
        algorithms,
        label,
        check_value,
        created_ms,
        activated_ms,
        activation_epoch,
        derived,
    ) = row
    return KeyVersionRow(
        tenant=tenant,
        key=key,
        version=version,
        state=signing_pb2.KeyState.ValueType(state),
        algorithms=_decode_algorithms(algorithms),
        label=label,
        check_value=bytes(check_value),
        created_ms=created_ms,
        activated_ms=activated_ms,
        activation_epoch=activation_epoch,
        derived=bool(derived),
    )


def add_key_version(
    tx: Transaction, head: Head, row: KeyVersionRow, leaf: bytes, now_ms: int
) -> int:
    """Record a version that the token holds already, and raise the epoch, so that running replicas
    see it.

    An activation epoch is given once: of two processes that provision a key's first version at
    once, one is refused.
    """
    if row.activation_epoch and row.activation_epoch < _next_activation(tx, row):
        detail = (
            f"{row.key} has a version of activation epoch {row.activation_epoch} already; "
            f"another process made it."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    added = tx.run(
        f"INSERT INTO key_versions ({_COLUMNS}) "  # noqa: S608 - a constant
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        row.tenant,
        row.key,
        row.version,
        int(row.state),
        _encode_algorithms(row.algorithms),
        row.label,
        row.check_value,
        row.created_ms,
        row.activated_ms,
        row.activation_epoch,
        int(row.derived),
    )
    if not added:
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION,
            f"Version {row.version} of {row.key} exists already.",
        )
    head.epoch += 1
    return log.sequence(tx, head, [leaf], now_ms)


def move_key_version(
    tx: Transaction, head: Head, row: KeyVersionRow, event: KeyEvent, leaf: bytes, now_ms: int
) -> int:
    """Move a version if it is still where the caller saw it, and raise the epoch: signatures in
    flight decide again.
    """
    stored = tx.one(
        f"SELECT {_COLUMNS} FROM key_versions WHERE tenant = ? AND key_name = ? AND version = ?",  # noqa: S608 - a constant
        row.tenant,
        row.key,
        row.version,
    )
    current = _key_version(stored) if stored is not None else None
    if current is None or current.state != row.state:
        name = signing_pb2.KeyState.Name(row.state)
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION,
            f"Version {row.version} of {row.key} is not {name} any more.",
        )
    after = moved(current, event, now_ms, _next_activation(tx, row))
    tx.send(
        "UPDATE key_versions SET state = ?, activated_ms = ?, activation_epoch = ?"
        " WHERE tenant = ? AND key_name = ? AND version = ?",
        int(after.state),
        after.activated_ms,
        after.activation_epoch,
        after.tenant,
        after.key,
        after.version,
    )
    head.epoch += 1
    return log.sequence(tx, head, [leaf], now_ms)


def _next_activation(tx: Transaction, row: KeyVersionRow) -> int:
    found = tx.one(
        "SELECT MAX(activation_epoch) FROM key_versions WHERE tenant = ? AND key_name = ?",
        row.tenant,
        row.key,
    )
    return 1 + (found[0] if found and found[0] else 0)


def _encode_algorithms(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _decode_algorithms(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",")) if text else ()
