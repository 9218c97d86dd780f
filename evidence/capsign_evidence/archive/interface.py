"""What every archive gives: the log's entries, hashes and newest checkpoint, and the agents'
batches beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

Batch = tuple[int, str, bytes]
"""Leaf index, SPIFFE ID of the agent's workload, and the AuditBatch as it was received."""

ALL = 1 << 62
"""A count that no log reaches."""


class ArchiveError(Exception):
    """The archive cannot be read, or does not hold what it must. `advice` is what to do next.

    `damaged`: what is there contradicts itself, which is an incident; else nothing can be said.
    """

    def __init__(self, message: str, advice: str, *, damaged: bool = False) -> None:
        self.message = message
        self.advice = advice
        self.damaged = damaged
        super().__init__(f"{message} {advice}")


class Archive(Protocol):
    """Evidence that may be growing while it is read. Nothing is verified, and nothing is written.

    Iterators read in pieces, so that any length takes bounded memory; each piece is consistent in
    itself, and since entries never change, so is the whole up to the `size` that was asked before.
    Not safe for several threads.
    """

    @property
    def origin(self) -> str:
        """The log's name as its newest checkpoint states it, empty without one."""

    @property
    def first(self) -> int:
        """The first leaf that is held: above 0 where earlier ones were moved elsewhere."""

    @property
    def size(self) -> int:
        """Leaves of the log that are held, counted from 0. Asked anew each time."""

    def checkpoint(self) -> bytes | None:
        """The newest signed note, if there is one."""

    def notes(self) -> list[bytes]:
        """All signed notes that are held, the newest first; more than one where a checkpoint is
        signed before its witnesses have cosigned it.
        """

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        """Entries from leaf `first`, ascending; fewer where the log ends. Raises ArchiveError where
        one is missing in between.
        """

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Stored hashes of a tile level (tree level 8 * level) from index `first`: those of
        complete subtrees, and for level 0 those of leaves.
        """

    def batches(self, first_leaf: int, count: int = ALL) -> Iterator[Batch]:
        """The agents' batches whose leaf is one of the `count` from `first_leaf`, ascending."""

    def summaries(self, first_tile: int) -> Iterator[tuple[int, bytes]]:
        """The summaries that are held from this tile on, ascending, each with the number of its
        tile of 256 leaves (`archive.summary`). They may be missing, and are not to be relied on:
        one that somebody changed hides what is there.
        """

    def policies(self) -> Iterator[bytes]:
        """The documents of policies that are held, each once or more; entries name them by SHA-256.
        Older copies have none.
        """

    def policy(self, digest: bytes) -> bytes | None:
        """The document with this SHA-256, if it is held."""

    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
