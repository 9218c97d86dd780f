"""RolloutService over real TLS."""

from __future__ import annotations

import grpc
import pytest
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc, rollouts_pb2_grpc
from capsign_wire.adapter.v1 import rollouts_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.adapter_rig import APP, AUDITOR, OPERATOR, STRANGER

KEY = {"tenant": "demo", "key": "orders"}
CALLS = {
    "StartRollout": pb.StartRolloutRequest(**KEY),
    "ListRollouts": pb.ListRolloutsRequest(),
    "GetRollout": pb.GetRolloutRequest(**KEY),
    "PauseRollout": pb.PauseRolloutRequest(**KEY),
    "ResumeRollout": pb.ResumeRolloutRequest(**KEY),
    "PromoteRollout": pb.PromoteRolloutRequest(**KEY),
    "AbortRollout": pb.AbortRolloutRequest(**KEY),
    "UndoRollout": pb.UndoRolloutRequest(**KEY),
    "ReportVerifications": pb.ReportVerificationsRequest(
        **KEY, version=1, algorithm=algorithms_pb2.ALGORITHM_ED25519, verified=3
    ),
}
LOOKING = {"ListRollouts", "GetRollout"}


def reason_of(replica, who: str, method: str, request=None) -> int:
    with replica.as_(who) as channel:
        stub = rollouts_pb2_grpc.RolloutServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, method)(request or CALLS[method], timeout=10)
    return FailureError.from_rpc(caught.value).reason


def waiting(channel: grpc.Channel) -> tuple[int, int]:
    """How many rollouts the adapter's status names, and how many of them wait for a person."""
    status = admin_pb2_grpc.AdminServiceStub(channel).GetStatus(
        admin_pb2.GetStatusRequest(), timeout=10
    )
    return status.rollouts, status.rollouts_waiting


def test_every_method_is_tried():
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == set(CALLS)


def test_who_has_no_role_learns_nothing(replica):
    for method in CALLS:
        assert reason_of(replica, APP, method) == reasons.REASON_ROLE_MISSING
        assert reason_of(replica, STRANGER, method) in {
            reasons.REASON_ROLE_MISSING,
            reasons.REASON_IDENTITY_UNKNOWN,
        }


def test_who_looks_changes_nothing(replica):
    for method in set(CALLS) - LOOKING - {"ReportVerifications"}:
        assert reason_of(replica, AUDITOR, method) == reasons.REASON_ROLE_MISSING


def test_who_has_no_role_for_it_is_refused_and_recorded(replica):
    """Who tried to begin or to end a rollout left no trace."""
    asked = set(CALLS) - LOOKING - {"ReportVerifications"}
    for method in asked:
        assert reason_of(replica, AUDITOR, method) == reasons.REASON_ROLE_MISSING
    found = [decode(entry) for entry in replica.rig.entries()]
    refused = [
        one for one in found if isinstance(one, Admin) and one.act is Act.ROLLOUT_MOVE_REFUSED
    ]
    told = [(one.actor, one.target) for one in refused]
    assert told == [(AUDITOR, "demo/orders")] * len(asked)


def test_where_there_is_none(replica):
    for method in set(CALLS) - {"StartRollout", "ListRollouts", "ReportVerifications"}:
        assert reason_of(replica, OPERATOR, method) == reasons.REASON_NOT_FOUND
    absent = pb.StartRolloutRequest(tenant="demo", key="absent")
    assert reason_of(replica, OPERATOR, "StartRollout", absent) == reasons.REASON_NOT_FOUND
    unknown = pb.ReportVerificationsRequest(
        **KEY, version=9, algorithm=algorithms_pb2.ALGORITHM_ED25519
    )
    assert reason_of(replica, AUDITOR, "ReportVerifications", unknown) == reasons.REASON_NOT_FOUND


def test_one_is_started_shown_paused_and_aborted(replica):
    with replica.as_(OPERATOR) as channel:
        stub = rollouts_pb2_grpc.RolloutServiceStub(channel)
        started = stub.StartRollout(CALLS["StartRollout"], timeout=10).rollout
        assert (started.number, started.after.version, started.started_by) == (1, 2, OPERATOR)
        assert waiting(channel) == (1, 0)
        assert stub.PauseRollout(CALLS["PauseRollout"], timeout=10).rollout.pace == (
            pb.ROLLOUT_PACE_HELD
        )
        assert waiting(channel) == (1, 1)
        seen = replica.metrics.snapshot()["capsign.rollouts"]
        assert seen == {("running",): 0, ("held",): 1, ("inconclusive",): 0}
        found = stub.GetRollout(CALLS["GetRollout"], timeout=10)
        assert found.rollout.newest == 1
        assert [stage.percent for stage in found.rollout.plan if stage.percent] == [1, 10, 50]
        assert found.rollout.workloads == 2
        readiness = found.rollout.readiness
        assert (readiness.required, readiness.fetched, readiness.missing) == (False, 0, 0)
        assert found.steps[0].act == "started"
        assert found.steps[-1].actor == OPERATOR
        aborted = stub.AbortRollout(CALLS["AbortRollout"], timeout=10).rollout
        assert aborted.stage == pb.ROLLOUT_STAGE_ABORTED
        assert not aborted.HasField("readiness")
        assert waiting(channel) == (0, 0)
        listed = stub.ListRollouts(CALLS["ListRollouts"], timeout=10).rollouts
        assert [each.id for each in listed] == [started.id]
        stub.ReportVerifications(CALLS["ReportVerifications"], timeout=10)
