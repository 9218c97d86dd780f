"""What an approved act does: in the transaction that moves its proposal, or not at all.

The part that an act belongs to registers its executor here. Nothing is decided here: who may
approve what is in `decide/approvals.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.proposals import ProposalRow, digest_of
from capsign_adapter.store.transaction import Head, Reader, Transaction


def _nothing(_: ProposalRow) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Executor:
    """How one act is done.

    `words` says what exactly will happen, a sentence each, of the payload alone. `state` reads what
    the proposal stands on (a policy's version, a key version's state), as bytes that change when it
    does; it raises FailureError if what it is about is not there. `execute` writes the change and
    its own leaf, and raises `head.epoch` if decisions depend on it. `executed` follows once that is
    durable and in force on every replica, on the replica that did it and nowhere else; a crash
    before it loses it, so it only hastens what others do by themselves.
    """

    words: Callable[[ProposalRow], Sequence[str]]
    state: Callable[[Reader, ProposalRow], bytes]
    execute: Callable[[Transaction, Head, ProposalRow, int], None]
    executed: Callable[[ProposalRow], None] = _nothing


class Executors:
    """The executors by act, a number of capsign.adapter.v1.ProposalAct. Fixed once it is made."""

    def __init__(self, executors: Mapping[int, Executor]) -> None:
        self._by_act = MappingProxyType(dict(executors))

    def of(self, act: int) -> Executor:
        """The executor of an act. Raises FailureError ILLEGAL_TRANSITION if this release has none:
        a newer one made the proposal.
        """
        found = self._by_act.get(act)
        if found is None:
            raise FailureError(
                failures_pb2.REASON_ILLEGAL_TRANSITION,
                "This replica does not know how to do that; a newer release proposed it.",
            )
        return found

    def demand_unchanged(self, tx: Reader, row: ProposalRow) -> None:
        """Raise FailureError PROPOSAL_CHANGED if what the proposal stands on has changed since."""
        if digest_of(row, self.of(row.act).state(tx, row)) != row.digest:
            raise FailureError(
                failures_pb2.REASON_PROPOSAL_CHANGED,
                "What this proposal was made for has changed since.",
            )
