"""What needs two people, and who they are: one table, and the rules that hold for every row of it.

No identity acts on both sides of one act: who proposed cannot approve, who broke the glass cannot
acknowledge. Roles are those of the policy in force at the moment of the decision; an identity that
was revoked by name has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.adapter.v1 import approvals_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import Policy, Role
from capsign_adapter.decide.policy_versions import file_identity
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.model.lifecycle import PROPOSAL, ProposalEvent, ProposalState, move
from capsign_adapter.model.proposals import ProposalRow

MAX_OPEN = 256
"""Proposals that wait, of everybody."""

MAX_OPEN_OF_ONE = 32
"""Proposals that wait, of one proposer."""

LOOKING = frozenset(Role)
"""Who may read proposals."""

ACKNOWLEDGING = frozenset({Role.APPROVER, Role.AUDITOR})
"""Who may acknowledge that somebody else acted alone."""

CALLING_OFF = frozenset({Role.OPERATOR, Role.RESPONDER, Role.APPROVER})
"""Who may call off what others proposed: that nothing happens is always safe."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One act: who proposes it, who approves it, how long it waits between approval and execution,
    and who may break the glass; nobody where that is empty.
    """

    proposing: frozenset[Role]
    approving: frozenset[Role]
    waits_ms: Callable[[Policy], int]
    breaking: frozenset[Role] = frozenset()


def _at_once(_: Policy) -> int:
    return 0


RULES: Mapping[int, Rule] = MappingProxyType(
    {
        # Not to be broken: with a policy of one's own making one could acknowledge it as another.
        pb.PROPOSAL_ACT_POLICY: Rule(
            frozenset({Role.OPERATOR, Role.DEVELOPER}), frozenset({Role.APPROVER}), _at_once
        ),
        # Not to be broken: it cannot be taken back.
        pb.PROPOSAL_ACT_KEY_DESTROY: Rule(
            frozenset({Role.OPERATOR}),
            frozenset({Role.APPROVER}),
            lambda policy: policy.approvals.destroy_wait_ms,
        ),
        # Not to be broken: it cannot be taken back.
        pb.PROPOSAL_ACT_TENANT_ERASE: Rule(
            frozenset({Role.OPERATOR}),
            frozenset({Role.APPROVER}),
            lambda policy: policy.approvals.destroy_wait_ms,
        ),
        # To be broken: it ends an outage, and another revocation takes it back within a second.
        pb.PROPOSAL_ACT_REVOCATION_LIFT: Rule(
            frozenset({Role.OPERATOR, Role.RESPONDER}),
            frozenset({Role.APPROVER}),
            _at_once,
            breaking=frozenset({Role.RESPONDER}),
        ),
    }
)
"""Every act that needs two people. What is not in it, one may do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who may do what at one moment: the policy in force, and what was revoked."""

    policy: Policy
    revoked: RevocationIndex

    def roles_of(self, identity: str) -> frozenset[Role]:
        """Returns the roles of an identity; none for one that was revoked by name. What a replica's
        file proposes is an operator's: whoever writes it runs the adapter.
        """
        if identity == file_identity(self.policy.trust_domain):
            return frozenset({Role.OPERATOR})
        if self.revoked.has(admin_pb2.REVOCATION_KIND_WORKLOAD, identity):
            return frozenset()
        return self.policy.roles_of(identity)

    def demand(self, identity: str, roles: frozenset[Role]) -> None:
        """Raise FailureError ROLE_MISSING if the identity has none of these roles."""
        if not self.roles_of(identity) & roles:
            if self.policy.roles_of(identity) & roles:
                detail = f"{identity} was revoked, and decides nothing until two people lift it."
                raise FailureError(failures_pb2.REASON_ROLE_MISSING, detail)
            names = ", ".join(sorted(role.value for role in roles))
            raise FailureError(failures_pb2.REASON_ROLE_MISSING, f"This is for the roles {names}.")


def rule_of(act: int) -> Rule:
    """Returns the row of an act. Raises FailureError ILLEGAL_TRANSITION for one that this release
    does not know.
    """
    rule = RULES.get(act)
    if rule is None:
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION,
            "This replica does not know that act; a newer release proposed it.",
        )
    return rule


def check_propose(act: int, identity: str, standing: Standing) -> Rule:
    """Returns the rule of an act that somebody may propose. Raises FailureError ROLE_MISSING."""
    rule = rule_of(act)
    standing.demand(identity, rule.proposing)
    return rule


def check_count(identity: str, waiting: Mapping[str, int]) -> None:
    """Raise FailureError OVERLOADED if too many proposals wait already. `waiting` counts them by
    proposer.
    """
    if waiting.get(identity, 0) >= MAX_OPEN_OF_ONE or sum(waiting.values()) >= MAX_OPEN:
        sentence = (
            f"{MAX_OPEN_OF_ONE} proposals of one identity may wait, and {MAX_OPEN} in all. Have "
            "some decided or called off."
        )
        raise FailureError(failures_pb2.REASON_OVERLOADED, sentence)


def check_shown(row: ProposalRow, digest: bytes) -> None:
    """Raise FailureError PROPOSAL_CHANGED if another digest was shown to who decides."""
    if row.digest != digest:
        raise FailureError(
            failures_pb2.REASON_PROPOSAL_CHANGED, "The digest is not that of this proposal."
        )


def check_approve(row: ProposalRow, identity: str, now_ms: int, standing: Standing) -> None:
    """Whether this identity may approve it now. Raises FailureError ROLE_MISSING, SAME_PERSON,
    ILLEGAL_TRANSITION, and PROPOSAL_CHANGED if who proposed it may not any more.
    """
    rule = rule_of(row.act)
    standing.demand(identity, rule.approving)
    move(PROPOSAL, state_at(row, now_ms), ProposalEvent.APPROVE)
    _demand_other(row, identity)
    _demand_standing(row.proposer, rule.proposing, standing, "Who proposed it")


def check_reject(row: ProposalRow, identity: str, now_ms: int, standing: Standing) -> None:
    """As `check_approve`, for the one who refuses it."""
    standing.demand(identity, rule_of(row.act).approving)
    move(PROPOSAL, state_at(row, now_ms), ProposalEvent.REJECT)
    _demand_other(row, identity)


def check_call_off(row: ProposalRow, identity: str, now_ms: int, standing: Standing) -> None:
    """Who proposed it may, whatever their roles are by now, and so may CALLING_OFF. Raises
    FailureError ROLE_MISSING, ILLEGAL_TRANSITION.
    """
    if identity != row.proposer:
        standing.demand(identity, CALLING_OFF)
    move(PROPOSAL, state_at(row, now_ms), ProposalEvent.CALL_OFF)


def check_break(row: ProposalRow, identity: str, now_ms: int, standing: Standing) -> None:
    """Whether this identity may act alone, its own proposal or another's. Raises FailureError
    APPROVAL_REQUIRED if nobody may, ROLE_MISSING, ILLEGAL_TRANSITION.
    """
    rule = rule_of(row.act)
    if not rule.breaking:
        raise FailureError(
            failures_pb2.REASON_APPROVAL_REQUIRED, "There is no breaking the glass for this act."
        )
    standing.demand(identity, rule.breaking)
    move(PROPOSAL, state_at(row, now_ms), ProposalEvent.BREAK_GLASS)


def check_acknowledge(row: ProposalRow, identity: str, standing: Standing) -> None:
    """Raises FailureError ROLE_MISSING, SAME_PERSON, and ILLEGAL_TRANSITION if there is nothing to
    acknowledge.
    """
    standing.demand(identity, ACKNOWLEDGING)
    if not row.glass:
        raise FailureError(
            failures_pb2.REASON_ILLEGAL_TRANSITION, "Nobody broke the glass for this proposal."
        )
    if row.acknowledged_by:
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, "It was acknowledged already.")
    _demand_other(row, identity)


def check_execute(row: ProposalRow, standing: Standing) -> None:
    """Whether what was approved some time ago may still happen: both people have their roles yet.
    Raises FailureError PROPOSAL_CHANGED.
    """
    rule = rule_of(row.act)
    _demand_standing(row.proposer, rule.proposing, standing, "Who proposed it")
    _demand_standing(row.decided_by, rule.approving, standing, "Who approved it")


def state_at(row: ProposalRow, now_ms: int) -> ProposalState:
    """Returns its state at that time: what was not decided in time is expired, whether or not
    somebody has written that yet.
    """
    due = due_event(row, now_ms)
    return move(PROPOSAL, row.state, due) if due is ProposalEvent.EXPIRE else row.state


def due_event(row: ProposalRow, now_ms: int) -> ProposalEvent | None:
    """Returns what is to happen to it by itself at that time; None if it is an act that this
    release does not know.

    It can be approved before it expires. What is approved happens when its waiting period is over;
    if no adapter was there to do it, as long after that as there was time to approve it.
    """
    if row.act not in RULES:
        return None
    if row.state == ProposalState.PROPOSED:
        return ProposalEvent.EXPIRE if now_ms >= row.expires_ms else None
    if row.state != ProposalState.APPROVED or now_ms < row.not_before_ms:
        return None
    late_ms = now_ms - row.not_before_ms
    return (
        ProposalEvent.EXPIRE
        if late_ms >= row.expires_ms - row.created_ms
        else ProposalEvent.EXECUTE
    )


def _demand_other(row: ProposalRow, identity: str) -> None:
    if identity in {row.proposer, row.decided_by}:
        raise FailureError(
            failures_pb2.REASON_SAME_PERSON,
            "You proposed it." if identity == row.proposer else "You decided it.",
        )


def _demand_standing(identity: str, roles: frozenset[Role], standing: Standing, who: str) -> None:
    if not standing.roles_of(identity) & roles:
        raise FailureError(
            failures_pb2.REASON_PROPOSAL_CHANGED, f"{who} has no role for it any more."
        )
