"""Acts that need two people."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from capsign_adapter.model.lifecycle import ProposalEvent
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store.executors import Executors

MAX_LISTED = 256
"""Proposals of one answer."""

Leaf = Callable[[ProposalRow, ProposalEvent | None, int], bytes]
"""The entry of a move: the row after it, the event (None: it was made), and the epoch."""


class Move(NamedTuple):
    """What is to become of a proposal, as it was decided: of the row as it was then, by `by`
    (SPIFFE ID), under an epoch.
    """

    row: ProposalRow
    events: tuple[ProposalEvent, ...]
    by: str
    epoch: int
    now_ms: int
    glass: int = 0


class Moved(NamedTuple):
    """The row now, the epoch, and the leaf of the last move."""

    row: ProposalRow
    epoch: int
    leaf_index: int


class Proposals(Protocol):
    """Rows are never deleted. Every move is a compare-and-set with a leaf in its transaction."""

    def proposals(
        self, *, waiting: bool = False, before: bytes = b"", limit: int = MAX_LISTED
    ) -> list[ProposalRow]:
        """Newest first; with `before` only those that are older than this id. `waiting`: only
        those that are open, or whose broken glass nobody has acknowledged.
        """

    def proposal(self, proposal_id: bytes) -> ProposalRow | None:
        """The one of that id."""

    def add_proposal(
        self, draft: ProposalRow, epoch: int, executors: Executors, leaf: Leaf, now_ms: int
    ) -> Moved:
        """Record a proposal with its digest, computed in this transaction, whatever the draft's.

        One that is open and has the same digest is returned instead, and nothing is written.
        Raises EpochMovedError, FailureError OVERLOADED if too many wait
        (`decide.approvals.check_count`), and what the executor's `state` raises.
        """

    def move_proposal(self, move: Move, executors: Executors, leaf: Leaf) -> Moved:
        """Do each of the events in order, all in one transaction, with a leaf each. APPROVE,
        EXECUTE and BREAK_GLASS see first that the digest is still that of how things are; EXECUTE
        and BREAK_GLASS run the executor.

        Raises EpochMovedError, FailureError ILLEGAL_TRANSITION if the row is not as `move.row` any
        more or the table has no such move, PROPOSAL_CHANGED, and what the executor raises; then
        nothing is written.
        """

    def acknowledge_proposal(
        self, row: ProposalRow, by: str, epoch: int, leaf: Leaf, now_ms: int
    ) -> Moved:
        """Record that `by` has looked at what was done alone. Raises EpochMovedError, and
        FailureError ILLEGAL_TRANSITION if the row is not as it was.
        """
