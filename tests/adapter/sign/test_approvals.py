"""Two people, and whoever would do it alone: attacks on the second person's word."""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.decide import approvals as rules
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.model.lifecycle import ProposalState as State
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.policy_in_force import draft_of
from capsign_adapter.sign.refused_moves import RefusedMoves
from capsign_adapter.store.open import open_store
from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act, ProposedAct
from capsign_evidence.leaf_reader import Proposal, decode
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.adapter.v1 import approvals_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.drafts import NOW
from support.member import Member
from support.proposals import DESTROY, HOUR, LIFT, POLICY, Deed, done

OLGA, OTTO, RENE, PIA, PAUL, ANNA, DORA = (
    f"spiffe://capsign.test/people/{name}"
    for name in ("olga", "otto", "rene", "pia", "paul", "anna", "dora")
)
ROLES = {
    "operator": [OLGA, OTTO],
    "responder": [RENE],
    "approver": [PIA, PAUL, OTTO],
    "auditor": [ANNA],
    "developer": [DORA],
}
"""Otto has two of them."""

OUTAGE = pb.GLASS_REASON_OUTAGE


def policy_of(roles: dict[str, list[str]]):
    parts = "".join(
        f"  - {{role: {role}, identities: {identities}}}\n" for role, identities in roles.items()
    )
    text = f"version: 1\ntrust_domain: capsign.test\ntenants: [{{name: shop}}]\nroles:\n{parts}"
    return parse_policy(text.encode())


class Desk:
    """Approvals of one replica, with a clock that is told, over a deed that shows in the store."""

    def __init__(self, store, deed: Deed, roles=None) -> None:
        self.now = NOW
        self.store = store
        self.deed = deed
        self.member = Member(store)
        self.member.epochs.join()
        self.become(roles or ROLES)
        self.approvals = Approvals(
            self.store,
            self.member.snapshots,
            self.member.epochs,
            self.deed.executors(),
            RefusedMoves(store, lambda: bytes(32), Buckets(lambda: self.now), lambda: self.now),
            lambda: self.now,
        )

    def become(self, roles: dict[str, list[str]]) -> None:
        """Other roles are in force from now on."""
        policy, row = policy_of(roles), self.store.policy_in_force()
        draft = draft_of(policy, row.version if row else 0, OLGA)
        if row is None:
            self.store.first_policy(draft, lambda _: b"deed", NOW)
        else:
            row = self.store.propose_policy(draft, lambda _: b"deed", NOW)
            self.store.apply_policy(row.version, PIA, lambda *_: b"deed", NOW)
        self.member.epochs.look()

    def propose(self, who: str = OLGA, act: int = LIFT):
        return self.approvals.propose(who, act, "shop/orders", b"payload")

    def approve(self, who: str, row):
        return self.approvals.approve(who, row.id, row.digest).row

    def leaves(self) -> list[Proposal]:
        size = self.store.control().tree_size
        entries = [each for each in self.store.entries(0, size) if not each.startswith(b"deed")]
        return [decode(each) for each in entries]


@pytest.fixture
def deed():
    return Deed()


@pytest.fixture
def desk(tmp_path, deed):
    store = open_store(f"sqlite://{tmp_path}/state/store.db", create=True)
    yield Desk(store, deed)
    store.close()


def refused(reason, call, *arguments) -> str:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    assert caught.value.reason == reason
    return caught.value.detail


def test_two_people_and_the_log_says_who(desk):
    row = desk.propose()
    assert done(desk.store) == 0
    executed = desk.approve(PIA, row)
    assert executed.state == State.EXECUTED
    assert done(desk.store) == 1
    assert desk.deed.followed == [executed]
    assert [(each.act.name, each.actor) for each in desk.leaves()] == [
        ("PROPOSED", OLGA),
        ("APPROVED", PIA),
        ("PROPOSAL_EXECUTED", PIA),
    ]
    assert {each.what for each in desk.leaves()} == {
        leaf.Proposed(row.id, ProposedAct.REVOCATION_LIFT, "shop/orders", row.digest)
    }


