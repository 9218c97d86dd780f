"""Audit records: what the agent did, as enumerations and identities. No message, no digest, no free
text (I9).

Records are appended to a piece of an AuditBatch; the journal numbers them. Of calls of which the
same is to be told there is one record (docs/decisions/0088-a-record-tells-of-many-calls.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.split_view import Fault
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

Piece = evidence_pb2.AuditBatch
Algorithm = algorithms_pb2.Algorithm

MOST_CALLS = 1024
"""Most calls that one record tells of: `more_intents` has 1,023 more."""


def calls_in(piece: Piece) -> int:
    """How many calls the records tell of; one about something else counts as one."""
    count = 0
    for record in piece.records:
        count += 1 + len(record.more_intents) // 16
    return count


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
    for first, more in _together(ids):
        into.records.add(
            kind=evidence_pb2.AUDIT_KIND_INTENT,
            grant=grant,
            algorithm=algorithm,
            caller=caller,
            intent_id=first,
            more_intents=more,
        )


def done(
    into: Piece,
    ids: Sequence[bytes],
    leaf_index: int,
    grant: str,
    algorithm: Algorithm.ValueType,
    caller: str,
    elapsed_ms: int = 0,
) -> None:
    """Items were signed: `leaf_index` is of the first, and those of the others follow it.
    `elapsed_ms` is how long the slowest call took here; 0: not known.
    """
    for first, more in _together(ids):
        into.records.add(
            kind=evidence_pb2.AUDIT_KIND_OUTCOME,
            outcome=failures_pb2.OUTCOME_DONE,
            grant=grant,
            algorithm=algorithm,
            caller=caller,
            intent_id=first,
            more_intents=more,
            leaf_index_plus_one=leaf_index + 1,
            elapsed_ms=elapsed_ms,
        )
        leaf_index += MOST_CALLS


def failed(
    into: Piece,
    ids: Sequence[bytes],
    grant: str,
    algorithm: Algorithm.ValueType,
    caller: str,
    outcome: failures_pb2.Outcome.ValueType,
    reason: failures_pb2.Reason.ValueType,
) -> None:
    """Items were not signed, or it is unknown whether they were."""
    for first, more in _together(ids):
        into.records.add(
            kind=evidence_pb2.AUDIT_KIND_OUTCOME,
            outcome=outcome,
            reason=reason,
            grant=grant,
            algorithm=algorithm,
            caller=caller,
            intent_id=first,
            more_intents=more,
        )


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


def _together(ids: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Of each record about these calls: `intent_id` and `more_intents`."""
    if len(ids) == 1:
        return ((ids[0], b""),)
    return [
        (ids[at], b"".join(ids[at + 1 : at + MOST_CALLS])) for at in range(0, len(ids), MOST_CALLS)
    ]


def _single(record: evidence_pb2.AuditRecord) -> Piece:
    return Piece(records=[record])
