"""How a version of the policy is named, and what ends it with its proposal."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from capsign_adapter.model.lifecycle import PolicyEvent, ProposalState


def target_of(version: int, digest: bytes) -> str:
    """How evidence names a version: number and digest of the document."""
    return f"{version}/{digest.hex()}"


def proposal_target(version: int) -> str:
    """How its proposal does."""
    return f"policy/{version}"


def file_identity(trust_domain: str) -> str:
    """Who proposes what is in a replica's file: no person and no workload, so it has no certificate
    and no role that a policy could give it.
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
