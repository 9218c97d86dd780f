"""A whole replica over real TLS: a batch that does not follow is an incident, which people see, and
a responder closes.
"""

from __future__ import annotations

import grpc
import pytest
from capsign_evidence.incident_leaf import IncidentLeaf, IncidentState
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from capsign_wire.adapter.v1 import inventory_pb2 as pb
from capsign_wire.adapter.v1 import inventory_pb2_grpc as pb_grpc
from support.adapter_rig import APP, AUDITOR, RESPONDER
from support.replica import RunningReplica


@pytest.fixture
def replica(tmp_path, rig):
    running = RunningReplica(tmp_path, rig)
    yield running
    running.stop()


def ask(replica, who, method, request):
    with replica.as_(who) as channel:
        return getattr(pb_grpc.InventoryServiceStub(channel), method)(request, timeout=20)


def submit(replica, first: int) -> None:
    """A batch of one record, which begins with this sequence number."""
    record = evidence_pb2.AuditRecord(sequence=first, kind=evidence_pb2.AUDIT_KIND_HANDLES)
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=[record])
    request = evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString(deterministic=True))
    with replica.as_(APP) as channel:
        evidence_pb2_grpc.EvidenceServiceStub(channel).SubmitAudit(request, timeout=20)


def test_a_batch_that_does_not_follow_is_an_incident_until_a_responder_closes_it(replica):
    submit(replica, 1)
    for _ in range(2):  # an agent tries again
        with pytest.raises(grpc.RpcError, match="accepted through record 1"):
            submit(replica, 5)
    (incident,) = ask(replica, AUDITOR, "ListIncidents", pb.ListIncidentsRequest()).incidents
    assert (incident.kind, incident.workload) == (pb.INCIDENT_KIND_GAP, APP)
    assert (incident.first, incident.last, incident.boot_id) == (2, 4, b"b" * 16)
    closing = pb.CloseIncidentRequest(leaf_index=incident.leaf_index)
    with pytest.raises(grpc.RpcError, match="responder"):
        ask(replica, AUDITOR, "CloseIncident", closing)
    assert ask(replica, RESPONDER, "CloseIncident", closing).closed
    assert not ask(replica, RESPONDER, "CloseIncident", closing).closed
    assert not ask(replica, AUDITOR, "ListIncidents", pb.ListIncidentsRequest()).incidents
    entries = [decode(one) for one in replica.rig.store.entries(incident.leaf_index, 100)]
    told = [one.state for one in entries if isinstance(one, IncidentLeaf)]
    assert told == [IncidentState.FOUND, IncidentState.ENDED]
    (act,) = [one for one in entries if isinstance(one, Admin)]
    assert (act.act, act.actor) == (Act.INCIDENT_CLOSED, RESPONDER)
    assert act.target == f"incident/gap/{incident.leaf_index}"


def test_a_replica_follows_its_own_log_and_tells_how_far_it_is(replica):
    submit(replica, 1)
    follower = replica.replica.reconciliation.follower
    while follower.step():
        pass
    assert follower.leads
    assert follower.position == replica.rig.store.control().tree_size
    metrics = replica.metrics.snapshot()
    assert sum(metrics["capsign.incidents"].values()) == 0
    assert len(metrics["capsign.incidents"]) == len(pb.IncidentKind.keys()) - 1


def test_a_follower_that_has_stopped_is_seen_by_everybody(replica):
    """The lag was told by whoever reads: when nobody did, it was 0."""
    reconciliation, store = replica.replica.reconciliation, replica.rig.store
    assert store.lead_reconciliation(b"x" * 16, 1 << 50, (1 << 50) + 30_000)  # somebody else has it
    store.append([b"an entry"], 1)
    reconciliation.look()
    (lag,) = replica.metrics.snapshot()["capsign.reconcile.lag"].values()
    assert lag == store.control().tree_size - store.reconciled_through() > 0


def test_a_signature_that_somebody_hands_in_is_an_incident_once(replica):
    handed_in = pb.ReportSignaturesRequest(signature_hashes=[b"1" * 32, b"2" * 32, b"1" * 32])
    with pytest.raises(grpc.RpcError, match="responder"):
        ask(replica, AUDITOR, "ReportSignatures", handed_in)
    assert ask(replica, RESPONDER, "ReportSignatures", handed_in).filed == 2
    assert ask(replica, RESPONDER, "ReportSignatures", handed_in).filed == 0
    first, second = ask(replica, AUDITOR, "ListIncidents", pb.ListIncidentsRequest()).incidents
    assert first.kind == second.kind == pb.INCIDENT_KIND_SIGNATURE_WITHOUT_LEAF
    assert [first.digest, second.digest] == [b"1" * 32, b"2" * 32]
    found, who = map(decode, replica.rig.store.entries(first.leaf_index, 2))
    assert isinstance(found, IncidentLeaf)
    assert isinstance(who, Admin)
    assert (who.act, who.actor) == (Act.SIGNATURE_REPORTED, RESPONDER)
    assert who.target == f"incident/signature-without-leaf/{(b'1' * 32).hex()}"
    follower = replica.replica.reconciliation.follower
    while follower.step():  # what follows the log keeps it
        pass
    assert {one.digest for one in follower.standing} == {b"1" * 32, b"2" * 32}


@pytest.mark.parametrize("hashes", [[], [b"short"], [bytes([n]) * 32 for n in range(65)]])
def test_what_is_handed_in_has_a_form_and_an_end(replica, hashes):
    with pytest.raises(grpc.RpcError, match="signature_hashes"):
        ask(
            replica,
            RESPONDER,
            "ReportSignatures",
            pb.ReportSignaturesRequest(signature_hashes=hashes),
        )
