"""AdminService: what people with a role may see and do. Every act that changes something has a leaf
in the log.
"""

from __future__ import annotations

from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.adapter.v1 import admin_pb2_grpc

from capsign_adapter import __version__
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Role
from capsign_adapter.decide.revocation_target import check_form, demand_known
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.key_messages import figures_of, version_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.lifecycle import RolloutPace
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.drift import KeyUses
from capsign_adapter.store.interfaces.key_versions import KeyVersions
from capsign_adapter.token.interface import Token

LOOKING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR})
REVOKING = frozenset({Role.OPERATOR, Role.RESPONDER})


class Administered(ControlState, KeyVersions, KeyUses, Database, Protocol):
    """The parts of the store that this service reads and writes."""


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Never signs and never returns a private key."""

    def __init__(
        self,
        store: Administered,
        token: Token,
        keyring: Keyring,
        snapshots: Snapshots,
        epochs: EpochFollower,
        approvals: Approvals,
    ) -> None:
        self._store = store
        self._token = token
        self._keyring = keyring
        self._snapshots = snapshots
        self._epochs = epochs
        self._approvals = approvals

    @guarded
    def ListKeys(self, peer: Peer, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        """Returns the keys with their versions, newest first."""
        snapshot = self._demand(peer, LOOKING)
        figures = figures_of(self._store.key_uses(), snapshot.policy, snapshot.revoked)
        return pb.ListKeysResponse(
            keys=[
                pb.Key(
                    tenant=tenant,
                    name=key,
                    versions=[version_of(row, self._keyring, figures) for row in rows],
                )
                for (tenant, key), rows in snapshot.known().items()
                if request.tenant in {"", tenant}
            ]
        )

    @guarded
    def Revoke(self, peer: Peer, request: pb.RevokeRequest) -> pb.RevokeResponse:
        """Revoke. It is in force on all replicas when this answers (I6): no commit succeeds under
        an older epoch, and what was committed before has been released or will not be.

        COMMIT_UNKNOWN says that it is recorded, but may not be in force everywhere yet. Revoking
        again does no harm.
        """
        snapshot = self._demand(peer, REVOKING)
        target: str = request.target
        check_form(request.kind, target)
        rows = self._store.key_versions()
        demand_known(
            request.kind,
            target,
            snapshot.policy,
            {(row.tenant, row.key) for row in rows},
            snapshot.revoked,
            workloads=request.only_known,
            versions={f"{row.tenant}/{row.key}/{row.version}" for row in rows},
        )
        now = now_ms()
        act = Act(10 + request.kind)  # the numbers of the acts follow those of the kinds
        digest, actor = snapshot.policy.digest, peer.spiffe_id
        epoch, index = self._store.revoke(
            request.kind,
            target,
            lambda epoch: leaf.admin(now, digest, act, actor, target, epoch),
            now,
            actor,
        )
        self._epochs.enforce(epoch)
        return pb.RevokeResponse(revocation_epoch=epoch, leaf_index=index)

    @guarded
    def GetStatus(self, peer: Peer, request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        """Returns the state of this replica and of its store."""
        snapshot = self._demand(peer, LOOKING)
        control = self._store.control()
        under_way = [row for row in snapshot.rollouts.values() if not row.is_final]
        return pb.GetStatusResponse(
            version=__version__,
            policy_digest=snapshot.policy.digest,
            revocation_epoch=control.revocation_epoch,
            tree_size=control.tree_size,
            intent_watermark_ms=control.intent_watermark_ms,
            token=self._token.name[:64],
            store=self._store.name,
            broken_glass=len(self._approvals.broken()),
            rollouts=len(under_way),
            rollouts_waiting=sum(row.pace is not RolloutPace.RUNNING for row in under_way),
        )

    def _demand(self, peer: Peer, roles: frozenset[Role]) -> Snapshot:
        """What is in force now, if it gives the peer one of these roles. Raises FailureError
        ROLE_MISSING.
        """
        snapshot = self._snapshots.refresh()
        Standing(snapshot.policy, snapshot.revoked).demand(peer.spiffe_id, roles)
        return snapshot
