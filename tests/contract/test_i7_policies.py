"""I7 through the services, over real TLS, on each store: what people ask of a version of the policy
in every state is done as the table says, or refused and recorded.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from capsign_adapter.model.lifecycle import PolicyState, ProposalState
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import policy_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import POLICY, AdapterRig
from support.policy_calls import Reviewers
from support.replica import RunningReplica
from support.state_cells import look_later, refusals

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


class Versions(Reviewers):
    """Versions of the policy in every state."""

    def next(self) -> policy_pb2.ProposePolicyResponse:
        """Proposes a version that is weaker than the one in force."""
        self._skew_ms += 1
        told = self.propose(POLICY.replace("clock_skew: 30s", f"clock_skew: {self._skew_ms}ms"))
        assert told.proposal_id
        return told

    def bring(self, state: PolicyState) -> policy_pb2.ProposePolicyResponse:
        """A version in that state."""
        made = self.next()
        if state in {V.IN_FORCE, V.SUPERSEDED}:
            self.ask("approve", made.proposal_id)
        if state in {V.SUPERSEDED, V.OVERTAKEN}:
            self.ask("approve", self.next().proposal_id)
        if state in {V.REJECTED, V.CALLED_OFF}:
            self.ask("reject" if state is V.REJECTED else "call-off", made.proposal_id)
        if state is V.EXPIRED:
            look_later(self.replica, HOURS_74)
            self.follow()
        assert self.state(made.version.version) is state
        return made

    _skew_ms = 30_000


def test_i7_every_verb_in_every_state_of_a_policy(replica):
    """What is refused is in the log, with who asked, and changes nothing."""
    assert set(POLICIES) == set(V)
    with ExitStack() as ends:
        people = Versions(replica, ends)
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
        people = Versions(replica, ends)
        made = people.bring(V.OVERTAKEN)
        assert Q(people.proposal(made.proposal_id).state) is Q.OVERTAKEN
