"""InventoryService over real TLS: what there is, and what differs."""

from __future__ import annotations

import grpc
import pytest
from capsign_adapter.front.inventory_messages import PAGE_BYTES, page
from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc, keys_pb2, keys_pb2_grpc
from capsign_wire.adapter.v1 import inventory_pb2 as pb
from capsign_wire.adapter.v1 import inventory_pb2_grpc as pb_grpc
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from support.adapter_rig import APP, APPROVER, AUDITOR, OPERATOR, RESPONDER
from support.replica import RunningReplica

STRANGER = "capsign/demo/stranger/1"


@pytest.fixture
def replica(tmp_path, rig):
    running = RunningReplica(tmp_path, rig)
    yield running
    running.stop()


def ask(replica, who: str, method: str, request):
    with replica.as_(who) as channel:
        return getattr(pb_grpc.InventoryServiceStub(channel), method)(request, timeout=20)


def drift(replica, who: str = AUDITOR, look: bool = True) -> pb.ListDriftResponse:
    return ask(replica, who, "ListDrift", pb.ListDriftRequest(look=look))


def test_an_object_of_somebody_else_is_there_until_it_is_gone(replica):
    watch = replica.replica.drift.watch
    assert list(drift(replica).differences) == []
    replica.rig.token.generate_secret(STRANGER)
    watch.looked_ms = 0
    answer = drift(replica)
    (found,) = answer.differences
    assert (found.kind, found.subject) == (pb.DRIFT_KIND_UNKNOWN_OBJECT, STRANGER)
    assert answer.token_seen
    assert len(answer.replicas) == 1
    entry = replica.rig.store.entries(found.leaf_index, 1)[0]
    assert found.digest in entry
    inventory = ask(replica, OPERATOR, "GetInventory", pb.GetInventoryRequest())
    assert [one.label for one in inventory.objects if not one.known] == [STRANGER]
    replica.rig.token.destroy(STRANGER)
    watch.looked_ms = 0
    assert list(drift(replica).differences) == []


def test_who_only_asks_what_is_known_causes_no_look(replica):
    before = replica.rig.token.calls["contents"]
    for _ in range(3):
        assert not drift(replica, RESPONDER, look=False).HasField("looked_at")
    assert replica.rig.token.calls["contents"] == before


def test_looks_that_many_ask_for_are_taken_once_in_two_seconds(replica):
    drift(replica)
    before = replica.rig.token.calls["contents"]
    replica.replica.drift.watch.looked_ms += 10_000
    for _ in range(3):
        drift(replica)
    assert replica.rig.token.calls["contents"] == before


def test_the_inventory_has_every_tenant_key_version_grant_and_object(replica):
    found = ask(replica, AUDITOR, "GetInventory", pb.GetInventoryRequest())
    policy = replica.rig.policy
    assert list(found.tenants) == ["demo"]
    assert [key.name for key in found.keys] == ["orders", "release"]
    assert [(one.key, one.version.version) for one in found.versions] == [
        ("orders", 1),
        ("release", 1),
    ]
    assert {grant.name for grant in found.grants} == {grant.name for grant in policy.grants}
    assert {w for grant in found.grants for w in grant.workloads} == {
        w for grant in policy.grants for w in grant.workloads
    }
    assert {one.label for one in found.objects} == set(replica.rig.token.labels())
    assert all(one.known and one.purpose for one in found.objects)
    assert found.next == 0
    assert found.epoch == replica.rig.store.control().revocation_epoch


def test_pages_have_everything_once_whatever_their_size():
    grants = [
        ("grants", pb.InventoryGrant(name=f"g{n}", workloads=["spiffe://t/" + "w" * 200] * 500))
        for n in range(30)
    ]
    things = [("tenants", "demo"), *grants, ("objects", pb.InventoryObject(label="x"))]
    seen, offset = [], 0
    while True:
        answer = page(things, offset)
        assert answer.ByteSize() < PAGE_BYTES + 300_000
        seen += [
            *answer.tenants,
            *(g.name for g in answer.grants),
            *(o.label for o in answer.objects),
        ]
        if not answer.next:
            break
        offset = answer.next
    assert seen == ["demo", *(f"g{n}" for n in range(30)), "x"]


def test_keys_are_listed_with_their_last_use_and_the_end_of_their_cryptoperiod(replica):
    rig = replica.rig
    rig.charges.uses = replica.replica.path.uses
    rig.sign(b"x")
    replica.replica.drift.watch.look()
    with replica.as_(AUDITOR) as channel:
        listed = admin_pb2_grpc.AdminServiceStub(channel).ListKeys(
            admin_pb2.ListKeysRequest(), timeout=20
        )
        key = keys_pb2_grpc.KeyServiceStub(channel).GetKey(
            keys_pb2.GetKeyRequest(tenant="demo", key="orders"), timeout=20
        )
    by_name = {key.name: key.versions[0] for key in listed.keys}
    assert by_name["orders"].last_used_at.seconds
    assert not by_name["release"].HasField("last_used_at")
    life = by_name["orders"].cryptoperiod_ends_at.seconds - by_name["orders"].activated_at.seconds
    assert life == 2 * 365 * 24 * 3600
    assert key.key.versions[0].last_used_at == by_name["orders"].last_used_at


@pytest.mark.parametrize("who", [APP, APPROVER])
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetInventory", pb.GetInventoryRequest()),
        ("ListDrift", pb.ListDriftRequest(look=True)),
        ("ListIncidents", pb.ListIncidentsRequest()),
        ("CloseIncident", pb.CloseIncidentRequest()),
        ("ReportSignatures", pb.ReportSignaturesRequest(signature_hashes=[b"h" * 32])),
    ],
)
def test_who_has_no_role_learns_nothing(replica, who, method, request_):
    with pytest.raises(grpc.RpcError) as caught:
        ask(replica, who, method, request_)
    failure = FailureError.from_rpc(caught.value)
    assert failure.reason == failures_pb2.REASON_ROLE_MISSING


def test_numbers_of_kinds_are_those_of_the_log():
    assert {kind.name: int(kind) for kind in DriftKind} == {
        name.removeprefix("DRIFT_KIND_"): number for name, number in pb.DriftKind.items() if number
    }
