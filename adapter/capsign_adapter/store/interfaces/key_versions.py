"""Versions of keys."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent


class KeyVersions(Protocol):
    """Rows are never deleted. Every change raises the revocation epoch and has a leaf in its
    transaction, so that what is in flight is decided again.
    """

    def key_versions(self) -> list[KeyVersionRow]:
        """All versions of all keys, oldest first."""

    def add_key_version(self, row: KeyVersionRow, leaf: bytes, now_ms: int) -> int:
        """Record a version that was just made; leaf index. Raises FailureError ILLEGAL_TRANSITION
        if it exists already.
        """

    def move_key_version(
        self, row: KeyVersionRow, event: KeyEvent, leaf: bytes, now_ms: int
    ) -> int:
        """Move a version on by an event (`model.key_versions.moved`) and raise the epoch; leaf
        index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more, or the
        table has no such move.
        """
