"""RevocationService: what a revocation reaches, what is revoked, and a proposal to lift it."""

from __future__ import annotations

from typing import Protocol

from capsign_wire.adapter.v1 import admin_pb2, approvals_pb2, revocations_pb2_grpc
from capsign_wire.adapter.v1 import revocations_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Role
from capsign_adapter.decide.revocation_reach import lifted_by, reach_of
from capsign_adapter.decide.revocation_target import check_form, demand_known, target_in_log
from capsign_adapter.front.guard import guarded
from capsign_adapter.model.control import Revocation
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.lift import payload_of
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.store.interfaces.control import MAX_REVOCATIONS, ControlState
from capsign_adapter.store.interfaces.key_versions import KeyVersions

LOOKING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR, Role.APPROVER})

MOST_SHOWN = 256
"""Most workloads, and most grants, that a preview names."""


class Revoked(ControlState, KeyVersions, Protocol):
    """What was revoked, and what can be, as the store has it."""


class RevocationServicer(revocations_pb2_grpc.RevocationServiceServicer):
    """For people. It changes nothing by itself."""

    def __init__(self, store: Revoked, snapshots: Snapshots, approvals: Approvals) -> None:
        self._store = store
        self._snapshots = snapshots
        self._approvals = approvals

    @guarded
    def PreviewRevocation(
        self, peer: Peer, request: pb.PreviewRevocationRequest
    ) -> pb.PreviewRevocationResponse:
        """Returns who would stop signing. Raises FailureError NOT_FOUND where `Revoke` does."""
        snapshot = self._demand_looking(peer)
        check_form(request.kind, request.target)
        stored = self._store.key_versions()
        demand_known(
            request.kind,
            request.target,
            snapshot.policy,
            {(row.tenant, row.key) for row in stored},
            snapshot.revoked,
            versions={f"{row.tenant}/{row.key}/{row.version}" for row in stored},
        )
        rows = [row for some in snapshot.versions.values() for row in some]
        reach = reach_of(request.kind, request.target, snapshot.policy, rows)
        return pb.PreviewRevocationResponse(
            workloads=reach.workloads[:MOST_SHOWN],
            workload_count=len(reach.workloads),
            grants=reach.grants[:MOST_SHOWN],
            grant_count=len(reach.grants),
            handle_life_ms=reach.handle_life_ms,
            successors=reach.successors[:MOST_SHOWN],
            wide=reach.wide,
            lifted_by=lifted_by(request.kind),
            roles=reach.roles,
        )

    @guarded
    def ListRevocations(
        self, peer: Peer, request: pb.ListRevocationsRequest
    ) -> pb.ListRevocationsResponse:
        """Returns what is revoked, newest first; with `all` also what was lifted."""
        self._demand_looking(peer)
        before = request.before_epoch
        if request.all:
            found = self._store.revocation_history(before)
        else:
            stands = reversed(self._store.revocations()[1])
            found = [one for one in stands if not before or one.epoch < before]
        return pb.ListRevocationsResponse(
            revocations=[_message(one) for one in found[:MAX_REVOCATIONS]]
        )

    @guarded
    def ProposeLift(self, peer: Peer, request: pb.ProposeLiftRequest) -> pb.ProposeLiftResponse:
        """Proposes to lift a revocation; nothing is lifted before somebody else approves."""
        check_form(request.kind, request.target)
        if request.kind == admin_pb2.REVOCATION_KIND_HANDLE:
            raise FailureError(
                failures_pb2.REASON_INPUT_MALFORMED,
                "The revocation of a handle is never lifted; its agent fetches another handle.",
                field="kind",
            )
        row = self._approvals.propose(
            peer.spiffe_id,
            approvals_pb2.PROPOSAL_ACT_REVOCATION_LIFT,
            target_in_log(request.kind, request.target),
            payload_of(request.kind, request.target),
        )
        return pb.ProposeLiftResponse(proposal_id=row.id, digest=row.digest)

    def _demand_looking(self, peer: Peer) -> Snapshot:
        snapshot = self._snapshots.refresh()
        Standing(snapshot.policy, snapshot.revoked).demand(peer.spiffe_id, LOOKING)
        return snapshot


def _message(one: Revocation) -> pb.Revocation:
    message = pb.Revocation(
        epoch=one.epoch,
        kind=admin_pb2.RevocationKind.ValueType(one.kind),
        target=one.target,
        revoked_by=one.by,
        lifted_epoch=one.lifted_epoch,
    )
    message.revoked_at.FromMilliseconds(one.at_ms)
    return message
