"""The table of certificate authorities. Each move has a leaf in the same transaction."""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.authorities import AuthorityRow, moved
from capsign_adapter.model.lifecycle import AUTHORITY, AuthorityEvent, AuthorityState
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "version, state, certificate, label, check_value, created_ms, expires_ms, activated_ms, "
    "signed_until_ms, retired_ms"
)


def every(tx: Reader) -> list[AuthorityRow]:
    """Returns all authorities, oldest first. There are a few each year."""
    return [_row(found) for found in tx.all(f"SELECT {_COLUMNS} FROM authorities ORDER BY version")]  # noqa: S608 - a constant


def _row(found: Row) -> AuthorityRow:
    version, state, certificate, label, check_value, *times = found
    return AuthorityRow(
        version, AuthorityState(state), bytes(certificate), label, bytes(check_value), *times
    )


def add(
    tx: Transaction, head: Head, row: AuthorityRow, newest: int, leaf: bytes, now_ms: int
) -> int:
    """Record an authority whose key is in the token already. If two replicas prepare one at once,
    the second finds the row of the first, which may be active by then, and is refused.
    """
    for other in every(tx):
        if other.state == AUTHORITY.initial or other.version > newest:
            raise _refused(f"Authority {other.version} was prepared by another process.")
    tx.send(
        f"INSERT INTO authorities ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        row.version,
        int(AUTHORITY.initial),
        row.certificate,
        row.label,
        row.check_value,
        row.created_ms,
        row.expires_ms,
        row.activated_ms,
        row.signed_until_ms,
        row.retired_ms,
    )
    return log.sequence(tx, head, [leaf], now_ms)


def move(
    tx: Transaction,
    head: Head,
    row: AuthorityRow,
    event: AuthorityEvent,
    leaf: bytes,
    now_ms: int,
) -> int:
    """Move an authority on, if it is still in the state that the caller saw."""
    current = next((each for each in every(tx) if each.version == row.version), None)
    if current is None or current.state != row.state:
        raise _refused(f"Authority {row.version} is not {row.state.name.lower()} any more.")
    after = moved(current, event, now_ms)
    tx.send(
        "UPDATE authorities SET state = ?, activated_ms = ?, retired_ms = ? WHERE version = ?",
        int(after.state),
        after.activated_ms,
        after.retired_ms,
        after.version,
    )
    return log.sequence(tx, head, [leaf], now_ms)


def promise(tx: Transaction, version: int, until_ms: int) -> bool:
    """Raise the time until which this authority signs, if it still is the one that signs."""
    active = [row.version for row in every(tx) if row.state == AuthorityState.ACTIVE]
    if max(active, default=None) != version:
        return False
    tx.send(
        "UPDATE authorities SET signed_until_ms = ? WHERE version = ? AND signed_until_ms < ?",
        until_ms,
        version,
        until_ms,
    )
    return True


def _refused(detail: str) -> FailureError:
    return FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
