"""I7 through the services, over real TLS, on each store: what people ask of rollouts and proposals
in every state is done as the table says, or refused and recorded.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import NamedTuple

import pytest
from capsign_adapter.decide.rollout_cohort import is_in
from capsign_adapter.model.lifecycle import (
    PaceEvent,
    ProposalState,
    RolloutEvent,
    RolloutPace,
    RolloutStage,
)
from capsign_adapter.model.rollouts import RolloutRow
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    approvals_pb2,
    approvals_pb2_grpc,
    revocations_pb2,
    revocations_pb2_grpc,
    rollouts_pb2,
    rollouts_pb2_grpc,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APPROVER, OPERATOR, POLICY, RESPONDER, AdapterRig
from support.key_calls import People
from support.replica import RunningReplica
from support.state_cells import asked, look_later, refusals

S, P = RolloutStage, RolloutPace
SLOW = POLICY.replace(
    "tls:",
    "rollouts: {canary: [{percent: 98, bake: 6h}, {percent: 99, bake: 6h}]}\ntls:",
)
"""Nearly everybody is in the canary, and no step ends by itself while a test runs."""

KEY = {"tenant": "demo", "key": "orders"}


@pytest.fixture
def replica(tmp_path, place):
    running = RunningReplica(
        tmp_path, AdapterRig(tmp_path / "first", SLOW, place.url, place.password_file)
    )
    yield running
    running.stop()


# Rollouts. The cells are written out by hand, apart from the code.

CONFLICT = reasons.REASON_ROLLOUT_CONFLICT
ILLEGAL = reasons.REASON_ILLEGAL_TRANSITION
OVERTAKEN = reasons.REASON_ROLLOUT_OVERTAKEN
VERBS = {
    "pause": ("PauseRollout", rollouts_pb2.PauseRolloutRequest(**KEY)),
    "resume": ("ResumeRollout", rollouts_pb2.ResumeRolloutRequest(**KEY)),
    "promote": ("PromoteRollout", rollouts_pb2.PromoteRolloutRequest(**KEY)),
    "promote --full": ("PromoteRollout", rollouts_pb2.PromoteRolloutRequest(**KEY, full=True)),
    "abort": ("AbortRollout", rollouts_pb2.AbortRolloutRequest(**KEY)),
}
CANARY = WIDER = (S.CANARY, P.RUNNING)
PROMOTED, RETIRES = (S.PROMOTE, P.RUNNING), (S.RETIRE, P.RUNNING)
DONE, ABORTED = (S.DONE, P.RUNNING), (S.ABORTED, P.RUNNING)
Outcome = tuple[RolloutStage, RolloutPace] | int
ROLLOUTS: dict[tuple[RolloutStage, RolloutPace], tuple[Outcome, ...]] = {
    (S.PUBLISH, P.HELD): (ILLEGAL, (S.PUBLISH, P.RUNNING), CONFLICT, CONFLICT, ABORTED),
    (S.PROPAGATE, P.RUNNING): ((S.PROPAGATE, P.HELD), ILLEGAL, CONFLICT, CONFLICT, ABORTED),
    (S.CANARY, P.RUNNING): ((S.CANARY, P.HELD), ILLEGAL, WIDER, PROMOTED, ABORTED),
    (S.CANARY, P.HELD): (ILLEGAL, CANARY, WIDER, PROMOTED, ABORTED),
    (S.CANARY, P.INCONCLUSIVE): (ILLEGAL, CANARY, WIDER, PROMOTED, ABORTED),
    (S.DUAL_SIGN, P.RUNNING): ((S.DUAL_SIGN, P.HELD), ILLEGAL, PROMOTED, PROMOTED, ABORTED),
    (S.PROMOTE, P.RUNNING): ((S.PROMOTE, P.HELD), ILLEGAL, RETIRES, RETIRES, ABORTED),
    (S.RETIRE, P.RUNNING): ((S.RETIRE, P.HELD), ILLEGAL, DONE, DONE, ABORTED),
    (S.DONE, P.RUNNING): (CONFLICT,) * 5,
    (S.ABORTED, P.RUNNING): (CONFLICT,) * 5,
    (S.ROLLED_BACK, P.RUNNING): (CONFLICT,) * 5,
    (S.OVERTAKEN, P.RUNNING): (OVERTAKEN,) * 5,
}
"""By stage and pace: what pause, resume, promote, promote --full and abort lead to. A replica
leaves PUBLISH by itself within a second, so that there it is held.
"""

WAY: dict[RolloutStage, tuple[RolloutEvent, ...]] = {
    S.PROPAGATE: (),
    S.CANARY: (RolloutEvent.PROPAGATED,),
    S.DUAL_SIGN: (RolloutEvent.WIDEN, RolloutEvent.DUAL_SIGN),
    S.PROMOTE: (RolloutEvent.PROMOTE,),
    S.RETIRE: (RolloutEvent.RETIRE,),
    S.DONE: (RolloutEvent.FINISH,),
}
"""What leads from each stage's predecessor to it."""

