"""Erasing a tenant over real TLS: who may propose it and see it."""

from __future__ import annotations

import grpc
import pytest
from capsign_wire.adapter.v1 import tenants_pb2 as pb
from capsign_wire.adapter.v1 import tenants_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, APPROVER, AUDITOR, OPERATOR, RESPONDER

CALLS = {
    "EraseTenant": pb.EraseTenantRequest(tenant="demo"),
    "ListErasures": pb.ListErasuresRequest(),
}
MAY = {
    "EraseTenant": {OPERATOR},
    "ListErasures": {OPERATOR, RESPONDER, AUDITOR, APPROVER},
}


def reason_of(replica, who: str, method: str) -> int:
    """0 if it is answered."""
    with replica.as_(who) as channel:
        try:
            getattr(tenants_pb2_grpc.TenantServiceStub(channel), method)(CALLS[method], timeout=10)
        except grpc.RpcError as error:
            failure = FailureError.from_rpc(error)
            if failure is None:
                raise
            return failure.reason
    return 0


@pytest.mark.parametrize("method", CALLS)
def test_who_has_no_role_learns_nothing(replica, method):
    assert reason_of(replica, APP, method) == reasons.REASON_ROLE_MISSING


@pytest.mark.parametrize("method", CALLS)
def test_who_may(replica, method):
    people = {OPERATOR, RESPONDER, AUDITOR, APPROVER}
    refused = {
        who for who in people if reason_of(replica, who, method) == reasons.REASON_ROLE_MISSING
    }
    assert refused == people - MAY[method]
