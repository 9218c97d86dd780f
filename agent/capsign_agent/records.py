"""Audit records: what the agent did, in enumerations and identities. No message, no digest, no free text (I9)."""

from __future__ import annotations

from collections.abc import Iterable

from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

Record = evidence_pb2.AuditRecord


def opened() -> Record:
    """The agent started."""
    return Record(kind=evidence_pb2.AUDIT_KIND_OPEN)


def closed() -> Record:
    """The agent ends; nothing follows in this life."""
    return Record(kind=evidence_pb2.AUDIT_KIND_CLOSE)


def handles(count: int) -> Record:
    """The handles changed; the agent now holds `count`."""
    return Record(kind=evidence_pb2.AUDIT_KIND_HANDLES, handles=count)


def intents(ids: Iterable[bytes], grant: str, algorithm: algorithms_pb2.Algorithm.ValueType, caller: str) -> list[Record]:
    """These calls are about to go upstream."""
    return [
        Record(kind=evidence_pb2.AUDIT_KIND_INTENT, intent_id=one, grant=grant, algorithm=algorithm, caller=caller) for one in ids
    ]


def done(intent_id: bytes, grant: str, algorithm: algorithms_pb2.Algorithm.ValueType, caller: str, leaf_index: int) -> Record:
    """A signature came back, with its leaf."""
    return Record(
        kind=evidence_pb2.AUDIT_KIND_OUTCOME,
        intent_id=intent_id,
        grant=grant,
        algorithm=algorithm,
        caller=caller,
        outcome=failures_pb2.OUTCOME_DONE,
        leaf_index_plus_one=leaf_index + 1,
    )


def failed(
    intent_id: bytes,
    grant: str,
    algorithm: algorithms_pb2.Algorithm.ValueType,
    caller: str,
    outcome: failures_pb2.Outcome.ValueType,
    reason: failures_pb2.Reason.ValueType,
) -> Record:
    """A call gave no signature: refused, unknown or unavailable."""
    return Record(
        kind=evidence_pb2.AUDIT_KIND_OUTCOME,
        intent_id=intent_id,
        grant=grant,
        algorithm=algorithm,
        caller=caller,
        outcome=outcome,
        reason=reason,
    )
