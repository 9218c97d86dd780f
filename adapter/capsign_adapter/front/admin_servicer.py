"""AdminService: a separate service with roles. Every act that changes something is a leaf in the
log.
"""

from __future__ import annotations

from typing import Protocol

from capsign_evidence import leaf
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.adapter.v1 import admin_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter import __version__
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy, Role
from capsign_adapter.decide.revocation_target import check_form, demand_known
from capsign_adapter.front.guard import guarded
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.membership import CatchUp
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.key_versions import KeyVersions
from capsign_adapter.token.interface import Token

LOOKING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR})
REVOKING = frozenset({Role.OPERATOR, Role.RESPONDER})


class Administered(ControlState, KeyVersions, Database, Protocol):
    """What people see and change."""


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Acts for people. It never signs and never returns a key."""

    def __init__(
        self,
        policy: Policy,
        store: Administered,
        token: Token,
        keyring: Keyring,
        snapshots: Snapshots,
        catch_up: CatchUp,
    ) -> None:
        self._policy = policy
        self._store = store
        self._token = token
        self._keyring = keyring
        self._snapshots = snapshots
        self._catch_up = catch_up

    @guarded
    def ListKeys(self, peer: Peer, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        """Keys with their versions, newest first."""
        self._demand(peer, LOOKING)
        snapshot = self._snapshots.refresh()
        return pb.ListKeysResponse(
            keys=[
                pb.Key(tenant=tenant, name=key, versions=[self._version(row) for row in rows])
                for (tenant, key), rows in sorted(snapshot.versions.items())
                if request.tenant in {"", tenant}
            ]
        )

    @guarded
    def Revoke(self, peer: Peer, request: pb.RevokeRequest) -> pb.RevokeResponse:
        """In force everywhere when it answers: no commit passes under an older epoch, and what had
        passed is out or stays in.

        COMMIT_UNKNOWN says that it is recorded and may not be in force everywhere yet; it does no
        harm to revoke again.
        """
        self._demand(peer, REVOKING)
        target: str = request.target
        check_form(request.kind, target)
        keys = {(row.tenant, row.key) for row in self._store.key_versions()}
        demand_known(
            request.kind,
            target,
            self._policy,
            keys,
            self._snapshots.refresh().revoked,
            workloads=request.only_known,
        )
        now = now_ms()
        act = leaf.Act(10 + request.kind)  # the numbers of the acts follow those of the kinds
        digest, actor = self._policy.digest, peer.spiffe_id
        epoch, index = self._store.revoke(
            request.kind,
            target,
            lambda epoch: leaf.admin(now, digest, act, actor, target, epoch),
            now,
        )
        self._catch_up.enforce(epoch)
        return pb.RevokeResponse(revocation_epoch=epoch, leaf_index=index)

    @guarded
    def GetStatus(self, peer: Peer, request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        """How this replica is."""
        self._demand(peer, LOOKING)
        control = self._store.control()
        return pb.GetStatusResponse(
            version=__version__,
            policy_digest=self._policy.digest,
            revocation_epoch=control.revocation_epoch,
            tree_size=control.tree_size,
            intent_watermark_ms=control.intent_watermark_ms,
            token=self._token.name[:64],
            store=self._store.name,
        )

    def _demand(self, peer: Peer, roles: frozenset[Role]) -> None:
        if not self._policy.roles_of(peer.spiffe_id) & roles:
            names = ", ".join(sorted(role.value for role in roles))
            raise FailureError(failures_pb2.REASON_ROLE_MISSING, f"This is for the roles {names}.")

    def _version(self, row: KeyVersionRow) -> pb.KeyVersion:
        message = pb.KeyVersion(
            version=row.version,
            state=row.state,
            custody=self._keyring.custody(
                row, algorithms_pb2.Algorithm.ValueType(row.algorithms[0])
            ),
            algorithms=[algorithms_pb2.Algorithm.ValueType(number) for number in row.algorithms],
            check_value=row.check_value,
        )
        message.created_at.FromMilliseconds(row.created_ms)
        return message
