"""The checkpoints in the store: the last one signed, the last one published with its cosignatures,
and one that the log was found to contradict.
"""

from __future__ import annotations

from capsign_adapter.model.evidence import Checkpoint, Contradiction
from capsign_adapter.store.transaction import Head, Reader, Transaction

_COLUMNS = "tree_size, root, note, at_ms"


def save(tx: Transaction, head: Head, checkpoint: Checkpoint) -> None:
    """Keep a signed one, unless a larger one is kept. Raises ValueError for a tree that the log
    has not, and for a second root of a size.
    """
    if checkpoint.tree_size > head.tree_size:
        raise ValueError("a checkpoint of a larger tree than the log's")
    kept = latest(tx)
    if kept is not None and kept.tree_size == checkpoint.tree_size and kept.root != checkpoint.root:
        raise ValueError("a second root for a size that was signed")
    if kept is None or kept.tree_size <= checkpoint.tree_size:
        _put(tx, "checkpoint", checkpoint)


def latest(tx: Reader) -> Checkpoint | None:
    """The last one signed."""
    return _row(tx, "checkpoint")


def publish(tx: Transaction, checkpoint: Checkpoint) -> None:
    """Keep one with its cosignatures, unless a larger one is kept."""
    kept = published(tx)
    if kept is None or kept.tree_size <= checkpoint.tree_size:
        _put(tx, "published", checkpoint)


def published(tx: Reader) -> Checkpoint | None:
    """The last one published."""
    return _row(tx, "published")


def contradict(tx: Transaction, found: Contradiction) -> None:
    """Keep a contradiction, unless one is kept."""
    tx.send(
        "INSERT INTO contradiction (id, sentence, note, at_ms) VALUES (1, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
        found.sentence,
        found.note,
        found.at_ms,
    )


def contradiction(tx: Reader) -> Contradiction | None:
    """The one that is kept."""
    row = tx.one("SELECT sentence, note, at_ms FROM contradiction WHERE id = 1")
    return Contradiction(row[0], bytes(row[1]), row[2]) if row else None


def _row(tx: Reader, table: str) -> Checkpoint | None:
    row = tx.one(f"SELECT {_COLUMNS} FROM {table} WHERE id = 1")  # noqa: S608 - one of two names
    return Checkpoint(row[0], bytes(row[1]), bytes(row[2]), row[3]) if row else None


def _put(tx: Transaction, table: str, checkpoint: Checkpoint) -> None:
    tx.send(
        f"INSERT INTO {table} (id, {_COLUMNS}) VALUES (1, ?, ?, ?, ?)"  # noqa: S608 - likewise
        " ON CONFLICT (id) DO UPDATE SET tree_size = excluded.tree_size, root = excluded.root,"
        " note = excluded.note, at_ms = excluded.at_ms",
        checkpoint.tree_size,
        checkpoint.root,
        checkpoint.note,
        checkpoint.at_ms,
    )
