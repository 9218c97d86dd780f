"""The interface between the store's logic and an engine: statements in one transaction, and the
head that every writer reads first.

SQL is written once, with `?` for parameters, and uses only what both engines share; an engine
translates it if necessary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table for bulk inserts: its name, and its columns with "int", "blob" or "text" for each.
    Each is itself alone: it is looked up with every insert.
    """

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def column_list(self) -> str:
        return ", ".join(name for name, _ in self.columns)


class Reader(Protocol):
    """Statements that read."""

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """Returns the first row, or None."""

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Returns all rows. The statement must bound how many there are."""


class Transaction(Reader, Protocol):
    """Statements of one writing transaction. Nothing is durable before the engine commits it."""

    def send(self, sql: str, *parameters: Any) -> None:
        """Send a statement without waiting for its outcome. It may be sent together with the next
        one; if it fails, the transaction fails.
        """

    def run(self, sql: str, *parameters: Any) -> int:
        """Run a statement. Returns how many rows it changed."""

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Insert the rows that do not exist yet. Returns how many those were."""


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