def test_nobody_approves_what_he_proposed(desk):
    """Otto is operator and approver: one person under two roles is one person."""
    row = desk.propose(OTTO)
    refused(reasons.REASON_SAME_PERSON, desk.approve, OTTO, row)
    refused(reasons.REASON_SAME_PERSON, desk.approvals.reject, OTTO, row.id)
    assert done(desk.store) == 0
    assert desk.approve(PIA, row).state == State.EXECUTED


def test_who_has_the_wrong_role_does_neither(desk):
    for who in (PIA, ANNA, RENE):
        refused(reasons.REASON_ROLE_MISSING, desk.propose, who, DESTROY)
    row = desk.propose()
    for who in (OLGA, RENE, ANNA, DORA, "spiffe://capsign.test/ns/demo/sa/app"):
        refused(reasons.REASON_ROLE_MISSING, desk.approve, who, row)
    assert desk.propose(DORA, POLICY).state == State.PROPOSED


def test_an_approval_is_good_once(desk):
    row = desk.propose()
    desk.approve(PIA, row)
    refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approve, PIA, row)
    refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approve, PAUL, row)
    assert done(desk.store) == 1


def test_an_approval_of_one_proposal_is_none_of_another(desk, deed):
    """The digest of the first is played against the second, which has the same target."""
    first = desk.propose()
    desk.approvals.call_off(OLGA, first.id)
    deed.version = 2
    second = desk.propose()
    refused(reasons.REASON_PROPOSAL_CHANGED, desk.approvals.approve, PIA, second.id, first.digest)
    assert done(desk.store) == 0


def test_what_the_proposal_was_made_for_was_overtaken(desk, deed):
    """A proposal of version 2 upon version 1; somebody else's version came between."""
    row = desk.propose(OLGA, POLICY)
    deed.version = 2
    refused(reasons.REASON_PROPOSAL_CHANGED, desk.approve, PIA, row)
    assert done(desk.store) == 0
    again = desk.propose(OLGA, POLICY)
    assert again.id != row.id
    assert desk.approve(PIA, again).state == State.EXECUTED


def test_nobody_approves_what_has_expired(desk):
    row = desk.propose()
    desk.now = row.expires_ms
    said = refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approve, PIA, row)
    assert "expired" in said, "also before a replica has written that"
    desk.approvals.look()
    assert desk.store.proposal(row.id).state == State.EXPIRED
    assert desk.leaves()[-1].act is Act.PROPOSAL_EXPIRED
    refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approve, PIA, row)
    assert done(desk.store) == 0


def test_expiry_goes_by_the_clock_of_the_store_where_it_has_one(desk):
    """A replica whose clock is a week ahead would expire everybody's proposals."""
    row = desk.propose()
    told = NOW + 5
    desk.store.clock_ms = lambda: told
    desk.now = row.expires_ms + 7 * 24 * HOUR
    desk.approvals.look()
    assert desk.approve(PIA, row).decided_ms == told


