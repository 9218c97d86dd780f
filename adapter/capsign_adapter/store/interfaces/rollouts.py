"""Rollouts and their history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.rollouts import Figures, RolloutMove, RolloutRow, RolloutStep

MAX_ROLLOUTS = 256
"""Most rollouts, and most steps of one, that a read returns."""


class Rollouts(Protocol):
    """Rows are never deleted. Every change but a tally raises the epoch, has a leaf and a step of
    the history in its transaction, and happens only if nobody changed the row since it was read. A
    key has one rollout under way at a time.
    """

    def rollouts(self, tenant: str = "", key: str = "") -> list[RolloutRow]:
        """The newest MAX_ROLLOUTS, newest first; of one tenant or key where one is named."""

    def rollout(self, tenant: str, key: str, number: int) -> RolloutRow | None:
        """That one of the key; 0: its newest."""

    def rollouts_in_force(self) -> list[RolloutRow]:
        """Those that say what is signed with: each that is under way, and each that is done and
        led to another algorithm, oldest first.
        """

    def rollout_steps(self, rollout_id: bytes) -> list[RolloutStep]:
        """Its changes, oldest first: at most MAX_ROLLOUTS of them."""

    def start_rollout(
        self,
        row: RolloutRow,
        act: int,
        leaf: Callable[[RolloutRow, int], bytes],
        now_ms: int,
        overtakes: RolloutMove | None = None,
    ) -> tuple[RolloutRow, int]:
        """Record a rollout that begins, under the next number of its key; the row and the epoch.
        `leaf` is told both. `overtakes` ends the one under way in the same transaction.

        Raises FailureError ROLLOUT_CONFLICT if one is under way, or is not where `overtakes` saw
        it.
        """

    def move_rollout(self, move: RolloutMove, now_ms: int) -> tuple[RolloutRow, int]:
        """Move a rollout on by an event (`model.rollouts.moved`), and a key version with it if the
        move says so; the row and the epoch.

        Raises FailureError ROLLOUT_CONFLICT if the row has another revision by now, and
        ILLEGAL_TRANSITION if a table has no such move.
        """

    def tally_rollout(self, row: RolloutRow, figures: Figures) -> bool:
        """Keep what was counted so far. False, with nothing written, if the row has another
        revision by now, or somebody counted on from the same leaf.
        """
