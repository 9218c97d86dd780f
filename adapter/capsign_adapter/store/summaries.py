"""Summaries of the log's tiles, in their table."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.store.transaction import Reader, Row, Table, Transaction

_TABLE = Table("log_summaries", (("tile_index", "int"), ("summary", "blob")))


def tiles(tx: Reader) -> int:
    """How many tiles have one: they are made in order."""
    row = tx.one("SELECT tile_index FROM log_summaries ORDER BY tile_index DESC LIMIT 1")
    return int(row[0]) + 1 if row else 0


def save(tx: Transaction, first_tile: int, summaries: Sequence[bytes]) -> None:
    """Add those that are not there: another replica writes the same bytes."""
    rows: list[Row] = list(enumerate(summaries, first_tile))
    tx.insert(_TABLE, rows)
