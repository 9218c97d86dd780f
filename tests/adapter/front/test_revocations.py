"""What is revoked, and how it is lifted, over real TLS."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, Proposal, decode
from capsign_wire.adapter.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    approvals_pb2,
    approvals_pb2_grpc,
    capability_pb2,
    capability_pb2_grpc,
    evidence_pb2,
    inventory_pb2,
    keys_pb2,
    policy_pb2,
    revocations_pb2_grpc,
    rollouts_pb2,
    signing_pb2,
    signing_pb2_grpc,
)
from capsign_wire.adapter.v1 import revocations_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types_pb2
from support.adapter_rig import APP, APPROVER, AUDITOR, OPERATOR, OTHER, RESPONDER, STRANGER

KEY, VERSION, TENANT, EVERYTHING, HANDLE, WORKLOAD = (
    admin_pb2.RevocationKind.Value(f"REVOCATION_KIND_{name}")
    for name in ("KEY", "KEY_VERSION", "TENANT", "EVERYTHING", "HANDLE", "WORKLOAD")
)
CALLS = {
    "PreviewRevocation": pb.PreviewRevocationRequest(kind=KEY, target="demo/orders"),
    "ListRevocations": pb.ListRevocationsRequest(),
    "ProposeLift": pb.ProposeLiftRequest(kind=KEY, target="demo/orders"),
}


class People:
    """What each of them says, each with a certificate of their own."""

    def __init__(self, replica) -> None:
        self._replica = replica

    def ask(self, who: str, method: str, request):
        with self._replica.as_(who) as channel:
            stub = revocations_pb2_grpc.RevocationServiceStub(channel)
            return getattr(stub, method)(request, timeout=10)

    def revoke(self, kind: int, target: str) -> None:
        with self._replica.as_(RESPONDER) as channel:
            request = admin_pb2.RevokeRequest(kind=kind, target=target)
            admin_pb2_grpc.AdminServiceStub(channel).Revoke(request, timeout=20)

    def lift(self, kind: int, target: str) -> approvals_pb2.Proposal:
        told = self.ask(OPERATOR, "ProposeLift", pb.ProposeLiftRequest(kind=kind, target=target))
        with self._replica.as_(APPROVER) as channel:
            stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
            request = approvals_pb2.ApproveRequest(id=told.proposal_id, digest=told.digest)
            return stub.Approve(request, timeout=20).proposal

    def status(self) -> admin_pb2.GetStatusResponse:
        with self._replica.as_(AUDITOR) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)
            return stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=10)


class Agent:
    """What an agent of APP does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._capability = capability_pb2_grpc.CapabilityServiceStub(channel)
        self._signing = signing_pb2_grpc.SigningServiceStub(channel)

    def handles(self) -> dict[str, bytes]:
        request = capability_pb2.IssueHandlesRequest()
        answer = self._capability.IssueHandles(request, timeout=10)
        return {one.grant: one.token for one in answer.handles}

    def sign(self, token: bytes, intent: bytes = b"") -> types_pb2.SignedItem:
        group = signing_pb2.SignGroup(
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            context=types_pb2.ContextSuffix(role="issuer"),
            items=[signing_pb2.SignItem(intent_id=intent or new_intent_id(), input=b"message")],
        )
        request = signing_pb2.SignRequest(batch_id=1, handles=[token], groups=[group])
        (answer,) = self._signing.Sign(iter([request]), timeout=10)
        return answer.groups[0].items[0]

    def resolve(self, token: bytes, intent: bytes):
        request = signing_pb2.ResolveIntentRequest(handle=token, intent_id=intent)
        return self._signing.ResolveIntent(request, timeout=10)


@pytest.fixture
def people(replica):
    return People(replica)


@pytest.fixture
def agent(replica):
    with replica.as_(APP) as channel:
        yield Agent(channel)


def reason_of(call, *arguments) -> int:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return FailureError.from_rpc(caught.value).reason


@pytest.mark.parametrize("method", sorted(CALLS))
def test_who_has_no_role_learns_nothing(people, method):
    assert reason_of(people.ask, APP, method, CALLS[method]) == reasons.REASON_ROLE_MISSING
    assert reason_of(people.ask, STRANGER, method, CALLS[method]) in {
        reasons.REASON_ROLE_MISSING,
        reasons.REASON_IDENTITY_UNKNOWN,
    }


