"""Key versions in a table. Each change is a leaf in the same transaction and raises the epoch, so
that what is in flight is decided again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2, signing_pb2

from capsign_adapter.model.key_versions import KeyVersionRow, gone, moved
from capsign_adapter.model.lifecycle import KeyEvent
from capsign_adapter.store import key_claims, log
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "tenant, key_name, version, state, algorithms, label, check_value, created_ms, "
    "activated_ms, activation_epoch, derived, published_ms, since_ms, gone_ms"
)


def every(tx: Reader) -> list[KeyVersionRow]:
    """All versions of all keys, in the order in which they were added."""
    return [_row(row) for row in tx.all(f"SELECT {_COLUMNS} FROM key_versions ORDER BY id")]  # noqa: S608 - a constant


def _row(row: Row) -> KeyVersionRow:
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
        published_ms,
        since_ms,
        gone_ms,
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
        published_ms=published_ms,
        since_ms=since_ms,
        gone_ms=gone_ms,
    )


def add(
    tx: Transaction,
    head: Head,
    row: KeyVersionRow,
    leaf: Callable[[int], bytes],
    now_ms: int,
    holder: bytes = b"",
) -> tuple[int, int]:
    """Record a version that the token holds already, and end its claim; (epoch, leaf index).

    A key has one first version: of two processes that make it under claims at once, one is refused,
    whichever numbers they have. And an activation epoch is given once.
    """
    key_claims.settle(tx, row, holder)
    if holder and row.activated_ms and _highest(tx, row):
        detail = f"{row.key} has a version already; another process made it."
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    if row.activation_epoch and _given(tx, row, row.activation_epoch):
        detail = (
            f"{row.key} has a version of activation epoch {row.activation_epoch} already; "
            f"another process made it."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    added = tx.run(
        f"INSERT INTO key_versions ({_COLUMNS}) "  # noqa: S608 - a constant
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
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
        row.published_ms,
        row.since_ms,
        row.gone_ms,
    )
    if not added:
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION,
            f"Version {row.version} of {row.key} exists already.",
        )
    return _sequenced(tx, head, leaf, now_ms)


def move(
    tx: Transaction,
    head: Head,
    row: KeyVersionRow,
    event: KeyEvent,
    leaf: Callable[[int], bytes],
    now_ms: int,
) -> tuple[int, int]:
    """Move a version on if it is still as the caller saw it; (epoch, leaf index)."""
    current = find(tx, row.tenant, row.key, row.version)
    if current is None or (current.state, current.published_ms) != (row.state, row.published_ms):
        detail = (
            f"Version {row.version} of {row.key} was changed by somebody else. Look at it again."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    after = moved(current, event, now_ms, _next_activation(tx, row))
    tx.send(
        "UPDATE key_versions SET state = ?, activated_ms = ?, activation_epoch = ?,"
        " published_ms = ?, since_ms = ?"
        " WHERE tenant = ? AND key_name = ? AND version = ?",
        int(after.state),
        after.activated_ms,
        after.activation_epoch,
        after.published_ms,
        after.since_ms,
        after.tenant,
        after.key,
        after.version,
    )
    return _sequenced(tx, head, leaf, now_ms)


def prove_gone(
    tx: Transaction, head: Head, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int
) -> tuple[int, int]:
    """Record that what was destroyed is gone from the token; (epoch, leaf index)."""
    current = find(tx, row.tenant, row.key, row.version)
    if current is None:
        raise FailureError(
            failures_pb2.REASON_NOT_FOUND, f"{row.key} has no version {row.version}."
        )
    after = gone(current, now_ms)
    tx.send(
        "UPDATE key_versions SET gone_ms = ? WHERE tenant = ? AND key_name = ? AND version = ?",
        after.gone_ms,
        after.tenant,
        after.key,
        after.version,
    )
    return _sequenced(tx, head, leaf, now_ms)


def find(tx: Reader, tenant: str, key: str, version: int) -> KeyVersionRow | None:
    """The version of that number, if there is one."""
    stored = tx.one(
        f"SELECT {_COLUMNS} FROM key_versions WHERE tenant = ? AND key_name = ? AND version = ?",  # noqa: S608 - a constant
        tenant,
        key,
        version,
    )
    return _row(stored) if stored is not None else None


def _sequenced(
    tx: Transaction, head: Head, leaf: Callable[[int], bytes], now_ms: int
) -> tuple[int, int]:
    head.epoch += 1
    return head.epoch, log.sequence(tx, head, [leaf(head.epoch)], now_ms)


def _next_activation(tx: Transaction, row: KeyVersionRow) -> int:
    """The activation epoch that a version gets: its own number, which nothing else ever had, and
    which its label keeps in the token when the store goes back (decision 82).

    Where an earlier release has given that number as an epoch to another version, and for one that
    has had it, it is the next above all numbers and epochs of this key.
    """
    return row.version if not _given(tx, row, row.version) else 1 + _highest(tx, row)


def _highest(tx: Reader, row: KeyVersionRow) -> int:
    """The highest number and activation epoch of all versions of this key. Rows are never deleted,
    and none gives its epoch back.
    """
    found = tx.one(
        "SELECT MAX(version), MAX(activation_epoch) FROM key_versions"
        " WHERE tenant = ? AND key_name = ?",
        row.tenant,
        row.key,
    )
    return max(found[0] or 0, found[1] or 0) if found else 0


def _given(tx: Reader, row: KeyVersionRow, epoch: int) -> bool:
    """Whether a version of this key has or had that activation epoch."""
    found = tx.one(
        "SELECT 1 FROM key_versions WHERE tenant = ? AND key_name = ? AND activation_epoch = ?",
        row.tenant,
        row.key,
        epoch,
    )
    return found is not None


def _encode_algorithms(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _decode_algorithms(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",")) if text else ()
