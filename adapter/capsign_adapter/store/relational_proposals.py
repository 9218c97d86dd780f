"""The part of the relational store that has what needs two people: each method its transaction."""

from __future__ import annotations

from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import proposals
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.executors import Executors
from capsign_adapter.store.interfaces.proposals import MAX_LISTED, Leaf, Move, Moved


class RelationalProposals(Engine[Connection]):
    """Implements `interfaces.proposals.Proposals`."""

    def proposals(
        self, *, waiting: bool = False, before: bytes = b"", limit: int = MAX_LISTED
    ) -> list[ProposalRow]:
        return self.read(
            lambda tx: proposals.listed(tx, waiting=waiting, before=before, limit=limit)
        )

    def proposal(self, proposal_id: bytes) -> ProposalRow | None:
        return self.read(lambda tx: proposals.find(tx, proposal_id))

    def add_proposal(
        self, draft: ProposalRow, epoch: int, executors: Executors, leaf: Leaf, now_ms: int
    ) -> Moved:
        return self.write(
            lambda tx, head: proposals.add(tx, head, draft, epoch, executors, leaf, now_ms)
        )

    def move_proposal(self, move: Move, executors: Executors, leaf: Leaf) -> Moved:
        return self.write(lambda tx, head: proposals.move(tx, head, move, executors, leaf))

    def acknowledge_proposal(
        self, row: ProposalRow, by: str, epoch: int, leaf: Leaf, now_ms: int
    ) -> Moved:
        return self.write(
            lambda tx, head: proposals.acknowledge(tx, head, row, by, epoch, leaf, now_ms)
        )
