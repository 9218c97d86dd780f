"""The certificate authorities."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityEvent


class Authorities(Protocol):
    """Rows are never deleted. Every move has a leaf in its transaction; none raises the epoch,
    because signing does not depend on them.
    """

    def authorities(self) -> list[AuthorityRow]:
        """All of them, oldest first."""

    def add_authority(self, row: AuthorityRow, newest: int, leaf: bytes, now_ms: int) -> int:
        """Record an authority in state PREPARED that was just made; leaf index. `newest` is the
        version of the newest one that its maker knew of, 0 for none.

        Raises FailureError ILLEGAL_TRANSITION if there is a newer one than that by now, whatever
        its state, or one is PREPARED.
        """

    def move_authority(
        self, row: AuthorityRow, event: AuthorityEvent, leaf: bytes, now_ms: int
    ) -> int:
        """Move an authority on by an event (`model.authorities.moved`); leaf index.

        Raises FailureError ILLEGAL_TRANSITION if the row is not in `row.state` any more, or the
        table has no such move.
        """

    def promise_authority(self, version: int, until_ms: int) -> bool:
        """Let this authority sign what is valid until then; the promise never falls. False, with
        nothing written, if it is not the newest active one any more.
        """