@pytest.mark.parametrize("who", [AUDITOR, APPROVER])
def test_who_only_looks_proposes_no_lift(people, who):
    people.revoke(KEY, "demo/orders")
    request = CALLS["ProposeLift"]
    assert reason_of(people.ask, who, "ProposeLift", request) == reasons.REASON_ROLE_MISSING


def test_a_preview_says_who_stops_and_what_lifts_it(people):
    found = people.ask(APPROVER, "PreviewRevocation", CALLS["PreviewRevocation"])
    assert (sorted(found.workloads), found.workload_count) == (sorted([APP, OTHER]), 2)
    assert found.handle_life_ms == 900_000
    assert "two people" in found.lifted_by
    request = pb.PreviewRevocationRequest(kind=KEY, target="demo/nobodys")
    told = reason_of(people.ask, APPROVER, "PreviewRevocation", request)
    assert told == reasons.REASON_NOT_FOUND, "as the revocation would be"
    request = pb.PreviewRevocationRequest(kind=KEY, target="no slash")
    assert (
        reason_of(people.ask, APPROVER, "PreviewRevocation", request)
        == reasons.REASON_INPUT_MALFORMED
    )


def test_everything_is_revoked_and_after_a_lift_all_is_well(replica, people, agent):
    """It bricked a deployment for good: whatever was made afterwards was revoked too."""
    token = agent.handles()["orders-jwt"]
    people.revoke(EVERYTHING, "*")
    assert agent.handles() == {}
    assert agent.sign(token).failure.reason == reasons.REASON_HANDLE_REVOKED
    (stands,) = people.ask(AUDITOR, "ListRevocations", CALLS["ListRevocations"]).revocations
    assert (stands.kind, stands.target, stands.revoked_by) == (EVERYTHING, "*", RESPONDER)

    told = people.ask(OPERATOR, "ProposeLift", pb.ProposeLiftRequest(kind=EVERYTHING, target="*"))
    assert agent.sign(token).failure.reason == reasons.REASON_HANDLE_REVOKED, "one is not enough"
    with replica.as_(APPROVER) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        shown = stub.GetProposal(approvals_pb2.GetProposalRequest(id=told.proposal_id), timeout=10)
        assert shown.words[0].startswith("Everything, which is revoked, may be used again")
        request = approvals_pb2.ApproveRequest(id=told.proposal_id, digest=shown.proposal.digest)
        stub.Approve(request, timeout=20)
    assert agent.sign(token).signatures
    assert agent.sign(agent.handles()["orders-jwt"]).signatures
    assert not people.ask(AUDITOR, "ListRevocations", CALLS["ListRevocations"]).revocations
    everything = pb.ListRevocationsRequest(all=True)
    (gone,) = people.ask(AUDITOR, "ListRevocations", everything).revocations
    assert gone.lifted_epoch

    entries = [decode(entry) for entry in replica.rig.entries()]
    acts = [(entry.act, entry.actor) for entry in entries if isinstance(entry, Admin | Proposal)]
    assert acts[-5:] == [
        (Act.EVERYTHING_REVOKED, RESPONDER),
        (Act.PROPOSED, OPERATOR),
        (Act.APPROVED, APPROVER),
        (Act.REVOCATION_LIFTED, APPROVER),
        (Act.PROPOSAL_EXECUTED, APPROVER),
    ]


def test_what_is_revoked_again_meanwhile_is_not_lifted(replica, people):
    """Somebody found more reason while the approver was reading."""
    people.revoke(KEY, "demo/orders")
    told = people.ask(OPERATOR, "ProposeLift", CALLS["ProposeLift"])
    people.revoke(KEY, "demo/orders")
    with replica.as_(APPROVER) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        request = approvals_pb2.ApproveRequest(id=told.proposal_id, digest=told.digest)
        assert reason_of(stub.Approve, request) == reasons.REASON_PROPOSAL_CHANGED
    assert people.lift(KEY, "demo/orders").state == approvals_pb2.PROPOSAL_STATE_EXECUTED


def test_what_is_wider_stays_revoked(people, agent):
    token = agent.handles()["orders-jwt"]
    people.revoke(KEY, "demo/orders")
    people.revoke(TENANT, "demo")
    people.lift(KEY, "demo/orders")
    assert agent.sign(token).failure.reason == reasons.REASON_HANDLE_REVOKED
    people.lift(TENANT, "demo")
    assert agent.sign(token).signatures