def test_two_approve_at_once_and_it_is_done_once(tmp_path, deed):
    url = f"sqlite://{tmp_path}/state/store.db"
    desks = [Desk(open_store(url, create=True), deed) for _ in range(2)]
    row = desks[0].propose()
    together, outcomes = threading.Barrier(2), []

    def approve(desk, who) -> None:
        together.wait()
        try:
            outcomes.append(desk.approve(who, row).state)
        except FailureError as error:
            outcomes.append(error.row.name)

    # Each waits until the other has no older work left: both look after themselves, as replicas do.
    over = threading.Event()

    def looks(desk) -> None:
        while not over.wait(0.01):
            desk.member.epochs.look()

    watches = [threading.Thread(target=looks, args=(desk,)) for desk in desks]
    threads = [
        threading.Thread(target=approve, args=pair) for pair in zip(desks, (PIA, PAUL), strict=True)
    ]
    for thread in (*watches, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in watches:
        thread.join()
    assert sorted(map(str, outcomes)) == [str(State.EXECUTED.value), "ILLEGAL_TRANSITION"]
    assert done(desks[0].store) == 1
    for desk in desks:
        desk.store.close()


def test_a_role_that_was_taken_away_between_proposal_and_approval(desk):
    row = desk.propose()
    desk.become({**ROLES, "approver": [PAUL]})
    refused(reasons.REASON_ROLE_MISSING, desk.approve, PIA, row)
    desk.become({**ROLES, "operator": [OTTO]})
    said = refused(reasons.REASON_PROPOSAL_CHANGED, desk.approve, PIA, row)
    assert "Who proposed it has no role for it any more" in said
    assert done(desk.store) == 0


@pytest.mark.parametrize("who", [OLGA, PIA])
def test_whoever_was_revoked_by_name_decides_nothing(desk, who):
    """Their certificate is good for some minutes yet, and perhaps in other hands."""
    row = desk.propose()
    desk.store.revoke(
        admin_pb2.REVOCATION_KIND_WORKLOAD,
        who,
        lambda epoch: leaf.admin(NOW, bytes(32), Act.WORKLOAD_REVOKED, RENE, who, epoch),
        NOW,
    )
    with pytest.raises(FailureError):
        desk.approve(PIA, row)
    assert desk.store.proposal(row.id).state == State.PROPOSED


def test_a_role_is_taken_away_while_the_approval_is_on_its_way(desk):
    """Pia's roles are looked at, then she is revoked, then her approval is written: it is decided
    anew.
    """
    row, move = desk.propose(), desk.store.move_proposal

    def late(wanted, executors, entry):
        desk.store.move_proposal = move
        desk.store.revoke(admin_pb2.REVOCATION_KIND_WORKLOAD, PIA, lambda _: b"deed", NOW)
        return move(wanted, executors, entry)

    desk.store.move_proposal = late
    refused(reasons.REASON_ROLE_MISSING, desk.approve, PIA, row)
    assert desk.store.proposal(row.id).state == State.PROPOSED


def test_destruction_waits_and_can_be_called_off(desk):
    row = desk.propose(OLGA, DESTROY)
    approved = desk.approve(PIA, row)
    assert approved.state == State.APPROVED
    assert approved.not_before_ms == NOW + 24 * HOUR
    desk.now = approved.not_before_ms - 1
    desk.approvals.look()
    assert desk.approvals.call_off(RENE, row.id).row.state == State.CALLED_OFF
    desk.now += 1
    desk.approvals.look()
    assert done(desk.store) == 0


def test_killed_between_approval_and_execution(desk, deed, tmp_path):
    """The replica that took the approval is gone; another does what waits, and does it once."""
    approved = desk.approve(PIA, desk.propose(OLGA, DESTROY))
    other = Desk(open_store(f"sqlite://{tmp_path}/state/store.db"), deed)
    desk.member.membership.leave()
    other.now = approved.not_before_ms
    other.approvals.look()
    assert other.store.proposal(approved.id).state == State.EXECUTED
    last = other.leaves()[-1]
    assert (last.act, last.actor) == (
        Act.PROPOSAL_EXECUTED,
        "spiffe://capsign.test/adapter/approvals",
    )
    other.approvals.look()
    assert done(other.store) == 1
    other.store.close()


def test_no_adapter_was_there_for_longer_than_an_approval_is_good_for(desk):
    approved = desk.approve(PIA, desk.propose(OLGA, DESTROY))
    desk.now = approved.not_before_ms + (approved.expires_ms - approved.created_ms)
    desk.approvals.look()
    assert desk.store.proposal(approved.id).state == State.EXPIRED
    assert done(desk.store) == 0


@pytest.mark.parametrize("gone", ["operator", "approver"])
def test_a_role_that_was_taken_away_while_it_waited(desk, gone):
    approved = desk.approve(PIA, desk.propose(OLGA, DESTROY))
    desk.become({**ROLES, gone: [PAUL]})
    desk.now = approved.not_before_ms
    desk.approvals.look()
    assert desk.store.proposal(approved.id).state == State.OVERTAKEN
    assert done(desk.store) == 0


def test_what_it_was_made_for_changed_while_it_waited(desk, deed):
    approved = desk.approve(PIA, desk.propose(OLGA, DESTROY))
    deed.version = 2
    desk.now = approved.not_before_ms
    desk.approvals.look()
    assert desk.store.proposal(approved.id).state == State.OVERTAKEN
    assert done(desk.store) == 0


def test_what_fails_for_a_moment_is_done_at_the_next_look(desk, deed):
    approved = desk.approve(PIA, desk.propose(OLGA, DESTROY))
    desk.now = approved.not_before_ms
    deed.failure = FailureError(reasons.REASON_TOKEN_UNAVAILABLE, "The token is away.")
    refused(reasons.REASON_TOKEN_UNAVAILABLE, desk.approvals.look)
    deed.failure = None
    desk.approvals.look()
    assert desk.store.proposal(approved.id).state == State.EXECUTED


def test_glass_is_broken_by_one_and_loud_until_another_has_looked(desk):
    row = desk.propose(RENE)
    broken = desk.approvals.break_glass(RENE, row.id, row.digest, OUTAGE).row
    assert done(desk.store) == 1
    assert desk.approvals.broken() == [broken]
    refused(reasons.REASON_ROLE_MISSING, desk.approvals.acknowledge, RENE, row.id)
    refused(reasons.REASON_ROLE_MISSING, desk.approvals.acknowledge, OLGA, row.id)
    desk.approvals.acknowledge(ANNA, row.id)
    assert desk.approvals.broken() == []
    refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approvals.acknowledge, PIA, row.id)
    assert [(each.act.name, each.actor) for each in desk.leaves()] == [
        ("PROPOSED", RENE),
        ("BROKE_GLASS", RENE),
        ("PROPOSAL_MOVE_REFUSED", RENE),
        ("PROPOSAL_MOVE_REFUSED", OLGA),
        ("GLASS_ACKNOWLEDGED", ANNA),
        ("PROPOSAL_MOVE_REFUSED", PIA),
    ]
    told = [each.reason.name for each in desk.leaves() if isinstance(each, Proposal)]
    assert told == ["NONE", "OUTAGE", "OUTAGE"]


