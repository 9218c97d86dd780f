"""The certificate authorities in their table. Each move is a leaf in the same transaction."""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_adapter.store import log
from capsign_adapter.store.transaction import Head, Reader, Row, Transaction

_COLUMNS = (
    "version, state, certificate, label, check_value, created_ms, expires_ms, activated_ms, "
    "signed_until_ms, retired_ms"
)


def every(tx: Reader) -> list[AuthorityRow]:
    """All authorities, oldest first. A deployment makes a few a year."""
    return [_row(found) for found in tx.all(f"SELECT {_COLUMNS} FROM authorities ORDER BY version")]  # noqa: S608 - a constant


def _row(found: Row) -> AuthorityRow:
    version, state, certificate, label, check_value, *times = found
    return AuthorityRow(
        version, AuthorityState(state), bytes(certificate), label, bytes(check_value), *times
    )


def add(
    tx: Transaction, head: Head, row: AuthorityRow, newest: int, leaf: bytes, now_ms: int
) -> int:
    """Record one that the token holds already. Two replicas that prepare at once: the second finds
    the first one's row, which may be active by then.
    """
    waiting = tx.one(
        "SELECT version FROM authorities WHERE state = ? OR version > ?",
        int(AuthorityState.PREPARED),
        newest,
    )
    if waiting is not None:
        raise _refused(f"Authority {waiting[0]} was prepared by another process.")
    tx.send(
        f"INSERT INTO authorities ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        row.version,
        int(AuthorityState.PREPARED),
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
    tx: Transaction, head: Head, row: AuthorityRow, state: AuthorityState, leaf: bytes, now_ms: int
) -> int:
    """Move one if it is still where the caller saw it."""
    moved = tx.run(
        "UPDATE authorities SET state = ?,"
        " activated_ms = CASE WHEN ? = 1 THEN ? ELSE activated_ms END, retired_ms = CASE "
        "WHEN ? = 1 THEN ? ELSE retired_ms END"
        " WHERE version = ? AND state = ?",
        int(state),
        int(state == AuthorityState.ACTIVE),
        now_ms,
        int(state == AuthorityState.RETIRED),
        now_ms,
        row.version,
        int(row.state),
    )
    if not moved:
        raise _refused(f"Authority {row.version} is not {row.state.name.lower()} any more.")
    return log.sequence(tx, head, [leaf], now_ms)


def promise(tx: Transaction, version: int, until_ms: int) -> bool:
    """Raise the end of what this authority signs, if it is still the one that signs."""
    active = int(AuthorityState.ACTIVE)
    newest = tx.one("SELECT MAX(version) FROM authorities WHERE state = ?", active)
    if newest is None or newest[0] != version:
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
