"""Who fetched public keys, in its table."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.model.key_readers import KeyReader
from capsign_adapter.store.interfaces.key_readers import MAX_READERS
from capsign_adapter.store.transaction import Reader, Transaction

KEPT_MS = 30 * 24 * 3_600_000
"""How long a row outlives its last fetch."""

_COLUMNS = "tenant, key_name, grant_name, workload, version, sequence, fetches, fetched_ms"


def note(tx: Transaction, seen: Sequence[KeyReader], now_ms: int) -> None:
    """Add fetches."""
    for reader in seen:
        tx.send(
            f"INSERT INTO key_readers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
            " ON CONFLICT (tenant, key_name, grant_name, workload) DO UPDATE SET fetches = CASE"
            " WHEN excluded.version > key_readers.version THEN excluded.fetches"
            " WHEN excluded.version = key_readers.version"
            " THEN key_readers.fetches + excluded.fetches ELSE key_readers.fetches END,"
            " sequence = CASE WHEN excluded.sequence > key_readers.sequence"
            " THEN excluded.sequence ELSE key_readers.sequence END,"
            " fetched_ms = CASE WHEN excluded.fetched_ms > key_readers.fetched_ms"
            " THEN excluded.fetched_ms ELSE key_readers.fetched_ms END,"
            " version = CASE WHEN excluded.version > key_readers.version"
            " THEN excluded.version ELSE key_readers.version END",
            reader.tenant,
            reader.key,
            reader.grant,
            reader.workload,
            reader.version,
            reader.sequence,
            reader.fetches,
            reader.fetched_ms,
        )
    tx.send("DELETE FROM key_readers WHERE fetched_ms < ?", now_ms - KEPT_MS)


def of_key(tx: Reader, tenant: str, key: str) -> list[KeyReader]:
    """The last to fetch first."""
    found = tx.all(
        f"SELECT {_COLUMNS} FROM key_readers WHERE tenant = ? AND key_name = ?"  # noqa: S608 - a constant
        " ORDER BY fetched_ms DESC, grant_name, workload LIMIT ?",
        tenant,
        key,
        MAX_READERS,
    )
    return [KeyReader(*row) for row in found]
