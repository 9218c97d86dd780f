"""Names versions of the policy, and says what becomes of one when its proposal ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from capsign_adapter.model.lifecycle import PolicyEvent, ProposalState


def target_of(version: int, digest: bytes) -> str:
    """Returns how evidence names a version: number and digest of the document."""
    return f"{version}/{digest.hex()}"


def proposal_target(version: int) -> str:
    """Returns how the proposal of a version names it."""
    return f"policy/{version}"


def file_identity(trust_domain: str) -> str:
    """Returns the identity that proposes what is in a replica's file: no person and no workload, so
    it has no certificate and no role that a policy could give it.
    """
    return f"spiffe://{trust_domain}/adapter/policy-file"


ENDED_WITH: Mapping[ProposalState, PolicyEvent] = MappingProxyType(
    {
        ProposalState.REJECTED: PolicyEvent.REJECT,
        ProposalState.EXPIRED: PolicyEvent.EXPIRE,
        ProposalState.CALLED_OFF: PolicyEvent.CALL_OFF,
        ProposalState.OVERTAKEN: PolicyEvent.OVERTAKE,
    }
)
"""What happens to a version when its proposal has come to that."""