ENDS = {
    S.ABORTED: RolloutEvent.ABORT,
    S.ROLLED_BACK: RolloutEvent.ROLL_BACK,
    S.OVERTAKEN: RolloutEvent.OVERTAKE,
}
PACES = {P.RUNNING: None, P.HELD: PaceEvent.PAUSE, P.INCONCLUSIVE: PaceEvent.DOUBT}


class Mover:
    """Brings rollouts into a stage as a replica does, without its time passing."""

    def __init__(self, replica: RunningReplica, stub) -> None:
        self._store, self._stub = replica.rig.store, stub
        self._moves = replica.replica.listeners.rollouts.rollouts.moves

    def row(self) -> RolloutRow:
        """The newest rollout."""
        found = self._store.rollout("demo", "orders", 0)
        assert found is not None
        return found

    def bring(self, stage: RolloutStage, pace: RolloutPace) -> None:
        """A rollout that is there, whose canary has a workload: else it would not wait there."""
        if stage is S.PUBLISH:
            self._hold_before_it_is_published()
            return
        self._start()
        while not self._has_a_cohort():
            self._start()
        for event in way_to(stage):
            self._moves.do(self.row(), event)
        held = PACES[pace]
        if held is not None:
            self._moves.do(self.row(), held)
        assert (self.row().stage, self.row().pace) == (stage, pace)

    def _start(self) -> None:
        last = self._store.rollout("demo", "orders", 0)
        overtake = last is not None and not last.is_final
        request = rollouts_pb2.StartRolloutRequest(**KEY, overtake=overtake)
        self._stub.StartRollout(request, timeout=20)

    def _hold_before_it_is_published(self) -> None:
        """Asked through the service, again if the replica was faster."""
        while True:
            self._start()
            told = self._stub.PauseRollout(rollouts_pb2.PauseRolloutRequest(**KEY), timeout=20)
            if S(told.rollout.stage) is S.PUBLISH:
                return

    def _has_a_cohort(self) -> bool:
        row = self.row()
        if row.stage is S.PUBLISH:
            with suppress(FailureError):  # the replica takes this step by itself within a second
                self._moves.do(row, RolloutEvent.PUBLISHED)
        canary = replace(self.row(), stage=S.CANARY)
        return any(is_in(canary, workload) for workload in self._moves.workloads(canary))


def way_to(stage: RolloutStage) -> list[RolloutEvent]:
    """From PROPAGATE on."""
    if stage in ENDS:
        return [*way_to(S.CANARY), ENDS[stage]]
    stages = list(WAY)
    return [event for one in stages[: stages.index(stage) + 1] for event in WAY[one]]


def test_i7_every_verb_in_every_state_of_a_rollout(replica):
    """What is refused is in the log, with who asked, and changes nothing."""
    assert {stage for stage, _ in ROLLOUTS} == set(S)
    assert {pace for _, pace in ROLLOUTS} == set(P)
    refused = 0
    with replica.as_(OPERATOR) as channel:
        stub = rollouts_pb2_grpc.RolloutServiceStub(channel)
        mover = Mover(replica, stub)
        for (stage, pace), outcomes in ROLLOUTS.items():
            fresh = True
            for (verb, (method, request)), outcome in zip(VERBS.items(), outcomes, strict=True):
                if fresh:
                    mover.bring(stage, pace)
                before = mover.row()
                told = asked(getattr(stub, method), request)
                after = mover.row()
                if isinstance(outcome, int):
                    refused += 1
                    assert told == outcome, (stage, pace, verb)
                    assert (after.number, after.revision) == (before.number, before.revision)
                else:
                    moved = (S(told.rollout.stage), P(told.rollout.pace))
                    assert moved == outcome, (stage, pace, verb)
                fresh = not isinstance(outcome, int)
                found = refusals(replica, Act.ROLLOUT_MOVE_REFUSED, "demo/orders")
                assert found == refused, (stage, pace, verb)


# Proposals.

UNBREAKABLE = reasons.REASON_APPROVAL_REQUIRED
"""There is no breaking the glass for a destruction, in whatever state: not a question of states."""

Q = ProposalState
PROPOSALS: dict[tuple[str, ProposalState], tuple[ProposalState | int, ...]] = {
    ("lift", Q.PROPOSED): (Q.EXECUTED, Q.REJECTED, Q.CALLED_OFF, Q.EXECUTED, ILLEGAL),
    ("destroy", Q.APPROVED): (ILLEGAL, ILLEGAL, Q.CALLED_OFF, UNBREAKABLE, ILLEGAL),
    ("lift", Q.EXECUTED): (ILLEGAL,) * 5,
    ("lift", Q.REJECTED): (ILLEGAL,) * 5,
    ("lift", Q.EXPIRED): (ILLEGAL,) * 5,
    ("lift", Q.CALLED_OFF): (ILLEGAL,) * 5,
    ("destroy", Q.OVERTAKEN): (ILLEGAL, ILLEGAL, ILLEGAL, UNBREAKABLE, ILLEGAL),
}
"""By act and state: what approve, reject, call-off, break-glass and acknowledge lead to."""


