"""Incidents as messages."""

from __future__ import annotations

from capsign_wire.adapter.v1 import inventory_pb2 as pb

from capsign_adapter.front.key_messages import time_of
from capsign_adapter.model.reconciliation import IncidentRow


def incident_of(row: IncidentRow) -> pb.Incident:
    """The message of an incident that stands."""
    one = row.incident
    return pb.Incident(
        kind=pb.IncidentKind.ValueType(one.kind),
        workload=one.workload,
        boot_id=one.boot_id,
        digest=one.digest,
        intent_id=one.intent_id,
        leaf_index_plus_one=one.leaf_index_plus_one,
        first=one.first,
        last=one.last,
        count=one.count,
        since=time_of(one.since_ms),
        leaf_index=row.leaf_index,
    )
