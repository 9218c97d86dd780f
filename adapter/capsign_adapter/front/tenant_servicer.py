"""TenantService: what holds for a tenant as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import tenants_pb2 as pb
from capsign_wire.adapter.v1 import tenants_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody import erasing
from capsign_adapter.custody.acts import Propose
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.message_ways import Digests, Way, ways_of
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy, Role
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.decide.revoked import revoked_failure
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.key_messages import time_of
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.store.interfaces.erasures import Erasures
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.policies import Policies

PROVING = frozenset({Role.RESPONDER})
"""Roles that may learn under which commitment a message stands in the log."""

ERASING = frozenset({Role.OPERATOR})
"""Roles that may propose to erase a tenant."""

LOOKING = frozenset(Role)
"""Roles that may see which tenants were erased."""

MAX_LISTED = 4096
"""Most erased tenants in one answer."""

PER_SECOND, BURST = 1, 30
"""Messages that one responder may ask about: who may ask can try what somebody may have signed."""


class Recorded(EvidenceLog, Policies, Erasures, Protocol):
    """What is asked of the store here."""


class TenantServicer(tenants_pb2_grpc.TenantServiceServicer):
    """Takes digests of messages, and gives commitments; never a key."""

    def __init__(
        self,
        standing: Callable[[], Standing],
        commitments: CommitmentKeys,
        store: Recorded,
        asked: Buckets,
        propose: Propose,
    ) -> None:
        """`asked` limits how often each person asks; `propose` is where acts of two people go."""
        self._propose = propose
        self._standing = standing
        self._commitments = commitments
        self._store = store
        self._asked = asked

    @guarded
    def GetCommitments(
        self, peer: Peer, request: pb.GetCommitmentsRequest
    ) -> pb.GetCommitmentsResponse:
        """Recorded before it is answered."""
        standing, tenant = self._standing(), request.tenant
        standing.demand(peer.spiffe_id, PROVING)
        _demand_kept(standing, tenant)
        self._charge(peer)
        digests = Digests(request.sha256, request.sha384, tuple(request.mus))
        policy = self._policy(standing.policy, request.policy_version)
        found = ways_of(policy, tenant, digests, list(request.transcripts), request.grant)
        key = self._commitments.for_tenant(tenant)
        now, act = now_ms(), Act.COMMITMENTS_TOLD
        entry = leaf.admin(now, standing.policy.digest, act, peer.spiffe_id, tenant, 0)
        index = self._store.append([entry], now)
        # an erasure that has answered meanwhile is in this standing: nothing is told after it
        _demand_kept(self._standing(), tenant)
        return pb.GetCommitmentsResponse(
            commitments=[
                _told(way, key.group(*_shared(way)).of_hash(way.input_hash)) for way in found.ways
            ],
            incomplete=found.incomplete[:256],
            leaf_index=index,
        )

    @guarded
    def EraseTenant(self, peer: Peer, request: pb.EraseTenantRequest) -> pb.EraseTenantResponse:
        """Proposes it; answers with the same proposal if one waits."""
        standing, tenant = self._standing(), request.tenant
        standing.demand(peer.spiffe_id, ERASING)
        row = self._propose(peer.spiffe_id, erasing.ACT, tenant, erasing.payload_of(tenant))
        return pb.EraseTenantResponse(
            proposal_id=row.id,
            digest=row.digest,
            expires_at=time_of(row.expires_ms),
            waits_ms=row.waits_ms,
        )

    @guarded
    def ListErasures(self, peer: Peer, request: pb.ListErasuresRequest) -> pb.ListErasuresResponse:
        """By name."""
        self._standing().demand(peer.spiffe_id, LOOKING)
        return pb.ListErasuresResponse(
            erasures=[
                pb.Erasure(
                    tenant=one.tenant,
                    erased_at=time_of(one.erased_ms),
                    epoch=one.epoch,
                    gone_at=time_of(one.gone_ms),
                )
                for one in self._store.erasures()[:MAX_LISTED]
            ]
        )

    def _charge(self, peer: Peer) -> None:
        taken = self._asked.take(peer.spiffe_id, "commitments", PER_SECOND, BURST, 1)
        if not taken.granted:
            detail = "One message a second may be asked about."
            raise FailureError(
                failures_pb2.REASON_RATE_LIMITED, detail, retry_after_ms=taken.retry_after_ms
            )

    def _policy(self, in_force: Policy, version: int) -> Policy:
        """The policy of that version, 0 for the one in force. Raises FailureError NOT_FOUND."""
        if not version:
            return in_force
        document = self._store.policy_document(version)
        try:
            if document is not None:
                return parse_policy(document)
        except PolicyError:
            detail = f"This release cannot read version {version} of the policy."
        else:
            detail = f"There is no version {version} of the policy."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="policy_version")


def _demand_kept(standing: Standing, tenant: str) -> None:
    """Raise FailureError TENANT_ERASED."""
    erased = standing.revoked.of_erased(tenant)
    if erased is not None:
        raise revoked_failure(erased)


def _shared(way: Way) -> tuple[str, str, str, str, str, bytes]:
    return (
        way.grant,
        way.algorithm,
        way.protocol,
        way.role,
        way.protocol_version,
        way.transcript,
    )


def _told(way: Way, commitment: bytes) -> pb.MessageCommitment:
    return pb.MessageCommitment(
        grant=way.grant,
        algorithm=way.algorithm,
        protocol=way.protocol,
        role=way.role,
        protocol_version=way.protocol_version,
        transcript=way.transcript,
        commitment=commitment,
    )