def test_what_is_not_ones_own_to_decide_is_refused_and_recorded(desk):
    """An approval by whoever proposed it, by somebody without the role, and of another digest than
    is shown left no trace anywhere.
    """
    desk.become({**ROLES, "approver": [PIA, OLGA]})
    row = desk.propose(OLGA)
    refused(reasons.REASON_SAME_PERSON, desk.approve, OLGA, row)
    refused(reasons.REASON_ROLE_MISSING, desk.approve, RENE, row)
    refused(reasons.REASON_PROPOSAL_CHANGED, desk.approvals.approve, PIA, row.id, bytes(32))
    _, *leaves = desk.leaves()
    assert [(each.act.name, each.actor, each.target) for each in leaves] == [
        ("PROPOSAL_MOVE_REFUSED", who, row.id.hex()) for who in (OLGA, RENE, PIA)
    ]


def test_who_broke_the_glass_does_not_acknowledge_it_in_another_role(desk):
    desk.become({**ROLES, "responder": [RENE, PIA]})
    row = desk.propose()
    desk.approvals.break_glass(PIA, row.id, row.digest, OUTAGE)
    refused(reasons.REASON_SAME_PERSON, desk.approvals.acknowledge, PIA, row.id)
    desk.approvals.acknowledge(PAUL, row.id)


def test_glass_is_broken_where_the_table_says_so_and_by_whom(desk):
    row = desk.propose()
    for who in (OLGA, PIA, ANNA):
        refused(
            reasons.REASON_ROLE_MISSING, desk.approvals.break_glass, who, row.id, row.digest, OUTAGE
        )
    for act in (DESTROY, POLICY):
        other = desk.propose(OLGA, act)
        refused(
            reasons.REASON_APPROVAL_REQUIRED,
            desk.approvals.break_glass,
            RENE,
            other.id,
            other.digest,
            OUTAGE,
        )
    assert done(desk.store) == 0
    refused(reasons.REASON_ILLEGAL_TRANSITION, desk.approvals.acknowledge, PIA, row.id)


@pytest.mark.parametrize("act", sorted(rules.RULES))
def test_who_proposes_an_act_and_who_approves_it_are_others(act):
    rule = rules.RULES[act]
    assert rule.proposing
    assert rule.approving
    assert not rule.proposing & rule.approving
    assert not rule.breaking & rules.ACKNOWLEDGING


def test_every_act_has_a_row():
    """An act of the wire that nobody wrote a row for would need nobody's approval."""
    assert set(rules.RULES) == {number for number in pb.ProposalAct.values() if number}
