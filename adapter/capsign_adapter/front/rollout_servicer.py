"""RolloutService: keys on their way to another version or algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_evidence.rollout_leaf import VerificationsReported
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.adapter.v1 import rollouts_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Role
from capsign_adapter.decide.rollout_start import left_behind
from capsign_adapter.front.guard import guarded
from capsign_adapter.front.rollout_messages import readiness_of, rollout_of, step_of
from capsign_adapter.model.rollouts import RolloutRow
from capsign_adapter.rollout.acts import Rollouts

MAX_LEFT_BEHIND = 256
"""Most grants that are named as left behind."""

LOOKING = frozenset(Role)
STARTING = frozenset({Role.OPERATOR})
STOPPING = frozenset({Role.OPERATOR, Role.RESPONDER})
REPORTING = frozenset({Role.OPERATOR, Role.RESPONDER, Role.AUDITOR})


class Named(Protocol):
    """A request about the rollouts of a key."""

    tenant: str
    key: str


class RolloutServicer(rollouts_pb2_grpc.RolloutServiceServicer):
    """Acts for people: who may ask is decided here, what happens in `rollout.acts`."""

    def __init__(self, rollouts: Rollouts, standing: Callable[[], Standing]) -> None:
        self._rollouts = rollouts
        self._standing = standing
        self._moves = rollouts.moves

    @guarded
    def StartRollout(self, peer: Peer, request: pb.StartRolloutRequest) -> pb.StartRolloutResponse:
        """It has begun when this answers; its first step follows within a second."""
        row = self._rollouts.start(
            self._acting(peer, STARTING, request),
            request.tenant,
            request.key,
            request.algorithm,
            new_version=request.new_version,
            overtake=request.overtake,
        )
        return pb.StartRolloutResponse(rollout=self._shown(row))

    @guarded
    def ListRollouts(self, peer: Peer, request: pb.ListRolloutsRequest) -> pb.ListRolloutsResponse:
        """Newest first."""
        self._demand(peer, LOOKING)
        rows = self._rollouts.listed(request.tenant, request.key)
        return pb.ListRolloutsResponse(rollouts=[self._shown(row) for row in rows])

    @guarded
    def GetRollout(self, peer: Peer, request: pb.GetRolloutRequest) -> pb.GetRolloutResponse:
        """One with its steps."""
        self._demand(peer, LOOKING)
        row, steps = self._rollouts.shown(request.tenant, request.key, request.number)
        shown = self._shown(row)
        history = self._rollouts.listed(request.tenant, request.key)
        shown.newest = history[0].number
        shown.undoes = next((each.number for each in history if each.id == row.previous), 0)
        return pb.GetRolloutResponse(rollout=shown, steps=[step_of(step) for step in steps])

    @guarded
    def PauseRollout(self, peer: Peer, request: pb.PauseRolloutRequest) -> pb.PauseRolloutResponse:
        """It goes no further by itself."""
        actor = self._acting(peer, STOPPING, request)
        row = self._rollouts.pause(actor, request.tenant, request.key)
        return pb.PauseRolloutResponse(rollout=self._shown(row))

    @guarded
    def ResumeRollout(
        self, peer: Peer, request: pb.ResumeRolloutRequest
    ) -> pb.ResumeRolloutResponse:
        """It goes on by itself."""
        actor = self._acting(peer, STARTING, request)
        row = self._rollouts.resume(actor, request.tenant, request.key)
        return pb.ResumeRolloutResponse(rollout=self._shown(row))

    @guarded
    def PromoteRollout(
        self, peer: Peer, request: pb.PromoteRolloutRequest
    ) -> pb.PromoteRolloutResponse:
        """The next step, whatever time and figures say."""
        row = self._rollouts.promote(
            self._acting(peer, STARTING, request),
            request.tenant,
            request.key,
            full=request.full,
            revision=request.revision,
        )
        return pb.PromoteRolloutResponse(rollout=self._shown(row))

    @guarded
    def AbortRollout(self, peer: Peer, request: pb.AbortRolloutRequest) -> pb.AbortRolloutResponse:
        """All sign as before, on every replica, when this answers."""
        actor = self._acting(peer, STOPPING, request)
        row = self._rollouts.abort(actor, request.tenant, request.key)
        return pb.AbortRolloutResponse(rollout=self._shown(row))

    @guarded
    def UndoRollout(self, peer: Peer, request: pb.UndoRolloutRequest) -> pb.UndoRolloutResponse:
        """A rollout back has begun when this answers."""
        actor = self._acting(peer, STARTING, request)
        row = self._rollouts.undo(actor, request.tenant, request.key, request.to)
        return pb.UndoRolloutResponse(rollout=self._shown(row))

    @guarded
    def ReportVerifications(
        self, peer: Peer, request: pb.ReportVerificationsRequest
    ) -> pb.ReportVerificationsResponse:
        """Durable when this answers. Sent again, it counts again."""
        actor = self._demand(peer, REPORTING)
        moves = self._moves
        if not any(
            (row.tenant, row.key, row.version) == (request.tenant, request.key, request.version)
            and request.algorithm in row.algorithms
            for row in moves.store.key_versions()
        ):
            detail = "No key has this version with this algorithm."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="version")
        now = moves.now_ms()
        entry = VerificationsReported(
            now,
            moves.policy().digest,
            actor,
            request.tenant,
            request.key,
            request.version,
            request.algorithm,
            request.verified,
            request.failed,
        )
        index = moves.store.append([entry.encode()], now)
        return pb.ReportVerificationsResponse(leaf_index=index)

    def _shown(self, row: RolloutRow) -> pb.Rollout:
        moves = self._moves
        world = moves.world(row)
        shown = rollout_of(row, world, len(moves.workloads(row)), moves.now_ms())
        if row.is_version_change and not row.is_final:
            readiness = moves.readiness(row, world)
            shown.readiness.CopyFrom(readiness_of(row, world, readiness))
        shown.left_behind.extend(left_behind(moves.policy(), row)[:MAX_LEFT_BEHIND])
        return shown

    def _acting(self, peer: Peer, roles: frozenset[Role], request: Named) -> str:
        """The same of who wants something of a rollout: a refusal is recorded."""
        with self._rollouts.recorded(peer.spiffe_id, request.tenant, request.key):
            return self._demand(peer, roles)

    def _demand(self, peer: Peer, roles: frozenset[Role]) -> str:
        """The peer's identity. Raises FailureError ROLE_MISSING."""
        self._standing().demand(peer.spiffe_id, roles)
        return peer.spiffe_id
