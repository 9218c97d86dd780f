"""Summaries of the log's tiles, in their table."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_evidence.merkle import TILE_WIDTH

from capsign_adapter.store.transaction import Reader, Row, Table, Transaction

_TABLE = Table("log_summaries", (("tile_index", "int"), ("summary", "blob")))


def tiles(tx: Reader) -> int:
    """How many tiles have one: they are made in order, and of what moved to cold files there."""
    row = tx.one("SELECT tile_index FROM log_summaries ORDER BY tile_index DESC LIMIT 1")
    if row is not None:
        return int(row[0]) + 1
    held = tx.one("SELECT MIN(first_index) FROM log_segments")
    return int(held[0]) // TILE_WIDTH if held and held[0] is not None else 0


def after(tx: Reader, first_tile: int, most: int, longest: int) -> list[tuple[int, bytes]]:
    """The first `most` of tiles from this one on that have `longest` bytes at most."""
    rows = tx.all(
        "SELECT tile_index, summary FROM log_summaries WHERE tile_index >= ? AND "
        "LENGTH(summary) <= ? ORDER BY tile_index LIMIT ?",
        first_tile,
        longest,
        most,
    )
    return [(int(tile), bytes(summary)) for tile, summary in rows]


def retire(tx: Transaction, held: int) -> None:
    """Let go of those of tiles before leaf `held`, the first that the store still holds."""
    tx.send("DELETE FROM log_summaries WHERE tile_index < ?", held // TILE_WIDTH)


def save(tx: Transaction, first_tile: int, summaries: Sequence[bytes]) -> None:
    """Add those that are not there: another replica writes the same bytes."""
    rows: list[Row] = list(enumerate(summaries, first_tile))
    tx.insert(_TABLE, rows)
