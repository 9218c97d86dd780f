"""Reads what reconciliation needs of an entry. A signature's entry is read by its offsets, which
takes a twentieth of decoding it; that the bytes are canonical is for `audit verify` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from capsign_evidence.leaf_fields import HASH_LEN, INTENT_LEN, LeafError
from capsign_evidence.leaf_kinds import Kind

_HEAD = 42
"""Bytes that all kinds share: version, kind, time, policy digest."""
_TAIL = INTENT_LEN + 2 * HASH_LEN
_SECOND = 38 + HASH_LEN
"""Bytes that the second signature of an entry adds."""


SIGNED = frozenset({int(Kind.SIGNED), int(Kind.SIGNED_TWICE)})
"""Numbers of the kinds that are about signatures: looking them up in the enumeration takes longer
than reading an entry.
"""
_ONCE, _TWICE = int(Kind.SIGNED), int(Kind.SIGNED_TWICE)


class SignedLeaf(NamedTuple):
    """Of an entry about one signature, or about two that answer one call."""

    time_ms: int
    workload: str
    certificate_key: bytes
    intent_id: bytes
    hashes: tuple[bytes, ...]
    """SHA-256 of each signature."""


def time_of(entry: bytes) -> int:
    """Milliseconds since 1970."""
    return int.from_bytes(entry[2:10], "big")


def kind_of(entry: bytes) -> int:
    """The number of the kind, which may be one that this program does not know."""
    return entry[1] if len(entry) > 1 else 0


def signed(entry: bytes) -> SignedLeaf:
    """Reads an entry of kind SIGNED or SIGNED_TWICE. Raises LeafError if it is too short."""
    twice = entry[1] == _TWICE
    end = len(entry) - (_SECOND if twice else 0)
    name_end = _HEAD + 1 + entry[_HEAD] if len(entry) > _HEAD else 0
    if not _HEAD < name_end < end - _TAIL - 1 - HASH_LEN:
        raise LeafError("the entry ends within a field")
    first = entry[end - HASH_LEN : end]
    return SignedLeaf(
        int.from_bytes(entry[2:10], "big"),
        entry[_HEAD + 1 : name_end].decode("ascii"),
        entry[name_end + 1 : name_end + 1 + HASH_LEN],
        entry[end - _TAIL : end - _TAIL + INTENT_LEN],
        (first, entry[-HASH_LEN:]) if twice else (first,),
    )


def run_of(entries: Sequence[bytes], at: int) -> int:
    """How many entries from this one on are of kind SIGNED and differ in what is each one's own
    only: intent id, commitment and hash. 0 if this one is of another kind.
    """
    first = entries[at]
    if kind_of(first) != _ONCE:
        return 0
    shared, length, end = first[:-_TAIL], len(first), at + 1
    while end < len(entries) and entries[end].startswith(shared) and len(entries[end]) == length:
        end += 1
    return end - at


def intents_of(run: Sequence[bytes]) -> list[bytes]:
    """The intent id of each entry of kind SIGNED."""
    return [entry[-_TAIL : INTENT_LEN - _TAIL] for entry in run]
