"""Versions of the policy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from capsign_adapter.model.lifecycle import POLICY, PolicyEvent, PolicyState, move


@dataclass(frozen=True, slots=True)
class PolicyVersionRow:
    """One version of the policy, without its document. Versions count up from 1 and none is used
    twice, also by a document that was in force before.

    `digest` is SHA-256 of the document. `base` is the version that was in force when this one was
    proposed, and that it was compared with; 0 for the first. `proposer` and `decided_by` are SPIFFE
    IDs; `decided_by` is who put it in force or ended it, empty until then. `decided_ms` is when:
    for a version that is or was in force, since when. Times are milliseconds since 1970, 0 for not
    yet.
    """

    version: int
    digest: bytes
    base: int
    state: PolicyState
    proposer: str
    proposed_ms: int
    decided_by: str = ""
    decided_ms: int = 0
    until_ms: int = 0
    """When another version took its place."""


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """A document that is to become a version; see PolicyVersionRow."""

    digest: bytes
    document: bytes
    base: int
    proposer: str


def proposed(version: int, draft: PolicyDraft, now_ms: int) -> PolicyVersionRow:
    """A version at the beginning of its life."""
    return PolicyVersionRow(
        version, draft.digest, draft.base, POLICY.initial, draft.proposer, now_ms
    )


def moved(row: PolicyVersionRow, event: PolicyEvent, by: str, now_ms: int) -> PolicyVersionRow:
    """The version after an event that `by` caused. Raises FailureError ILLEGAL_TRANSITION."""
    state = move(POLICY, row.state, event)
    if event is PolicyEvent.SUPERSEDE:
        return replace(row, state=state, until_ms=now_ms)
    return replace(row, state=state, decided_by=by, decided_ms=now_ms)