def test_what_is_not_revoked_is_not_lifted_and_a_handle_never(people):
    assert (
        reason_of(people.ask, OPERATOR, "ProposeLift", CALLS["ProposeLift"])
        == reasons.REASON_NOT_FOUND
    )
    people.revoke(HANDLE, "00" * 16)
    request = pb.ProposeLiftRequest(kind=HANDLE, target="00" * 16)
    assert reason_of(people.ask, OPERATOR, "ProposeLift", request) == reasons.REASON_INPUT_MALFORMED


def test_a_version_is_revoked_and_what_it_signed_before_is_not_released(people, agent):
    """The answer was lost; the same intent comes again after the version was revoked (I6)."""
    token, intent = agent.handles()["orders-jwt"], new_intent_id()
    assert agent.sign(token, intent).signatures
    people.revoke(VERSION, "demo/orders/1")
    refused = agent.sign(token).failure
    assert refused.reason == reasons.REASON_HANDLE_REVOKED
    assert "This version of the key was revoked" in refused.message
    again = agent.sign(token, intent)
    assert not again.signatures
    assert again.failure.reason == reasons.REASON_COMMIT_UNKNOWN
    assert reason_of(agent.resolve, token, intent) == reasons.REASON_COMMIT_UNKNOWN
    people.lift(VERSION, "demo/orders/1")
    assert agent.sign(token, intent).signatures
    assert agent.resolve(token, intent).done.items


def test_a_version_that_does_not_exist_is_not_revoked(people):
    assert reason_of(people.revoke, VERSION, "demo/orders/9") == reasons.REASON_NOT_FOUND


def test_one_responder_breaks_the_glass_and_the_status_says_so(replica, people, agent):
    token = agent.handles()["orders-jwt"]
    people.revoke(KEY, "demo/orders")
    told = people.ask(RESPONDER, "ProposeLift", CALLS["ProposeLift"])
    with replica.as_(RESPONDER) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        request = approvals_pb2.BreakGlassRequest(
            id=told.proposal_id, digest=told.digest, reason=approvals_pb2.GLASS_REASON_OUTAGE
        )
        stub.BreakGlass(request, timeout=20)
    assert agent.sign(token).signatures
    assert people.status().broken_glass == 1
    with replica.as_(AUDITOR) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        stub.Acknowledge(approvals_pb2.AcknowledgeRequest(id=told.proposal_id), timeout=20)
    assert people.status().broken_glass == 0


ACTS: dict[str, dict[str, Any]] = {
    "AdminService": {
        "Revoke": admin_pb2.RevokeRequest(kind=KEY, target="demo/orders"),
        "ListKeys": admin_pb2.ListKeysRequest(),
        "GetStatus": admin_pb2.GetStatusRequest(),
    },
    "RevocationService": CALLS,
    "RolloutService": {
        "StartRollout": rollouts_pb2.StartRolloutRequest(tenant="demo", key="orders"),
        "ListRollouts": rollouts_pb2.ListRolloutsRequest(),
        "AbortRollout": rollouts_pb2.AbortRolloutRequest(tenant="demo", key="orders"),
    },
    "InventoryService": {
        "ListIncidents": inventory_pb2.ListIncidentsRequest(),
        "GetInventory": inventory_pb2.GetInventoryRequest(),
    },
    "KeyService": {"CreateKey": keys_pb2.CreateKeyRequest(tenant="demo", key="orders")},
    "PolicyService": {"ListPolicies": policy_pb2.ListPoliciesRequest()},
    "ApprovalService": {"ListProposals": approvals_pb2.ListProposalsRequest()},
    "EvidenceService": {
        "GetEntries": evidence_pb2.GetEntriesRequest(width=1),
        "GetBatches": evidence_pb2.GetBatchesRequest(),
        "GetSummaries": evidence_pb2.GetSummariesRequest(),
    },
}


@pytest.mark.parametrize(
    ("service", "method"), [(name, each) for name, some in ACTS.items() for each in some]
)
def test_a_person_who_was_revoked_decides_nothing_any_more_and_reads_nothing(
    replica, people, service, method
):
    """A revoked operator revoked everything, began rollouts and read the log, until the
    certificate ended: only keys, policy and approvals looked at revocations.
    """
    people.revoke(WORKLOAD, OPERATOR)
    request = ACTS[service][method]
    with replica.as_(OPERATOR) as channel:
        call = channel.unary_unary(
            f"/capsign.adapter.v1.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=bytes,
        )
        assert reason_of(lambda: call(request, timeout=10)) == reasons.REASON_ROLE_MISSING
