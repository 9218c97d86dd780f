"""Changes of the policy: reviewed, made a version, and in force at once or proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.adapter.v1 import approvals_pb2, policy_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import approvals as rules
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.policy import Policy, Role
from capsign_adapter.decide.policy_change import Change, weakens
from capsign_adapter.decide.policy_diff import line_of
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError, decode
from capsign_adapter.decide.policy_strength import changes
from capsign_adapter.decide.policy_versions import (
    ENDED_WITH,
    file_identity,
    proposal_target,
    target_of,
)
from capsign_adapter.model.lifecycle import POLICY, PolicyEvent, PolicyState
from capsign_adapter.model.policies import PolicyVersionRow
from capsign_adapter.sign.approvals import Approvals
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.policy_in_force import draft_of
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.store.interfaces.policies import Policies
from capsign_adapter.store.interfaces.proposals import Proposals

ACT = approvals_pb2.PROPOSAL_ACT_POLICY

TOLD = 200
"""Most changes that a proposal tells; the others are counted."""

TOLD_BYTES = 12 * 1024
"""Most bytes of them."""

ORPHAN_MS = 60_000
"""How long a version may wait without a proposal: whoever makes both makes the version first."""


class PolicyStore(Policies, Proposals, Protocol):
    """Versions, and what waits for a second person."""


@dataclass(frozen=True, slots=True)
class Review:
    """A document beside the version in force."""

    base: int
    policy: Policy
    changes: list[Change]

    @property
    def weakens(self) -> bool:
        """Whether a second person has to agree."""
        return weakens(self.changes)


class Outcome(NamedTuple):
    """What became of a document. `proposal` is empty, and `epoch` above 0, if it is in force now;
    both are empty for the document that was in force already.
    """

    row: PolicyVersionRow
    review: Review
    proposal: bytes = b""
    epoch: int = 0


class PolicyVersions:
    """Of one replica. Any thread may call any method."""

    def __init__(
        self,
        store: PolicyStore,
        snapshots: Snapshots,
        epochs: EpochFollower,
        approvals: Approvals,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._epochs = epochs
        self._approvals = approvals
        self._clock = clock

    def propose(self, actor: str, document: bytes, base: int = 0) -> Outcome:
        """Make a document the next version: in force on every replica when this returns, or a
        proposal. The same document again finds the proposal that waits.

        Raises FailureError INPUT_MALFORMED for what is not a policy, ROLE_MISSING, OVERLOADED, and
        POLICY_STALE if `base` (0: whatever it is) is not in force any more. COMMIT_UNKNOWN says
        that it may not be in force on every replica yet.
        """
        snapshot = self._snapshots.refresh()
        standing = Standing(snapshot.policy, snapshot.revoked)
        rules.check_propose(ACT, actor, standing)
        if base and base != snapshot.policy_version:
            detail = f"Version {snapshot.policy_version} is in force by now, not {base}."
            raise FailureError(failures_pb2.REASON_POLICY_STALE, detail, field="base")
        review = reviewed(snapshot, document)
        known = self._known(review, snapshot.epoch)
        if known is not None:
            return known
        row = self._store.propose_policy(
            draft_of(review.policy, review.base, actor),
            lambda row: self._leaf(snapshot, Act.POLICY_PROPOSED, actor, row, 0),
            self._clock(),
        )
        alone = actor == file_identity(snapshot.policy.trust_domain)
        if at_once(snapshot.policy, review, standing.roles_of(actor), alone=alone):
            return self._applied(snapshot, row, actor, review)
        return self._proposed(snapshot, row, actor, review)

    def plan(self, document: bytes | None, version: int) -> tuple[Snapshot, Review]:
        """What a document, or the document of a version, would change. Raises FailureError
        INPUT_MALFORMED, NOT_FOUND.
        """
        snapshot = self._snapshots.refresh()
        if document is None:
            document = self.document(version)
        return snapshot, reviewed(snapshot, document)

    def document(self, version: int) -> bytes:
        """Raises FailureError NOT_FOUND."""
        found = self._store.policy_document(version)
        if found is None:
            detail = f"There is no version {version} of the policy."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="version")
        return found

    def look(self) -> None:
        """End the versions whose proposal has ended, or that never got one, and the proposals
        whose version was overtaken.
        """
        rows = self._store.policy_versions()
        self._overtake([row for row in rows if row.state is PolicyState.OVERTAKEN])
        self._end_waiting([row for row in rows if row.state == POLICY.initial])

    def _overtake(self, rows: Sequence[PolicyVersionRow]) -> None:
        targets = {proposal_target(row.version) for row in rows}
        for proposal in self._store.proposals(waiting=True) if targets else ():
            if proposal.act == ACT and proposal.target in targets:
                self._approvals.overtake(proposal)

    def _end_waiting(self, waiting: Sequence[PolicyVersionRow]) -> None:
        if not waiting:
            return
        proposals = {row.target: row for row in reversed(self._store.proposals()) if row.act == ACT}
        now = self._clock()
        for row in waiting:
            proposal = proposals.get(proposal_target(row.version))
            event = ENDED_WITH.get(proposal.state) if proposal is not None else None
            if proposal is None and now - row.proposed_ms > ORPHAN_MS:
                event = PolicyEvent.CALL_OFF
            if event is not None:
                by = proposal.decided_by if proposal is not None else ""
                self._end(row, event, by or row.proposer)

    def _known(self, review: Review, epoch: int) -> Outcome | None:
        """The same document, in force or waiting."""
        for row in self._store.policy_versions():
            if row.digest != review.policy.digest:
                continue
            if row.version == review.base:
                # again after COMMIT_UNKNOWN: it may not be in force on every replica
                self._epochs.enforce(epoch)
                return Outcome(row, review)
            if row.state == POLICY.initial and row.base == review.base:
                for proposal in self._store.proposals(waiting=True):
                    if proposal.act == ACT and proposal.target == proposal_target(row.version):
                        return Outcome(row, review, proposal.id)
        return None

    def _applied(
        self, snapshot: Snapshot, row: PolicyVersionRow, actor: str, review: Review
    ) -> Outcome:
        try:
            epoch, _ = self._store.apply_policy(
                row.version,
                actor,
                lambda row, epoch: self._leaf(snapshot, Act.POLICY_APPLIED, actor, row, epoch),
                self._clock(),
            )
        except FailureError:
            self._end(row, PolicyEvent.CALL_OFF, actor)
            raise
        self._epochs.enforce(epoch)
        logs.event("policy.applied", version=row.version, actor=actor)
        return Outcome(self._store.policy_version(row.version) or row, review, epoch=epoch)

    def _proposed(
        self, snapshot: Snapshot, row: PolicyVersionRow, actor: str, review: Review
    ) -> Outcome:
        try:
            proposal = self._approvals.propose(
                actor, ACT, proposal_target(row.version), payload_of(row, review)
            )
        except FailureError:
            self._end(row, PolicyEvent.CALL_OFF, actor)
            raise
        logs.event("policy.proposed", version=row.version, actor=actor)
        return Outcome(row, review, proposal.id)

    def _end(self, row: PolicyVersionRow, event: PolicyEvent, by: str) -> None:
        snapshot = self._snapshots.current
        try:
            self._store.end_policy(
                row.version,
                event,
                by,
                lambda ended: self._leaf(snapshot, Act.POLICY_ENDED, by, ended, 0),
                self._clock(),
            )
        except FailureError as error:
            if error.reason != failures_pb2.REASON_ILLEGAL_TRANSITION:
                raise  # else another replica was first

    def _leaf(
        self, snapshot: Snapshot, act: Act, actor: str, row: PolicyVersionRow, epoch: int
    ) -> bytes:
        target = target_of(row.version, row.digest)
        return leaf.admin(self._clock(), snapshot.policy.digest, act, actor, target, epoch)


def reviewed(snapshot: Snapshot, document: bytes) -> Review:
    """A document beside what is in force. Raises FailureError INPUT_MALFORMED."""
    try:
        policy = parse_policy(document)
    except PolicyError as error:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED, f"It is not a policy. {error}", field="document"
        ) from None
    if policy.trust_domain != snapshot.policy.trust_domain:
        detail = (
            "The trust domain of a deployment never changes: every certificate and grant names it. "
            "Make another deployment."
        )
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="document")
    found = changes(decode(snapshot.policy.document), decode(document))
    return Review(snapshot.policy_version, policy, found)


def at_once(policy: Policy, review: Review, roles: frozenset[Role], *, alone: bool = False) -> bool:
    """Whether it comes into force without a second person, by the policy in force. What strengthens
    takes something from somebody, so it is for operators.

    `alone`: it is the adapter's own file. Where the policy in force names no approver there is no
    second person, and whoever runs the adapter decides, as with the first document.
    """
    if alone and not any(Role.APPROVER in held for held in policy.roles.values()):
        return True
    return not review.weakens and policy.strengthen_at_once and Role.OPERATOR in roles


def payload_of(row: PolicyVersionRow, review: Review) -> bytes:
    """What a proposal says, bounded: the changes that weaken come first."""
    message = policy_pb2.PolicyProposal(
        version=row.version,
        digest=row.digest,
        base=row.base,
        change_count=len(review.changes),
    )
    size = 0
    for change in review.changes[:TOLD]:
        line = line_of(change)
        size += len(line) + 4
        if size > TOLD_BYTES:
            break
        message.changes.append(line)
    return message.SerializeToString(deterministic=True)
