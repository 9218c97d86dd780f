"""The calls that an agent's records tell of: one record may say the same of many
(docs/decisions/0088-a-record-tells-of-many-calls.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.bounds import MAX_NUMBER
from capsign_wire.types.v1 import failures_pb2

from capsign_evidence.leaf_fields import INTENT_LEN

MAX_CALLS = 4096
"""Most calls that the records of one batch tell of; one about something else counts as one. It is
the bound of AuditBatch.records, so that a batch costs its readers no more than it did when each
record told of one.
"""

more_intents = attrgetter("more_intents")
"""What a record has beside its first call, as bytes; empty for most."""

CALLS = frozenset({int(pb.AUDIT_KIND_INTENT), int(pb.AUDIT_KIND_OUTCOME)})
"""Kinds of records that tell of calls."""


def count(records: Sequence[pb.AuditRecord]) -> int:
    """How many calls they tell of; one about something else counts as one."""
    return len(records) + sum(map(len, map(more_intents, records))) // INTENT_LEN


def sound(records: Sequence[pb.AuditRecord]) -> bool:
    """Whether what they say of further calls can be read: whole ids, in a record about a call, and
    leaves that a log can have. A batch with others is damaged.
    """
    return not any(map(more_intents, records)) or all(
        len(more) % INTENT_LEN == 0
        and record.kind in CALLS
        and len(record.intent_id) == INTENT_LEN
        and record.leaf_index_plus_one <= MAX_NUMBER - len(more)
        for record in records
        if (more := record.more_intents)
    )


def intents(record: pb.AuditRecord) -> list[bytes]:
    """The intent ids of all its calls, in order."""
    return [record.intent_id, *ids(record.more_intents)]


def each(record: pb.AuditRecord) -> Iterator[tuple[bytes, int]]:
    """Of each of its calls: the intent id, and the leaf that is named, plus one."""
    step = int(follows(record))
    for place, intent_id in enumerate(intents(record)):
        yield intent_id, record.leaf_index_plus_one + place * step


def ids(more: bytes) -> Iterator[bytes]:
    """The intent ids in `more_intents`."""
    return (more[at : at + INTENT_LEN] for at in range(0, len(more), INTENT_LEN))


def follows(record: pb.AuditRecord) -> bool:
    """Whether the leaves of its calls follow one another; else the record's is that of each, mostly
    none.
    """
    return (
        record.kind == pb.AUDIT_KIND_OUTCOME
        and record.outcome == failures_pb2.OUTCOME_DONE
        and record.leaf_index_plus_one > 0
    )
