"""Versions of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KeyEvent


class KeyVersions(Protocol):
    """Rows are never deleted. Every change raises the revocation epoch and has a leaf in its
    transaction, so that what is in flight is decided again. `leaf` makes the entry, given the new
    epoch; what is returned is the new epoch and the index of that leaf.

    No version number, and no activation epoch above 0, is ever given twice for a key.
    """

    def key_versions(self) -> list[KeyVersionRow]:
        """All versions of all keys, oldest first."""

    def add_key_version(
        self, row: KeyVersionRow, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Record a version that was just made, in any state. Raises FailureError ILLEGAL_TRANSITION
        if it exists already, or its activation epoch was given before.
        """

    def move_key_version(
        self, row: KeyVersionRow, event: KeyEvent, leaf: Callable[[int], bytes], now_ms: int
    ) -> tuple[int, int]:
        """Move a version on by an event (`model.key_versions.moved`); PUBLISH and ACTIVATE take the
        key's next activation epoch as it is in this transaction.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state`, or not published
        as `row` is, any more, or the table has no such move.
        """
