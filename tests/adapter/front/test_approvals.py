"""ApprovalService over real TLS."""

from __future__ import annotations

import os

import grpc
import pytest
from capsign_wire.adapter.v1 import approvals_pb2 as pb
from capsign_wire.adapter.v1 import approvals_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, AUDITOR, STRANGER

ID, DIGEST = os.urandom(16), os.urandom(32)
CALLS = {
    "ListProposals": pb.ListProposalsRequest(),
    "GetProposal": pb.GetProposalRequest(id=ID),
    "Approve": pb.ApproveRequest(id=ID, digest=DIGEST),
    "Reject": pb.RejectRequest(id=ID),
    "CallOff": pb.CallOffRequest(id=ID),
    "BreakGlass": pb.BreakGlassRequest(id=ID, digest=DIGEST, reason=pb.GLASS_REASON_DRILL),
    "Acknowledge": pb.AcknowledgeRequest(id=ID),
}


def reason_of(replica, who: str, method: str) -> int:
    with replica.as_(who) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, method)(CALLS[method], timeout=10)
    return FailureError.from_rpc(caught.value).reason


def test_every_method_is_tried():
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == set(CALLS)


@pytest.mark.parametrize("method", ["ListProposals", "GetProposal"])
def test_who_has_no_role_learns_nothing(replica, method):
    assert reason_of(replica, APP, method) == reasons.REASON_ROLE_MISSING
    assert reason_of(replica, STRANGER, method) in {
        reasons.REASON_ROLE_MISSING,
        reasons.REASON_IDENTITY_UNKNOWN,
    }


@pytest.mark.parametrize("method", sorted(set(CALLS) - {"ListProposals"}))
def test_there_is_no_such_proposal(replica, method):
    assert reason_of(replica, AUDITOR, method) == reasons.REASON_NOT_FOUND


def test_there_are_none_yet(replica):
    with replica.as_(AUDITOR) as channel:
        stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
        assert not stub.ListProposals(CALLS["ListProposals"], timeout=10).proposals
