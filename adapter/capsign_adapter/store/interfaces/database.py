"""The database itself: its name, its clock, its size."""

from __future__ import annotations

from typing import Protocol


class Database(Protocol):
    """What a database tells of itself."""

    @property
    def name(self) -> str:
        """ "sqlite" or "postgresql"."""

    def clock_ms(self) -> int | None:
        """What time it is for the store, milliseconds since 1970; None if it has no other clock
        than its callers.

        It is for what one replica does for all of them, once: its own clock may be wrong, and no
        other will look.
        """

    def size_bytes(self) -> int:
        """What the whole store takes on its disk, with its indexes and its log of writes."""

    def close(self) -> None:
        """Close connections."""
