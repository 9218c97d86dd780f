"""Entries that say that leaves were moved from the store to cold files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from capsign_evidence import leaf_fields
from capsign_evidence.leaf_fields import HASH_LEN, LeafError
from capsign_evidence.leaf_kinds import Kind


@dataclass(frozen=True, slots=True)
class Retired:
    """Leaves `first` to `end` - 1 are in cold files. `root` is that of the tree of the first `end`
    leaves; `covered` is the size of the checkpoint that covered them by then.
    """

    time_ms: int
    policy_digest: bytes
    first: int
    end: int
    root: bytes
    covered: int

    kind = Kind.RETIRED

    def encode(self) -> bytes:
        """The entry. Raises LeafError."""
        if not self.first < self.end <= self.covered:
            raise LeafError("first, end and covered do not ascend")
        return b"".join(
            (
                leaf_fields.head(self.kind, self.time_ms, self.policy_digest),
                leaf_fields.unsigned("first", self.first, 8),
                leaf_fields.unsigned("end", self.end, 8),
                leaf_fields.fixed("root", self.root, HASH_LEN),
                leaf_fields.unsigned("covered", self.covered, 8),
            )
        )


class Cursor(Protocol):
    """Takes fields off the front of an entry."""

    def fixed(self, length: int) -> bytes: ...
    def unsigned(self, length: int) -> int: ...


def read_retired(cursor: Cursor, time_ms: int) -> Retired:
    """The rest of an entry of kind RETIRED."""
    return Retired(
        time_ms,
        policy_digest=cursor.fixed(HASH_LEN),
        first=cursor.unsigned(8),
        end=cursor.unsigned(8),
        root=cursor.fixed(HASH_LEN),
        covered=cursor.unsigned(8),
    )
