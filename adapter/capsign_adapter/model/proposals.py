"""Proposals: acts that need two people, from the first one's words to what became of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from capsign_adapter.model.lifecycle import PROPOSAL, ProposalEvent, ProposalState, move

MAX_PAYLOAD = 16 * 1024
"""Longest payload, bytes. What is larger stands in a table of its own, and the payload has its
digest.
"""

_DOMAIN = b"capsign proposal v1"


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """One proposal. `id` is a UUIDv7 of 16 bytes; `act` and `glass` are numbers of
    capsign.adapter.v1.ProposalAct and GlassReason (0: the glass is whole); times are milliseconds
    since 1970, 0 for what has not happened.

    `payload` is the serialised message that says exactly what will happen, at most MAX_PAYLOAD
    bytes. `digest` (`digest_of`) binds it to act, target and the state that it was made against. It
    can be approved before `expires_ms`, and after its approval happens from `not_before_ms` on.
    """

    id: bytes
    act: int
    target: str
    digest: bytes
    payload: bytes
    proposer: str
    created_ms: int
    expires_ms: int
    waits_ms: int
    state: ProposalState = PROPOSAL.initial
    not_before_ms: int = 0
    decided_by: str = ""
    decided_ms: int = 0
    executed_ms: int = 0
    glass: int = 0
    acknowledged_by: str = ""
    acknowledged_ms: int = 0

    @property
    def is_open(self) -> bool:
        """Whether something is still to come: a decision, or the act itself."""
        return not PROPOSAL.is_final(self.state)

    @property
    def unacknowledged(self) -> bool:
        """Whether somebody acted alone, and nobody else has looked at it."""
        return bool(self.glass) and not self.acknowledged_by


def digest_of(row: ProposalRow, state: bytes) -> bytes:
    """SHA-256 over what exactly will happen, how long it waits after its approval, and the state
    that it was made against; 32 bytes.

    Every part has its length before it (docs/formats.md, "Proposal digest").
    """
    parts = (
        _DOMAIN,
        row.act.to_bytes(2, "big"),
        row.target.encode(),
        row.payload,
        row.waits_ms.to_bytes(8, "big"),
        state,
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def moved(
    row: ProposalRow, event: ProposalEvent, by: str, now_ms: int, *, glass: int = 0
) -> ProposalRow:
    """The proposal after an event that `by` (SPIFFE ID) caused. Raises FailureError
    ILLEGAL_TRANSITION.

    Who approved it stays on the row of what was executed, expired or overtaken after that.
    """
    state = move(PROPOSAL, row.state, event)
    if event is ProposalEvent.EXECUTE:
        return replace(row, state=state, executed_ms=now_ms)
    if event in {ProposalEvent.EXPIRE, ProposalEvent.OVERTAKE}:
        return replace(row, state=state)
    after = replace(row, state=state, decided_by=by, decided_ms=now_ms)
    if event is ProposalEvent.APPROVE:
        return replace(after, not_before_ms=now_ms + row.waits_ms)
    if event is ProposalEvent.BREAK_GLASS:
        return replace(after, executed_ms=now_ms, glass=glass)
    return after


def acknowledged(row: ProposalRow, by: str, now_ms: int) -> ProposalRow:
    """The proposal once `by` has looked at what its breaker did alone."""
    return replace(row, acknowledged_by=by, acknowledged_ms=now_ms)
