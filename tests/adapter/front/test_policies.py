"""PolicyService over real TLS, with what two people decide of it."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest
from capsign_adapter.keys import labels
from capsign_adapter.sign.policy_file import PolicyFile
from capsign_adapter.sign.policy_versions import PolicyVersions
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.adapter.v1 import approvals_pb2, approvals_pb2_grpc, policy_pb2_grpc
from capsign_wire.adapter.v1 import policy_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.packed import pack, unpack
from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, AUDITOR, OPERATOR, OTHER, POLICY, STRANGER, AdapterRig
from support.replica import RunningReplica

APPROVER = "spiffe://capsign.test/approver/pia"
DEVELOPER = "spiffe://capsign.test/developer/dora"
PEOPLE = POLICY.replace(
    "roles:\n",
    f'roles:\n  - {{role: approver, identities: ["{APPROVER}"]}}\n'
    f'  - {{role: developer, identities: ["{DEVELOPER}"]}}\n',
)
ALONE = "".join(line for line in POLICY.splitlines(True) if "role: approver" not in line)
"""It names nobody who approves."""
STRONGER = PEOPLE.replace("clock_skew: 30s", "clock_skew: 20s")
WEAKER = PEOPLE.replace("clock_skew: 30s", "clock_skew: 40s")
CALLS = {
    "ProposePolicy": pb.ProposePolicyRequest(document=pack(WEAKER.encode())),
    "PlanPolicy": pb.PlanPolicyRequest(document=pack(WEAKER.encode())),
    "GetPolicy": pb.GetPolicyRequest(),
    "ListPolicies": pb.ListPoliciesRequest(),
}


@pytest.fixture
def replica(tmp_path):
    rig = AdapterRig(tmp_path / "store", PEOPLE)
    running = RunningReplica(tmp_path, rig)
    yield running
    running.stop()


def call(replica, who: str, method: str, request=None):
    with replica.as_(who) as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        return getattr(stub, method)(request or CALLS[method], timeout=20)


def propose(replica, document: str, who: str = OPERATOR, base: int = 0):
    request = pb.ProposePolicyRequest(document=pack(document.encode()), base=base)
    return call(replica, who, "ProposePolicy", request)


def decide(replica, method: str, proposal_id: bytes, who: str = APPROVER):
    with replica.as_(who) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        asked = approvals_pb2.GetProposalRequest(id=proposal_id)
        shown = stub.GetProposal(asked, timeout=20)
        if method == "Approve":
            stub.Approve(
                approvals_pb2.ApproveRequest(id=proposal_id, digest=shown.proposal.digest),
                timeout=20,
            )
        else:
            stub.Reject(approvals_pb2.RejectRequest(id=proposal_id), timeout=20)
        return list(shown.words)


def refused(reason: int, work, *arguments) -> FailureError:
    with pytest.raises(grpc.RpcError) as caught:
        work(*arguments)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    assert failure.reason == reason, failure.detail
    return failure


def in_force(replica) -> int:
    return call(replica, AUDITOR, "GetPolicy").version.version


def acts(replica) -> list[tuple[Act, str, str]]:
    entries = [entry for entry in map(decode, replica.rig.entries()) if isinstance(entry, Admin)]
    return [
        (Act(entry.act), entry.actor, entry.target.partition("/")[0])
        for entry in entries
        if 20 <= entry.act <= 24
    ]


@pytest.mark.parametrize("method", CALLS)
def test_who_has_no_role_learns_nothing(replica, method):
    refused(reasons.REASON_ROLE_MISSING, call, replica, APP, method)
    refused(reasons.REASON_IDENTITY_UNKNOWN, call, replica, STRANGER, method)


def test_an_auditor_looks_and_does_not_propose(replica):
    refused(reasons.REASON_ROLE_MISSING, call, replica, AUDITOR, "ProposePolicy")
    got = call(replica, AUDITOR, "GetPolicy")
    assert unpack(got.document, 1 << 20) == PEOPLE.encode()
    assert got.version.version == 1


def test_what_weakens_nothing_is_in_force_at_once(replica):
    answer = propose(replica, STRONGER)
    assert not answer.weakens
    assert answer.epoch
    assert answer.version.state == pb.POLICY_STATE_IN_FORCE
    assert in_force(replica) == 2
    assert replica.replica.state.snapshots.policy().limits.clock_skew_ms == 20_000
    assert acts(replica)[1:] == [
        (Act.POLICY_PROPOSED, OPERATOR, "2"),
        (Act.POLICY_APPLIED, OPERATOR, "2"),
    ]
    again = propose(replica, STRONGER)
    assert (again.version.version, again.change_count, again.proposal_id) == (2, 0, b"")


def test_what_weakens_waits_for_an_approver_who_reads_what_it_is(replica):
    answer = propose(replica, WEAKER)
    assert answer.weakens
    assert answer.proposal_id
    assert not answer.epoch
    assert in_force(replica) == 1
    again = propose(replica, WEAKER)
    assert (again.version.version, again.proposal_id) == (2, answer.proposal_id)
    words = decide(replica, "Approve", answer.proposal_id)
    assert words[0].startswith("Version 2 of the policy comes into force in place of version 1")
    assert words[1] == "weaker    limits: the clock skew that is forgiven from 30s to 40s"
    assert in_force(replica) == 2
    assert replica.replica.state.snapshots.policy().limits.clock_skew_ms == 40_000
    assert acts(replica)[1:] == [
        (Act.POLICY_PROPOSED, OPERATOR, "2"),
        (Act.POLICY_APPLIED, APPROVER, "2"),
    ]


def test_nobody_approves_what_he_proposed(replica):
    both = PEOPLE.replace(f'["{APPROVER}"]', f'["{APPROVER}", "{OPERATOR}"]')
    decide(replica, "Approve", propose(replica, both).proposal_id)
    waiting = propose(replica, both.replace("clock_skew: 30s", "clock_skew: 40s"))
    refused(reasons.REASON_SAME_PERSON, decide, replica, "Approve", waiting.proposal_id, OPERATOR)


def test_a_developer_proposes_and_never_acts_alone(replica):
    """What strengthens takes something from somebody: the tenants next door, for one."""
    answer = propose(replica, STRONGER, DEVELOPER)
    assert not answer.weakens
    assert answer.proposal_id
    assert in_force(replica) == 1


def test_where_policy_says_so_two_people_decide_what_strengthens_too(replica):
    strict = PEOPLE + "changes: {strengthening: approved}\n"
    assert propose(replica, strict).epoch
    answer = propose(replica, strict.replace("clock_skew: 30s", "clock_skew: 20s"))
    assert answer.proposal_id
    assert in_force(replica) == 2


def test_a_version_that_was_rejected_never_comes_into_force(replica):
    answer = propose(replica, WEAKER)
    decide(replica, "Reject", answer.proposal_id)
    replica.replica.listeners.policies.look()
    listed = call(replica, AUDITOR, "ListPolicies").versions
    assert [row.state for row in listed] == [pb.POLICY_STATE_REJECTED, pb.POLICY_STATE_IN_FORCE]
    assert acts(replica)[-1] == (Act.POLICY_ENDED, APPROVER, "2")
    refused(reasons.REASON_ILLEGAL_TRANSITION, decide, replica, "Approve", answer.proposal_id)


def test_an_approval_of_what_was_overtaken_changes_nothing(replica):
    """It was read against version 1, and version 3 is in force by now. A replica ends the proposal
    within seconds; who approves it before that is refused as well.
    """
    waiting = propose(replica, WEAKER)
    assert propose(replica, STRONGER).epoch
    with pytest.raises(grpc.RpcError) as caught:
        decide(replica, "Approve", waiting.proposal_id)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None
    assert failure.row.name in {"PROPOSAL_CHANGED", "ILLEGAL_TRANSITION"}
    assert in_force(replica) == 3
    refused(reasons.REASON_POLICY_STALE, propose, replica, WEAKER, OPERATOR, 1)


def test_the_way_back_from_what_strengthened_weakens(replica):
    """I10: an older document is compared as any other."""
    assert propose(replica, STRONGER).epoch
    answer = propose(replica, PEOPLE)
    assert answer.weakens
    assert answer.version.version == 3
    assert in_force(replica) == 2


def test_a_replayed_approval_does_not_bring_a_weaker_policy_back(replica):
    """I10: it was good once. What was strengthened since is not weakened by it again."""
    waiting = propose(replica, WEAKER)
    decide(replica, "Approve", waiting.proposal_id)
    assert propose(replica, STRONGER).epoch
    assert in_force(replica) == 3
    refused(reasons.REASON_ILLEGAL_TRANSITION, decide, replica, "Approve", waiting.proposal_id)
    assert in_force(replica) == 3


def test_a_policy_that_is_rolled_back_lets_nothing_weaker_sign(replica):
    """I10: an old document waits for an approver, and handles from its time are good for no more
    than the policy in force.
    """
    rig, es256 = replica.rig, algorithms_pb2.ALGORITHM_ES256
    handle = rig.handle()
    (item,) = rig.sign(bytes(32), algorithm=es256, handle=handle)
    assert item.signatures
    allowed = "algorithms: [Ed25519, ES256, HS256, ML-DSA-65]\n    protocols"
    assert allowed in PEOPLE
    narrow = PEOPLE.replace(allowed, "algorithms: [Ed25519, ML-DSA-65]\n    protocols", 1)
    assert propose(replica, narrow).epoch
    assert propose(replica, PEOPLE).weakens
    (item,) = rig.sign(bytes(32), algorithm=es256, handle=handle)
    assert item.failure.reason == reasons.REASON_ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize(
    "document",
    ["version: 1", PEOPLE.replace("capsign.test", "another.test"), PEOPLE.replace("15m", "1s")],
)
def test_what_is_no_policy_of_this_deployment_is_refused(replica, document):
    refused(reasons.REASON_INPUT_MALFORMED, propose, replica, document)
    assert in_force(replica) == 1


def test_a_plan_says_whom_it_touches_and_changes_nothing(replica):
    document = PEOPLE.replace(f'workloads: ["{OTHER}"]', f'workloads: ["{STRANGER}"]')
    document = document.replace(
        "keys:\n", "keys:\n  - {tenant: demo, name: new, kind: derived, algorithms: [ES256]}\n", 1
    )
    empty = refused(
        reasons.REASON_INPUT_MALFORMED,
        call,
        replica,
        AUDITOR,
        "PlanPolicy",
        pb.PlanPolicyRequest(document=pack(b"")),
    )
    assert "The document is empty." in empty.detail
    request = pb.PlanPolicyRequest(document=pack(document.encode()))
    plan = call(replica, AUDITOR, "PlanPolicy", request)
    assert plan.weakens
    assert plan.summary == (
        "3 changes, 2 of which weaken or broaden: somebody else has to approve."
    )
    assert not plan.at_once
    assert [(each.grant, list(each.workloads), each.words) for each in plan.touched] == [
        ("others", [OTHER], "their handles are refused"),
        ("others", [STRANGER], "they get a handle when they next renew theirs"),
    ]
    unwise, unserved = plan.advice  # of the change: what was unwise before is not told again
    assert unwise.startswith("key demo/new: No grant uses it.")
    assert unserved.startswith("key demo/new: It has no version yet")
    assert in_force(replica) == 1
    assert len(call(replica, AUDITOR, "ListPolicies").versions) == 1


# The file.


@pytest.fixture
def file(replica, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(PEOPLE)
    state = replica.replica.state
    versions = replica.replica.listeners.policies.versions
    made = PolicyFile(path, state.store, state.snapshots, versions)
    made.look()
    made.path = path
    return made


def changed(file, document: str) -> None:
    file.path.write_text(document)
    file.look()


def test_a_file_that_strengthens_is_in_force_when_it_changes(replica, file):
    assert not file.differs
    changed(file, STRONGER)
    assert in_force(replica) == 2
    assert not file.differs


def test_a_file_that_weakens_is_proposed_and_differs_until_it_is_approved(replica, file):
    changed(file, WEAKER)
    assert in_force(replica) == 1
    assert file.differs
    for _ in range(3):
        file.look()
    assert [act for act, *_ in acts(replica)][1:] == [Act.POLICY_PROPOSED]
    with replica.as_(APPROVER) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        (waiting,) = stub.ListProposals(approvals_pb2.ListProposalsRequest(), timeout=20).proposals
    decide(replica, "Approve", waiting.id)
    file.look()
    assert not file.differs


def test_where_nobody_could_approve_the_file_decides_until_it_names_somebody(tmp_path):
    """The sample of the chart names no approver. What weakens would wait for ever, and whoever
    writes the file runs the adapter; an operator with a certificate only does not.
    """
    replica = RunningReplica(tmp_path, AdapterRig(tmp_path / "store", ALONE))
    try:
        state = replica.replica.state
        versions = replica.replica.listeners.policies.versions
        looser = ALONE.replace("clock_skew: 30s", "clock_skew: 40s")
        assert propose(replica, looser).proposal_id
        path = tmp_path / "policy.yaml"
        path.write_text(ALONE)
        file = PolicyFile(path, state.store, state.snapshots, versions)
        file.look()
        for document, version in ((PEOPLE, 3), (PEOPLE.replace("30s", "50s"), 3)):
            path.write_text(document)
            file.look()
            assert in_force(replica) == version
        assert file.differs
    finally:
        replica.stop()


def test_a_file_that_was_overtaken_is_told_and_not_proposed_again(replica, file):
    """An operator applied another document; the file still has the old one. To propose that again
    would take back what was done.
    """
    decide(replica, "Approve", propose(replica, WEAKER).proposal_id)
    for _ in range(3):
        file.look()
    assert in_force(replica) == 2
    assert file.differs
    assert len(call(replica, AUDITOR, "ListPolicies").versions) == 2
    assert file.differs


def test_a_replica_whose_file_comes_late_takes_nothing_back(replica, file, tmp_path):
    """Both files change from the first document to STRONGER and on to WEAKER, one of them late."""
    state, versions = replica.replica.state, replica.replica.listeners.policies.versions
    late = PolicyFile(tmp_path / "late.yaml", state.store, state.snapshots, versions)
    late.path = tmp_path / "late.yaml"
    changed(late, PEOPLE)
    changed(file, STRONGER)
    changed(file, WEAKER)
    before = len(call(replica, AUDITOR, "ListPolicies").versions)
    changed(late, STRONGER)
    changed(late, WEAKER)
    assert len(call(replica, AUDITOR, "ListPolicies").versions) == before
    assert in_force(replica) == 2


def test_a_file_that_is_no_policy_changes_nothing(replica, file, capsys):
    changed(file, "version: 1\n")
    assert in_force(replica) == 1
    assert file.differs
    assert "policy.file_refused" in capsys.readouterr().err


def test_a_file_that_is_gone_differs(replica, file):
    file.path.unlink()
    file.look()
    assert file.differs
    assert in_force(replica) == 1


def test_nobody_with_a_certificate_is_the_file(replica):
    identity = "spiffe://capsign.test/adapter/policy-file"
    refused(reasons.REASON_IDENTITY_UNKNOWN, call, replica, identity, "ProposePolicy")
    document = PEOPLE.replace(f'["{AUDITOR}"]', f'["{AUDITOR}", "{identity}"]')
    decide(replica, "Approve", propose(replica, document).proposal_id)
    refused(reasons.REASON_ROLE_MISSING, call, replica, identity, "ProposePolicy")


def test_once_it_is_approved_no_replica_decides_by_the_version_before(replica, tmp_path):
    """I6 for policy: another replica of the same store, which is busy with nothing else, and looks
    at the epoch only now and then.
    """
    (tmp_path / "beside").mkdir()
    beside = RunningReplica(tmp_path / "beside", replica.rig.beside(), authority=replica.authority)
    try:
        answer = propose(replica, PEOPLE.replace(f'["{OTHER}"]', f'["{STRANGER}"]'))
        decide(replica, "Approve", answer.proposal_id)
        assert beside.replica.state.snapshots.current.policy_version == 2
        assert in_force(beside) == 2
        assert not beside.replica.state.snapshots.policy().grants_of(OTHER)
    finally:
        beside.stop()


def test_a_tenant_that_is_new_gets_its_secret_and_one_that_is_gone_keeps_it(replica):
    document = PEOPLE.replace("[{name: demo}]", "[{name: demo}, {name: shop}]")
    decide(replica, "Approve", propose(replica, document).proposal_id)
    replica.replica.listeners.policies.look()
    assert labels.pepper("shop") in replica.rig.token.labels()
    assert propose(replica, PEOPLE).epoch
    replica.replica.listeners.policies.look()
    assert labels.pepper("shop") in replica.rig.token.labels()


class Failing:
    """The store fails once, while the replicas are waited for."""

    def __init__(self) -> None:
        self.waited: list[int] = []

    def enforce(self, epoch: int) -> None:
        self.waited.append(epoch)
        if len(self.waited) == 1:
            raise FailureError(reasons.REASON_COMMIT_UNKNOWN, "The store fails.")


def test_the_same_document_again_is_in_force_everywhere_when_it_answers(replica):
    """The first time the store failed once the version was in force: COMMIT_UNKNOWN. Done again it
    waits for the replicas as the first time would have.
    """
    state, epochs = replica.replica.state, Failing()
    approvals = replica.replica.listeners.approvals
    versions = PolicyVersions(state.store, state.snapshots, cast(Any, epochs), approvals)
    with pytest.raises(FailureError):
        versions.propose(OPERATOR, STRONGER.encode())
    assert versions.propose(OPERATOR, STRONGER.encode()).row.version == 2
    assert epochs.waited == [state.store.control().revocation_epoch] * 2
