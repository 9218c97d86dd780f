"""I7 through the services, over real TLS, on each store: what people ask of a version of the policy
in every state is done as the table says, or refused and recorded.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from capsign_adapter.model.lifecycle import PolicyState, ProposalState
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import approvals_pb2, approvals_pb2_grpc, policy_pb2, policy_pb2_grpc
from capsign_wire.packed import pack
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APPROVER, OPERATOR, POLICY, AdapterRig
from support.replica import RunningReplica
from support.state_cells import asked, look_later, refusals

V, Q = PolicyState, ProposalState
ILLEGAL = reasons.REASON_ILLEGAL_TRANSITION
POLICIES: dict[PolicyState, tuple[PolicyState | int, ...]] = {
    V.PROPOSED: (V.IN_FORCE, V.REJECTED, V.CALLED_OFF),
    V.IN_FORCE: (ILLEGAL,) * 3,
    V.SUPERSEDED: (ILLEGAL,) * 3,
    V.REJECTED: (ILLEGAL,) * 3,
    V.EXPIRED: (ILLEGAL,) * 3,
    V.CALLED_OFF: (ILLEGAL,) * 3,
    V.OVERTAKEN: (ILLEGAL,) * 3,
}
"""By state: what approve, reject and call-off lead to. Written out by hand, apart from the code."""

VERBS = ("approve", "reject", "call-off")
HOURS_74 = 74 * 3_600_000


@pytest.fixture
def replica(tmp_path, place):
    running = RunningReplica(
        tmp_path, AdapterRig(tmp_path / "first", POLICY, place.url, place.password_file)
    )
    yield running
    running.stop()


class Reviewers:
    """An operator who proposes versions of the policy, each weaker than the one in force, and an
    approver.
    """

    def __init__(self, replica: RunningReplica, ends: ExitStack) -> None:
        self._replica, self._skew_ms = replica, 30_000
        operator, approver = (ends.enter_context(replica.as_(who)) for who in (OPERATOR, APPROVER))
        self._policies = policy_pb2_grpc.PolicyServiceStub(operator)
        self._operator = approvals_pb2_grpc.ApprovalServiceStub(operator)
        self._approver = approvals_pb2_grpc.ApprovalServiceStub(approver)

    def propose(self) -> policy_pb2.ProposePolicyResponse:
        self._skew_ms += 1
        document = POLICY.replace("clock_skew: 30s", f"clock_skew: {self._skew_ms}ms")
        request = policy_pb2.ProposePolicyRequest(document=pack(document.encode()))
        told = self._policies.ProposePolicy(request, timeout=20)
        assert told.proposal_id
        return told

    def state(self, version: int) -> PolicyState:
        request = policy_pb2.GetPolicyRequest(version=version)
        return PolicyState(self._policies.GetPolicy(request, timeout=20).version.state)

    def in_force(self) -> int:
        request = policy_pb2.GetPolicyRequest()
        return self._policies.GetPolicy(request, timeout=20).version.version

    def proposal(self, proposal_id: bytes) -> approvals_pb2.Proposal:
        request = approvals_pb2.GetProposalRequest(id=proposal_id)
        return self._operator.GetProposal(request, timeout=20).proposal

    def ask(self, verb: str, proposal_id: bytes):
        """What it answered, or the reason of its refusal; then what follows from it by itself."""
        if verb == "approve":
            digest = self.proposal(proposal_id).digest
            approval = approvals_pb2.ApproveRequest(id=proposal_id, digest=digest)
            told = asked(self._approver.Approve, approval)
        elif verb == "reject":
            told = asked(self._approver.Reject, approvals_pb2.RejectRequest(id=proposal_id))
        else:
            told = asked(self._operator.CallOff, approvals_pb2.CallOffRequest(id=proposal_id))
        self._follow()
        return told

    def bring(self, state: PolicyState) -> policy_pb2.ProposePolicyResponse:
        """A version in that state."""
        made = self.propose()
        if state in {V.IN_FORCE, V.SUPERSEDED}:
            self.ask("approve", made.proposal_id)
        if state in {V.SUPERSEDED, V.OVERTAKEN}:
            self.ask("approve", self.propose().proposal_id)
        if state in {V.REJECTED, V.CALLED_OFF}:
            self.ask("reject" if state is V.REJECTED else "call-off", made.proposal_id)
        if state is V.EXPIRED:
            look_later(self._replica, HOURS_74)
            self._follow()
        assert self.state(made.version.version) is state
        return made

    def _follow(self) -> None:
        self._replica.replica.listeners.policies.versions.look()


def test_i7_every_verb_in_every_state_of_a_policy(replica):
    """What is refused is in the log, with who asked, and changes nothing."""
    assert set(POLICIES) == set(V)
    with ExitStack() as ends:
        people = Reviewers(replica, ends)
        for state, outcomes in POLICIES.items():
            made, refused = people.bring(state), 0
            version = made.version.version
            for verb, outcome in zip(VERBS, outcomes, strict=True):
                before = people.in_force()
                told = people.ask(verb, made.proposal_id)
                if isinstance(outcome, PolicyState):
                    assert people.state(version) is outcome, (state, verb)
                    assert people.in_force() == (version if outcome is V.IN_FORCE else before)
                    made, refused = people.bring(state), 0
                    version = made.version.version
                    continue
                refused += 1
                assert told == outcome, (state, verb)
                assert (people.state(version), people.in_force()) == (state, before), verb
                found = refusals(replica, Act.PROPOSAL_MOVE_REFUSED, made.proposal_id.hex())
                assert found == refused, (state, verb)
            people.ask("call-off", made.proposal_id)  # few may wait at a time


def test_a_proposal_does_not_outlive_the_version_that_was_overtaken(replica):
    """Nobody can approve it any more, so it does not wait for somebody in every list."""
    with ExitStack() as ends:
        people = Reviewers(replica, ends)
        made = people.bring(V.OVERTAKEN)
        assert Q(people.proposal(made.proposal_id).state) is Q.OVERTAKEN
