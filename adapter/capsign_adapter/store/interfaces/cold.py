"""Leaves that were moved to cold files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from capsign_adapter.store.cold_reads import ColdReads


class ColdLeaves(Protocol):
    """Whole tiles, from the first on, are in a directory that all replicas see. `hashes`, `entries`
    and `audit_batches` read them from there as if they were in the store.
    """

    def use_cold_files(self, directory: Path, reads: ColdReads | None = None) -> None:
        """Read what was moved from here, by these threads; None: by some of its own."""

    def moved_leaves(self) -> int:
        """How many leaves, from the first on, are in cold files."""

    def leaf_written_ms(self, index: int) -> int:
        """When a leaf that is held was sequenced, milliseconds since 1970."""

    def retire(self, before: int, end: int, leaf: bytes, now_ms: int) -> int | None:
        """Let go of the leaves from `before` up to `end`, and sequence the entry that says so, in
        one transaction; its index.

        The caller has made them durable in cold files, and a checkpoint that may be shown covers
        them. None, and nothing is done, if another replica was first.
        """
