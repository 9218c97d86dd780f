"""Entries about incidents: what does not add up between the adapter's records, the agents' and the
token, once when it is found and once when it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeVar

from capsign_evidence import leaf_fields
from capsign_evidence.leaf_fields import BOOT_LEN, HASH_LEN, INTENT_LEN, LeafError
from capsign_evidence.leaf_kinds import Kind

Member = TypeVar("Member", bound=IntEnum)


class IncidentKind(IntEnum):
    """What does not add up: the numbers of capsign.adapter.v1.IncidentKind, never reused."""

    SIGNED_NOT_REPORTED = 1
    """The adapter signed and no agent of that workload says that it asked."""
    REPORTED_NOT_SIGNED = 2
    """An agent names an entry for a signature, and the entry is not that signature's."""
    GAP = 3
    """Records of an agent's life are missing between others, or before its end."""
    CUT_TAIL = 4
    """A life of an agent ended without its last record, and nobody brought the rest."""
    LATE = 5
    """Signatures that no agent has reported yet and that should have been by now."""
    UNKNOWN_KEY_OBJECT = 6
    """The token holds an object that nothing accounts for."""
    SIGNATURE_WITHOUT_LEAF = 7
    """A relying party has a signature that no entry is about."""
    SILENCE = 8
    """An agent that has not ended says nothing."""
    SPLIT_VIEW = 9
    """An agent saw two checkpoints of this log that cannot both be true."""
    FORGED_CHAIN = 10
    """A batch does not continue the chain that it is part of."""
    REPLAYED_BATCH = 11
    """A batch that was taken before stands in the log again, or as another workload's."""
    BATCH_LOST = 12
    """The store does not hold the bytes of a batch as the log's entry names them."""
    ROLLED_BACK = 13
    """The log was older than what it had shown to others: an agent saw that it has fewer leaves."""
    INCIDENTS_FORGOTTEN = 14
    """Incidents that nothing shows again were found while too many stood and too many waited."""


PASSING = frozenset({IncidentKind.LATE, IncidentKind.SILENCE})
"""Kinds that a slow, evicted or partitioned agent has too: they end when it is heard of, or become
another kind.
"""


class IncidentState(IntEnum):
    """What an entry says of an incident. Numbers are never reused."""

    FOUND = 1
    ENDED = 2


@dataclass(frozen=True, slots=True)
class IncidentLeaf:
    """An incident was found, or has ended.

    `workload` and `boot_id` say whose records it is about, empty where it is nobody's. `digest` is
    what identifies it beyond that (docs/formats.md, "Incidents"): of the certificate's key, of a
    batch, of a signature. `intent_id` and `leaf_index_plus_one` name its first signature or entry;
    `first` and `last` are sequence numbers of agents' records, 0 if it is not about such. `count`
    is how many signatures or records it was about when this was written; `since_ms` is when it was
    found.
    """

    time_ms: int
    policy_digest: bytes
    incident: IncidentKind
    state: IncidentState
    workload: str
    boot_id: bytes
    digest: bytes
    intent_id: bytes
    leaf_index_plus_one: int
    first: int
    last: int
    count: int
    since_ms: int

    kind = Kind.INCIDENT

    def encode(self) -> bytes:
        """The entry. Raises LeafError."""
        if self.first > self.last:
            raise LeafError("first is after last")
        return b"".join(
            (
                leaf_fields.head(self.kind, self.time_ms, self.policy_digest),
                leaf_fields.unsigned("incident", IncidentKind(self.incident), 2),
                leaf_fields.unsigned("state", IncidentState(self.state), 1),
                leaf_fields.identity("workload", self.workload) if self.workload else b"\x00",
                leaf_fields.optional("boot_id", self.boot_id, BOOT_LEN),
                leaf_fields.optional("digest", self.digest, HASH_LEN),
                leaf_fields.optional("intent_id", self.intent_id, INTENT_LEN),
                leaf_fields.unsigned("leaf_index_plus_one", self.leaf_index_plus_one, 8),
                leaf_fields.unsigned("first", self.first, 8),
                leaf_fields.unsigned("last", self.last, 8),
                leaf_fields.unsigned("count", self.count, 4),
                leaf_fields.unsigned("since_ms", self.since_ms, 8),
            )
        )


class Cursor(Protocol):
    """Takes fields off the front of an entry."""

    def fixed(self, length: int) -> bytes: ...
    def unsigned(self, length: int) -> int: ...
    def variable(self) -> bytes: ...
    def text(self) -> str: ...
    def member(self, kind: type[Member], length: int) -> Member: ...


def read_incident(cursor: Cursor, time_ms: int) -> IncidentLeaf:
    """The rest of an entry of kind INCIDENT."""
    return IncidentLeaf(
        time_ms,
        policy_digest=cursor.fixed(HASH_LEN),
        incident=cursor.member(IncidentKind, 2),
        state=cursor.member(IncidentState, 1),
        workload=cursor.text(),
        boot_id=cursor.variable(),
        digest=cursor.variable(),
        intent_id=cursor.variable(),
        leaf_index_plus_one=cursor.unsigned(8),
        first=cursor.unsigned(8),
        last=cursor.unsigned(8),
        count=cursor.unsigned(4),
        since_ms=cursor.unsigned(8),
    )
