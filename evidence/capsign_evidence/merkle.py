"""Tree hashing of RFC 6962 section 2.1, and the frontier of a growing tree, which fits into a
database row.

A tree of n leaves splits into complete subtrees, one for each bit set in n, largest first.
Appending needs only their roots: the `Frontier`. A batch is appended level by level, which costs
about one hash for each leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

HASH_LEN = 32
"""Bytes of a SHA-256 hash."""

TILE_HEIGHT = 8
"""Tree levels in a tile of C2SP tlog-tiles."""

TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes in a full tile."""

MAX_SIZE = (1 << 63) - 1
"""Most leaves in a tree: what a signed 64-bit column holds."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves."""

_LEAF = b"\x00"
_NODE = b"\x01"


class TreeDataError(ValueError):
    """Stored or received tree data is not what a tree of that size has. Treat it as damage: stop,
    and compare with a backup.
    """


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a log entry: SHA-256(0x00 || entry)."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(_NODE + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of neighbouring hashes of one level."""
    row = list(hashes)
    if len(row) & (len(row) - 1) or not row:
        raise TreeDataError(f"{len(row)} hashes do not make a complete subtree")
    while len(row) > 1:
        row = _parents(row)
    return row[0]


def _parents(row: Sequence[bytes]) -> list[bytes]:
    """Hashes of the pairs of a row; an odd one at the end is left out."""
    sha256, prefix = hashlib.sha256, _NODE
    pairs = iter(row)
    return [
        sha256(prefix + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
    ]


@dataclass(frozen=True, slots=True)
class Completed:
    """A tile-level hash that has just become final: the root of the full subtree of 256**level
    leaves that is number `index`.
    """

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """Roots of the complete subtrees of a tree of `size` leaves, largest (leftmost) first: one for
    each bit set in `size`.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise TreeDataError(f"a tree of {self.size} leaves is out of range")
        if len(self.hashes) != self.size.bit_count() or set(map(len, self.hashes)) - {HASH_LEN}:
            raise TreeDataError(
                f"a frontier of {self.size} leaves has {self.size.bit_count()} hashes of "
                f"{HASH_LEN} bytes"
            )

    def encode(self) -> bytes:
        """The size as 64 bits big-endian, then the hashes: 8 to 2024 bytes."""
        return self.size.to_bytes(8, "big") + b"".join(self.hashes)

    @classmethod
    def decode(cls, data: bytes) -> Frontier:
        """The frontier that `encode` wrote. Raises TreeDataError for anything else."""
        if len(data) < 8 or (len(data) - 8) % HASH_LEN:
            raise TreeDataError(f"{len(data)} bytes are not a frontier")
        body = data[8:]
        return cls(
            int.from_bytes(data[:8], "big"),
            tuple([body[at : at + HASH_LEN] for at in range(0, len(body), HASH_LEN)]),
        )

    def root(self) -> bytes:
        """The root hash of the tree, RFC 6962 section 2.1."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def append(self, leaf_hashes: Sequence[bytes]) -> tuple[Frontier, list[Completed]]:
        """The frontier after these leaves, and every hash of tile level 1 and above that they
        completed, lowest level first.

        The hashes of tile level 0 are the leaf hashes themselves, from index `size` on: the caller
        stores those.
        """
        grown = self.size + len(leaf_hashes)
        edge = list(self.hashes)
        # Built from the lowest level up, so smallest subtree first; turned round at the end.
        kept: list[bytes] = []
        completed: list[Completed] = []
        row: Sequence[bytes] = leaf_hashes
        level = 0
        while row:  # what lies to the left of the last merge stays as it is
            if level and level % TILE_HEIGHT == 0:
                tile, first = level // TILE_HEIGHT, self.size >> level
                completed.extend(
                    Completed(tile, first + offset, value) for offset, value in enumerate(row)
                )
            if self.size >> level & 1:
                row = [edge.pop(), *row]
            if len(row) & 1:
                kept.append(row[-1])
            row = _parents(row) if len(row) > 1 else ()
            level += 1
        return Frontier(grown, (*edge, *reversed(kept))), completed
