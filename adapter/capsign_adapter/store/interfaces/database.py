"""The database itself: its name, its clock, its size."""

from __future__ import annotations

from typing import Protocol


class Database(Protocol):
    """Properties of the database."""

    @property
    def name(self) -> str:
        """ "sqlite" or "postgresql"."""

    def clock_ms(self) -> int | None:
        """Returns the store's time, milliseconds since 1970; None if it has no clock of its own.

        Used for steps that one replica takes for all of them: its own clock may be wrong, and no
        other replica checks it.
        """

    def size_bytes(self) -> int:
        """Returns the bytes that the store takes on its disk, with indexes and write-ahead log."""

    def close(self) -> None:
        """Close connections."""
