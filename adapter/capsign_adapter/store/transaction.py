"""What the store's logic needs of an engine: statements inside one transaction, and the head that
every writer reads first.

SQL is written once, with `?` for parameters; an engine translates it if it must. Statements use
only what both engines share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that takes rows in bulk: its name, and its columns with "int", "blob" or "text" for
    each.
    """

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def column_list(self) -> str:
        return ", ".join(name for name, _ in self.columns)


class Reader(Protocol):
    """Statements that read, all from one snapshot."""

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row, or None."""

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Every row. The caller bounds how many there can be."""


class Transaction(Reader, Protocol):
    """Statements of one writing transaction. Nothing is durable before the engine commits it."""

    def send(self, sql: str, *parameters: Any) -> None:
        """A statement whose outcome nobody asks for. It may travel with the next one; if it fails,
        the transaction does.
        """

    def run(self, sql: str, *parameters: Any) -> int:
        """How many rows it touched."""

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Insert the rows that are not there yet; how many that were."""


@dataclass(slots=True)
class Head:
    """The control row inside a writing transaction. The engine reads it first, under the lock, and
    writes it back last.
    """

    epoch: int
    watermark_ms: int
    tree_size: int
    frontier: bytes


READ_HEAD = (
    "SELECT revocation_epoch, intent_watermark_ms, tree_size, frontier FROM control WHERE id = 1"
)
WRITE_HEAD = (
    "UPDATE control SET revocation_epoch = ?, intent_watermark_ms = ?, tree_size = ?, "
    "frontier = ? WHERE id = 1"
)
FIRST_HEAD = (
    "INSERT INTO control (id, revocation_epoch, intent_watermark_ms, tree_size, frontier) "
    "VALUES (1, 1, 0, 0, ?)"
)
