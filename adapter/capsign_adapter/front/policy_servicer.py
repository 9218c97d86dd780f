"""PolicyService: versions of the policy, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from capsign_wire.adapter.v1 import policy_pb2 as pb
from capsign_wire.adapter.v1 import policy_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.packed import pack, unpack
from capsign_wire.types.v1 import failures_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from capsign_adapter.decide.approvals import Standing
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Role
from capsign_adapter.decide.policy_change import Change, Strength
from capsign_adapter.decide.policy_diff import summary
from capsign_adapter.decide.policy_lint import lint
from capsign_adapter.decide.policy_plan import Touched, touched, unserved
from capsign_adapter.decide.policy_shape import MAX_BYTES
from capsign_adapter.decide.policy_versions import file_identity
from capsign_adapter.front.guard import guarded
from capsign_adapter.model.policies import PolicyVersionRow
from capsign_adapter.sign.policy_versions import PolicyVersions, at_once
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.interfaces.policies import Policies

MOST_CHANGES, MOST_TOUCHED, MOST_WORKLOADS, MOST_ADVICE = 1024, 256, 64, 256
"""What one answer has at most: the bounds of its fields."""

STRENGTHS = {
    Strength.SAME: pb.POLICY_STRENGTH_SAME,
    Strength.STRONGER: pb.POLICY_STRENGTH_STRONGER,
    Strength.WEAKER: pb.POLICY_STRENGTH_WEAKER,
    Strength.BROADER: pb.POLICY_STRENGTH_BROADER,
}


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Acts for people. `file_digest` is of the file that this replica has as its policy; empty if
    it cannot be read.
    """

    def __init__(
        self,
        versions: PolicyVersions,
        store: Policies,
        snapshots: Snapshots,
        file_digest: Callable[[], bytes],
    ) -> None:
        self._versions = versions
        self._store = store
        self._snapshots = snapshots
        self._file_digest = file_digest

    @guarded
    def ProposePolicy(
        self, peer: Peer, request: pb.ProposePolicyRequest
    ) -> pb.ProposePolicyResponse:
        """In force everywhere when it answers, or a proposal that waits."""
        if peer.spiffe_id == file_identity(self._snapshots.policy().trust_domain):
            detail = "This identity is the adapter's own."
            raise FailureError(failures_pb2.REASON_ROLE_MISSING, detail)
        document = unpack(request.document, MAX_BYTES)
        outcome = self._versions.propose(peer.spiffe_id, document, request.base)
        review = outcome.review
        return pb.ProposePolicyResponse(
            version=_version(outcome.row),
            changes=_changes(review.changes),
            change_count=len(review.changes),
            weakens=review.weakens,
            proposal_id=outcome.proposal,
            epoch=outcome.epoch,
        )

    @guarded
    def PlanPolicy(self, peer: Peer, request: pb.PlanPolicyRequest) -> pb.PlanPolicyResponse:
        """What it would change, and whom that touches."""
        roles = self._roles(peer)
        document = unpack(request.document, MAX_BYTES) if request.document else None
        snapshot, review = self._versions.plan(document, request.version)
        found = touched(snapshot.policy, review.policy)
        known = set(lint(snapshot.policy))
        advice = [str(finding) for finding in lint(review.policy) if finding not in known]
        advice += [
            f"key {name}: It has no version yet, and nothing can be signed with it. "
            "`capsign keys create` makes one."
            for name in unserved(review.policy, set(snapshot.versions))
        ]
        return pb.PlanPolicyResponse(
            base=review.base,
            changes=_changes(review.changes),
            change_count=len(review.changes),
            weakens=review.weakens,
            at_once=at_once(snapshot.policy, review, roles),
            touched=[_touched(each) for each in found[:MOST_TOUCHED]],
            touched_count=len(found),
            advice=[_ascii(line) for line in advice[:MOST_ADVICE]],
            summary=summary(review.changes),
        )

    @guarded
    def GetPolicy(self, peer: Peer, request: pb.GetPolicyRequest) -> pb.GetPolicyResponse:
        """A version, or the one in force."""
        self._roles(peer)
        version = request.version or self._snapshots.refresh().policy_version
        row = self._store.policy_version(version)
        if row is None:
            detail = f"There is no version {version} of the policy."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="version")
        return pb.GetPolicyResponse(
            version=_version(row), document=pack(self._versions.document(version))
        )

    @guarded
    def ListPolicies(self, peer: Peer, request: pb.ListPoliciesRequest) -> pb.ListPoliciesResponse:
        """Newest first, and whether the file of this replica says something else."""
        self._roles(peer)
        digest = self._file_digest()
        return pb.ListPoliciesResponse(
            versions=[_version(row) for row in self._store.policy_versions(request.before)],
            file_digest=digest,
            file_differs=digest != self._snapshots.refresh().policy.digest,
        )

    def _roles(self, peer: Peer) -> frozenset[Role]:
        """Raises FailureError ROLE_MISSING for who has none."""
        snapshot = self._snapshots.refresh()
        standing = Standing(snapshot.policy, snapshot.revoked)
        standing.demand(peer.spiffe_id, frozenset(Role))
        return standing.roles_of(peer.spiffe_id)


def _changes(found: Sequence[Change]) -> list[pb.PolicyChange]:
    return [
        pb.PolicyChange(
            strength=STRENGTHS[change.strength],
            subject=change.subject[:255],
            words=_ascii(change.words),
        )
        for change in found[:MOST_CHANGES]
    ]


def _touched(each: Touched) -> pb.TouchedGrant:
    return pb.TouchedGrant(
        grant=each.grant,
        workloads=each.workloads[:MOST_WORKLOADS],
        workload_count=len(each.workloads),
        words=each.words,
    )


def _ascii(line: str) -> str:
    """As much of a line as a field takes."""
    return line if len(line) <= 512 else f"{line[:509]}..."


def _version(row: PolicyVersionRow) -> pb.PolicyVersion:
    return pb.PolicyVersion(
        version=row.version,
        digest=row.digest,
        base=row.base,
        state=pb.PolicyState.ValueType(row.state),
        proposer=row.proposer,
        proposed_at=_time(row.proposed_ms),
        decided_by=row.decided_by,
        decided_at=_time(row.decided_ms),
        until=_time(row.until_ms),
    )


def _time(ms: int) -> Timestamp | None:
    if not ms:
        return None
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made
