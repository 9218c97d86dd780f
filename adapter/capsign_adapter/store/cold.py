"""Leaves that were moved to cold files, in tables: how far they go, and the transaction that lets
go of them.

What was moved are whole tiles; segments, which end where commits ended, go once all of their leaves
were moved. So the store may hold a few leaves that the files have too, and never misses one that
they have not.
"""

from __future__ import annotations

from capsign_adapter.store import log, summaries
from capsign_adapter.store.faults import StoreDamagedError
from capsign_adapter.store.transaction import Head, Reader, Transaction


def moved(tx: Reader) -> int:
    """How many leaves, from the first on, are in cold files."""
    row = tx.one("SELECT size FROM log_cold WHERE id = 1")
    return int(row[0]) if row else 0


def held_from(tx: Reader) -> int:
    """The first leaf that the store holds."""
    row = tx.one("SELECT MIN(first_index) FROM log_segments")
    return int(row[0]) if row and row[0] is not None else 0


def written_ms(tx: Reader, index: int) -> int:
    """When this leaf was sequenced, milliseconds since 1970; 0 if it is not held."""
    row = tx.one(
        "SELECT written_ms FROM log_segments WHERE first_index <= ? ORDER BY first_index DESC "
        "LIMIT 1",
        index,
    )
    return int(row[0]) if row else 0


def retire(
    tx: Transaction, head: Head, before: int, end: int, leaf: bytes, now_ms: int
) -> int | None:
    """Let go of leaves up to `end`, which are durable in cold files, and append the entry that says
    so; its index, or None if another replica has moved some since `before`.
    """
    if moved(tx) != before:
        return None
    if not before < end <= head.tree_size:
        raise ValueError("what is moved is in the log, and was not moved before")
    index = log.sequence(tx, head, [leaf], now_ms)
    # Dense, and the entry of above is behind it: there is one that holds leaf `end`.
    row = tx.one("SELECT MAX(first_index) FROM log_segments WHERE first_index <= ?", end)
    kept = int(row[0]) if row else end
    tx.send("DELETE FROM log_segments WHERE first_index < ?", kept)
    tx.send("DELETE FROM audit_batches WHERE leaf_index < ?", kept)
    summaries.retire(tx, kept)
    if tx.run("UPDATE log_cold SET size = ? WHERE id = 1", end) != 1:
        raise StoreDamagedError(
            "The store does not say how many leaves are in cold files. Stop every replica; restore "
            "a backup."
        )
    return index
