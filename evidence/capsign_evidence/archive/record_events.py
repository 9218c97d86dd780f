"""The records of agents' batches as events."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2
from google.protobuf.message import DecodeError

from capsign_evidence import told_calls
from capsign_evidence.archive.details import told, words_of
from capsign_evidence.archive.events import AGENT, NAMES, UNREADABLE, Event

KINDS = words_of(pb.AuditKind.DESCRIPTOR, "AUDIT_KIND_")
"""What records tell, as the command line writes it."""
OUTCOMES = words_of(failures_pb2.Outcome.DESCRIPTOR, "OUTCOME_")

MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999: records with a later time, which the adapter took earlier, are of this
one, as no calendar and no file format of ours has theirs.
"""


def of_batch(
    index: int,
    workload: str,
    batch: bytes,
    expected: bytes = b"",
    span: tuple[int, int] = (0, 1 << 64),
) -> Iterator[Event]:
    """The events of a batch whose leaf is `index`. `expected`: the hash that its leaf names; a
    batch with another one is one unreadable event, for its records are not those that were taken.
    `span`: only records from the first time up to, and without, the second, milliseconds; those
    that cannot be read are of no time.
    """
    parsed = parsed_batch(batch, expected)
    if parsed is None:
        yield Event(index=index, time_ms=0, stream=AGENT, what=UNREADABLE, workload=workload)
        return
    since, until = span
    for record in parsed.records:
        if since <= record.time_ms < until or record.kind not in KINDS:
            yield from of_calls(of_record(index, workload, parsed.boot_id, record), record)


def parsed_batch(batch: bytes, expected: bytes = b"") -> pb.AuditBatch | None:
    """The batch; None if it cannot be read, or has another hash than is expected."""
    if expected and hashlib.sha256(batch).digest() != expected:
        return None
    try:
        parsed = pb.AuditBatch.FromString(batch)
    except DecodeError:
        return None
    return parsed if told_calls.sound(parsed.records) else None


def of_calls(first: Event, record: pb.AuditRecord) -> Iterator[Event]:
    """The events of one record: `first`, and those of the further calls that it tells of."""
    yield first
    if not record.more_intents:
        return
    shared = {name: getattr(first, name) for name in NAMES}
    for place, (intent_id, named) in enumerate(told_calls.each(record)):
        if place:
            leaf = named - 1 if named else None
            own = {"intent_id": intent_id, "names_leaf": leaf, "place": place}
            yield Event(**{**shared, **own})


def of_record(index: int, workload: str, boot_id: bytes, record: pb.AuditRecord) -> Event:
    """The event of one record, of its first call where it tells of many. One of a kind that this
    program does not know is unreadable, with what every record has.
    """
    reason, algorithm = REASONS.get(record.reason), ALGORITHMS.get(record.algorithm)
    named = record.leaf_index_plus_one
    return Event(
        index=index,
        time_ms=min(record.time_ms, MAX_TIME_MS),
        stream=AGENT,
        what=KINDS.get(record.kind, UNREADABLE),
        outcome=OUTCOMES.get(record.outcome, ""),
        reason=reason.name if reason else "",
        workload=workload,
        algorithm=algorithm.name if algorithm else "",
        grant=record.grant,
        caller=record.caller,
        intent_id=record.intent_id,
        boot_id=boot_id,
        sequence=record.sequence,
        key_version=record.key_version,
        names_leaf=named - 1 if named else None,
        elapsed_ms=record.elapsed_ms,
        handles=record.handles,
        verified=record.verified,
        failed=record.failed,
        details={name: told(name, value) for name in _REST if (value := getattr(record, name))},
    )


_TOLD = frozenset(
    {"sequence", "time_ms", "kind", "intent_id", "grant", "algorithm", "outcome", "reason"}
    | {"leaf_index_plus_one", "caller", "handles", "elapsed_ms", "key_version", "verified"}
    | {"failed", "more_intents"}
)
"""Fields of a record that an event has its own for."""
_REST = tuple(one.name for one in pb.AuditRecord.DESCRIPTOR.fields if one.name not in _TOLD)
"""All others, which are among its details."""