WORDS = ("approve", "reject", "call-off", "break-glass", "acknowledge")
HOURS_25, HOURS_74 = 25 * 3_600_000, 74 * 3_600_000


class Proposed(NamedTuple):
    """A proposal, and the digest that was shown."""

    id: bytes
    digest: bytes


class Room:
    """Everybody who has a word, and proposals in every state."""

    def __init__(self, replica: RunningReplica, ends: ExitStack) -> None:
        self._replica = replica
        channels = {
            who: ends.enter_context(replica.as_(who)) for who in (OPERATOR, APPROVER, RESPONDER)
        }
        self._stubs = {
            who: approvals_pb2_grpc.ApprovalServiceStub(channel)
            for who, channel in channels.items()
        }
        self._admin = admin_pb2_grpc.AdminServiceStub(channels[RESPONDER])
        self._revocations = revocations_pb2_grpc.RevocationServiceStub(channels[OPERATOR])
        self._operator, self._responder = (
            People(channels[OPERATOR]),
            People(channels[RESPONDER]),
        )

    def state(self, proposal: Proposed) -> ProposalState:
        request = approvals_pb2.GetProposalRequest(id=proposal.id)
        told = self._stubs[OPERATOR].GetProposal(request, timeout=20)
        return ProposalState(told.proposal.state)

    def ask(self, verb: str, proposal: Proposed):
        """What it answered, or the reason of its refusal."""
        who, method, request = {
            "approve": (APPROVER, "Approve", approvals_pb2.ApproveRequest),
            "reject": (APPROVER, "Reject", approvals_pb2.RejectRequest),
            "call-off": (OPERATOR, "CallOff", approvals_pb2.CallOffRequest),
            "break-glass": (RESPONDER, "BreakGlass", approvals_pb2.BreakGlassRequest),
            "acknowledge": (APPROVER, "Acknowledge", approvals_pb2.AcknowledgeRequest),
        }[verb]
        asks = {"id": proposal.id}
        if verb in {"approve", "break-glass"}:
            asks["digest"] = proposal.digest
        if verb == "break-glass":
            asks["reason"] = approvals_pb2.GLASS_REASON_DRILL
        return asked(getattr(self._stubs[who], method), request(**asks))

    def lift(self) -> Proposed:
        """A grant is revoked, and that is to be lifted."""
        kind, target = admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt"
        self._admin.Revoke(admin_pb2.RevokeRequest(kind=kind, target=target), timeout=20)
        told = self._revocations.ProposeLift(
            revocations_pb2.ProposeLiftRequest(kind=kind, target=target), timeout=20
        )
        return Proposed(told.proposal_id, told.digest)

    def bring(self, act: str, state: ProposalState) -> Proposed:
        """A proposal of the act in the state."""
        if act == "destroy":
            return self._destruction(overtaken=state is Q.OVERTAKEN)
        proposal = self.lift()
        verbs = {Q.EXECUTED: "approve", Q.REJECTED: "reject", Q.CALLED_OFF: "call-off"}
        if state in verbs:
            self.ask(verbs[state], proposal)
        if state is Q.EXPIRED:
            look_later(self._replica, HOURS_74)
        return proposal

    def _destruction(self, *, overtaken: bool) -> Proposed:
        """It waits; or what it was made for was not as it was when the time was over."""
        version = self._operator.make().version.version
        told = self._operator.propose_destruction(version)
        proposal = Proposed(told.proposal_id, told.digest)
        self.ask("approve", proposal)
        if overtaken:
            self._responder.move("compromise", version)
            look_later(self._replica, HOURS_25)
        return proposal


def test_i7_every_verb_in_every_state_of_a_proposal(replica):
    """What is refused is in the log, with who asked, and changes nothing."""
    assert {state for _, state in PROPOSALS} == set(Q)
    with ExitStack() as ends:
        room = Room(replica, ends)
        for (act, state), outcomes in PROPOSALS.items():
            proposal, refused = room.bring(act, state), 0
            for verb, outcome in zip(WORDS, outcomes, strict=True):
                assert room.state(proposal) == state
                told = room.ask(verb, proposal)
                if isinstance(outcome, ProposalState):
                    assert room.state(proposal) == outcome, (act, state, verb)
                    proposal, refused = room.bring(act, state), 0
                    continue
                assert told == outcome, (act, state, verb)
                refused += 1
                found = refusals(replica, Act.PROPOSAL_MOVE_REFUSED, proposal.id.hex())
                assert found == refused, (act, state, verb)
            room.ask("call-off", proposal)  # else the next of the kind would be the same one
