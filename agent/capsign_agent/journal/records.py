"""Audit records: what the agent did, as enumerations and identities. No message, no digest, no free
text (I9).

Records are appended to a piece of an AuditBatch; the journal numbers them. Similar records are
copied from one template, which takes a third of the time of building each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.split_view import Fault
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

Piece = evidence_pb2.AuditBatch
Algorithm = algorithms_pb2.Algorithm


def opened(left: Iterable[tuple[bytes, int]] = ()) -> Piece:
    """The agent started. `left`: earlier lives that its journal holds, by boot id, and the last
    sequence of each that is there; 0: all of it was taken.
    """
    piece = _single(evidence_pb2.AuditRecord(kind=evidence_pb2.AUDIT_KIND_OPEN))
    for boot_id, sequence in left:
        piece.records.add(
            kind=evidence_pb2.AUDIT_KIND_RECOVERED, other_boot=boot_id, other_sequence=sequence
        )
    return piece


def alive(leaf_index_plus_one: int) -> Piece:
    """Nothing to tell. `leaf_index_plus_one`: that of the last batch that was taken; 0: none."""
    return _single(
        evidence_pb2.AuditRecord(
            kind=evidence_pb2.AUDIT_KIND_ALIVE, leaf_index_plus_one=leaf_index_plus_one
        )
    )


def closed() -> Piece:
    """The agent ends; nothing follows in this life."""
    return _single(evidence_pb2.AuditRecord(kind=evidence_pb2.AUDIT_KIND_CLOSE))


def handles(count: int) -> Piece:
    """The handles changed; the agent now holds `count`."""
    return _single(evidence_pb2.AuditRecord(kind=evidence_pb2.AUDIT_KIND_HANDLES, handles=count))


def identity_issued(key_hash: bytes) -> Piece:
    """A certificate was issued that follows no other; for the key with this hash."""
    kind = evidence_pb2.AUDIT_KIND_IDENTITY_ISSUED
    return _single(evidence_pb2.AuditRecord(kind=kind, certificate_key=key_hash))


def identity_renewed(key_hash: bytes) -> Piece:
    """A certificate was issued that follows the one in use."""
    kind = evidence_pb2.AUDIT_KIND_IDENTITY_RENEWED
    return _single(evidence_pb2.AuditRecord(kind=kind, certificate_key=key_hash))


def identity_refused(reason: failures_pb2.Reason.ValueType) -> Piece:
    """A certificate was refused, for this reason; 0 if it was not an adapter that refused."""
    return _single(
        evidence_pb2.AuditRecord(kind=evidence_pb2.AUDIT_KIND_IDENTITY_REFUSED, reason=reason)
    )


def intents(
    into: Piece, ids: Sequence[bytes], grant: str, algorithm: Algorithm.ValueType, caller: str
) -> None:
    """These items are about to be sent to an adapter."""
    if len(ids) == 1:
        kind = evidence_pb2.AUDIT_KIND_INTENT
        into.records.add(
            kind=kind, grant=grant, algorithm=algorithm, caller=caller, intent_id=ids[0]
        )
        return
    _each(into, ids, _about(evidence_pb2.AUDIT_KIND_INTENT, grant, algorithm, caller))


def done(
    into: Piece,
    results: Sequence[tuple[bytes, int]],
    grant: str,
    algorithm: Algorithm.ValueType,
    caller: str,
    elapsed_ms: int = 0,
) -> None:
    """Items were signed: intent id and leaf index of each. `elapsed_ms` is how long
    the call took here; 0: not known.
    """
    add = into.records.add
    if len(results) == 1:
        [(intent_id, leaf_index)] = results
        add(
            kind=evidence_pb2.AUDIT_KIND_OUTCOME,
            outcome=failures_pb2.OUTCOME_DONE,
            grant=grant,
            algorithm=algorithm,
            caller=caller,
            intent_id=intent_id,
            leaf_index_plus_one=leaf_index + 1,
            elapsed_ms=elapsed_ms,
        )
        return
    template = _about(evidence_pb2.AUDIT_KIND_OUTCOME, grant, algorithm, caller)
    template.outcome = failures_pb2.OUTCOME_DONE
    template.elapsed_ms = elapsed_ms
    for intent_id, leaf_index in results:
        record = add()
        record.CopyFrom(template)
        record.intent_id = intent_id
        record.leaf_index_plus_one = leaf_index + 1


def failed(
    into: Piece,
    ids: Iterable[bytes],
    grant: str,
    algorithm: Algorithm.ValueType,
    caller: str,
    outcome: failures_pb2.Outcome.ValueType,
    reason: failures_pb2.Reason.ValueType,
) -> None:
    """Items were not signed, or it is unknown whether they were."""
    template = _about(evidence_pb2.AUDIT_KIND_OUTCOME, grant, algorithm, caller)
    template.outcome, template.reason = outcome, reason
    _each(into, ids, template)


def verifications(
    grant: str, algorithm: Algorithm.ValueType, key_version: int, verified: int, failed: int
) -> Piece:
    """Signatures of a version of the grant's key were verified by an application."""
    return _single(
        evidence_pb2.AuditRecord(
            kind=evidence_pb2.AUDIT_KIND_VERIFICATIONS,
            grant=grant,
            algorithm=algorithm,
            key_version=key_version,
            verified=verified,
            failed=failed,
        )
    )


def split_view(fault: Fault, seen: TreeHead | None, shown: TreeHead | None, told: int = 0) -> Piece:
    """An adapter showed a log that contradicts what was seen of it; None for what was not there or
    is not signed by the log's key. `told`: leaves of the tree that has what it told of and does not
    show; 0: that is not the fault.
    """
    record = evidence_pb2.AuditRecord(
        kind=evidence_pb2.AUDIT_KIND_SPLIT_VIEW,
        log_fault=evidence_pb2.LogFault.ValueType(fault),
        leaf_index_plus_one=told,
    )
    if seen is not None:
        record.seen_size, record.seen_root = seen.size, seen.root
    if shown is not None:
        record.shown_size, record.shown_root = shown.size, shown.root
    return _single(record)


def _about(
    kind: evidence_pb2.AuditKind.ValueType, grant: str, algorithm: Algorithm.ValueType, caller: str
) -> evidence_pb2.AuditRecord:
    return evidence_pb2.AuditRecord(kind=kind, grant=grant, algorithm=algorithm, caller=caller)


def _each(into: Piece, ids: Iterable[bytes], template: evidence_pb2.AuditRecord) -> None:
    add = into.records.add
    for one in ids:
        record = add()
        record.CopyFrom(template)
        record.intent_id = one


def _single(record: evidence_pb2.AuditRecord) -> Piece:
    return Piece(records=[record])
