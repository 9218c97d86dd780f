"""Makes inclusion and consistency proofs (RFC 6962 section 2.1) from stored tiles, and verifies
them without.

Making the first one reads each tile it needs once, at most two for every tile level: the one above
the leaf and the one at the right edge. Only hashes of complete subtrees are stored; what lies
between the tile levels, and on the ragged right edge, is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from capsign_evidence.merkle import (
    EMPTY_ROOT,
    HASH_LEN,
    MAX_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    TreeDataError,
    complete_root,
    node_hash,
)

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

HashReader = Callable[[int, int, int], Sequence[bytes]]
"""`hashes(level, first, count)` of the store: hashes of a tile level from index `first`, complete
subtrees only.
"""

MAX_PROOF_HASHES = 64
"""No proof in a tree of at most 2**63 - 1 leaves has more hashes."""


class ProofError(ValueError):
    """A proof does not verify. Keep both checkpoints and the proof: they are evidence against the
    log.
    """


MOST_TILES = 64
"""Tiles above the leaves that a reader keeps, some 20 KiB each as objects."""
MOST_NODES = 8192
"""Computed hashes of subtrees of 256 leaves and more that it keeps, some 250 bytes each."""


class TreeReader:
    """One tree of the log, of `size` leaves, read through tiles. Safe for any thread.

    What it has read and computed it keeps, within bounds: nothing of a tree ever changes. Of a
    proof from a reader that was asked before, what is left are the hashes within the leaf's tile.

    Raises ValueError for a question outside the tree, TreeDataError if the store holds less than it
    must.
    """

    def __init__(
        self,
        hashes: HashReader,
        size: int,
        *,
        most_tiles: int = MOST_TILES,
        most_nodes: int = MOST_NODES,
    ) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"a tree of {size} leaves is out of range")
        self._hashes = hashes
        self._size = size
        self._most_tiles, self._most_nodes = most_tiles, most_nodes
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}
        self._leaves: dict[tuple[int, int], Sequence[bytes]] = {}
        """The tile of leaves that was read last."""
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._edge: dict[int, bytes] = {}
        """Roots of ranges up to the end of the tree that are no complete subtree, by their first
        leaf: one for each bit of the size at most.
        """

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return self._size

    def root(self) -> bytes:
        """The root hash of the tree."""
        return self._range(0, self._size) if self._size else EMPTY_ROOT

    def inclusion(self, index: int) -> list[bytes]:
        """PATH(index, D[size]) of RFC 6962 section 2.1.1, from the leaf's sibling upwards."""
        if not 0 <= index < self._size:
            raise ValueError(f"leaf {index} is not in a tree of {self._size}")
        path: list[bytes] = []
        first, last = 0, self._size
        while last - first > 1:
            middle = first + _split(last - first)
            if index < middle:
                path.append(self._range(middle, last))
                last = middle
            else:
                path.append(self._range(first, middle))
                first = middle
        path.reverse()
        return path

    def consistency(self, old_size: int) -> list[bytes]:
        """PROOF(old_size, D[size]) of RFC 6962 section 2.1.2; empty when the sizes are equal.
        `old_size` is above 0.
        """
        if not 0 < old_size <= self._size:
            raise ValueError(f"a tree of {self._size} leaves does not extend one of {old_size}")
        proof: list[bytes] = []
        first, last = 0, self._size
        while old_size != last:
            middle = first + _split(last - first)
            if old_size <= middle:
                proof.append(self._range(middle, last))
                last = middle
            else:
                proof.append(self._range(first, middle))
                first = middle
        if first:
            proof.append(self._range(first, last))
        proof.reverse()
        return proof

    def _range(self, first: int, last: int) -> bytes:
        """MTH(D[first:last]), where `first` is a multiple of the largest power of two that fits.
        What is no complete subtree ends where the tree does.
        """
        width = last - first
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._node(level, first >> level)
        root = self._edge.get(first)
        if root is None:
            middle = first + _split(width)
            root = node_hash(self._range(first, middle), self._range(middle, last))
            self._edge[first] = root
        return root

    def _node(self, level: int, index: int) -> bytes:
        """The root of complete subtree `index` of 2**level leaves."""
        known = self._nodes.get((level, index))
        if known is not None:
            return known
        tile_level, within = divmod(level, TILE_HEIGHT)
        tile_index, offset = divmod(index << within, TILE_WIDTH)
        width = 1 << within
        tile = self._tile(tile_level, tile_index)
        if offset + width > len(tile):
            raise TreeDataError(
                f"tile {tile_level}/{tile_index} has {len(tile)} hashes, a tree of "
                f"{self._size} has more"
            )
        root = complete_root(tile[offset : offset + width])
        if tile_level:
            _keep(self._nodes, (level, index), root, self._most_nodes)
        return root

    def _tile(self, level: int, index: int) -> Sequence[bytes]:
        kept = self._tiles if level else self._leaves
        tile = kept.get((level, index))
        if tile is None:
            first = index * TILE_WIDTH
            # Not the part beyond this tree: it may be growing while it is read.
            count = min(TILE_WIDTH, (self._size >> (TILE_HEIGHT * level)) - first)
            tile = self._hashes(level, first, count)
            if len(tile) == count:
                _keep(kept, (level, index), tile, self._most_tiles if level else 1)
        return tile


class Trees:
    """The trees of one log, for whoever is asked again and again: the reader of the size that was
    asked for last is kept, mostly that of the newest checkpoint. Safe for any thread.
    """

    def __init__(self, hashes: HashReader) -> None:
        self._hashes = hashes
        self._last = TreeReader(hashes, 0)

    def of(self, size: int) -> TreeReader:
        """The tree of so many leaves. Raises ValueError."""
        reader = self._last
        if reader.size != size:
            reader = self._last = TreeReader(self._hashes, size)
        return reader


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Keep one more, and nothing of before where there would be too many."""
    if len(kept) >= most:
        kept.clear()
    kept[key] = value


def _split(width: int) -> int:
    """The largest power of two below `width`."""
    return 1 << (width - 1).bit_length() - 1


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Raise ProofError unless `proof` puts the leaf hash at `index` of the tree with this root; RFC
    9162 section 2.1.3.2.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    _check_lengths(proof, leaf, root)
    node, last, hash_ = index, size - 1, leaf
    for sibling in proof:
        if not last:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            hash_ = node_hash(sibling, hash_)
            # A node without a sibling on this level is its own parent: climb to where it has one.
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            hash_ = node_hash(hash_, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if hash_ != root:
        raise ProofError(f"the entry is not leaf {index} of the tree with this root")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise ProofError unless the new tree starts with all leaves of the old one; RFC 9162 section
    2.1.4.2.

    `old_size` is above 0: there is nothing to be consistent with before the first leaf.
    """
    if not 0 < old_size <= new_size <= MAX_SIZE:
        raise ProofError(f"a tree of {new_size} leaves does not extend one of {old_size}")
    _check_lengths(proof, old_root, new_root)
    if old_size == new_size:
        if proof:
            raise ProofError("trees of one size need no proof")
        if old_root != new_root:
            raise ProofError(f"two trees of {old_size} leaves have different roots")
        return
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    hashes = iter(proof)
    # If the old tree is one complete subtree, its root is where the proof starts and is left out of
    # it.
    old = new = old_root if not node else next(hashes, b"")
    for sibling in hashes:
        if not last:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if old != old_root or new != new_root:
        raise ProofError(
            f"the tree of {new_size} leaves does not start with the tree of {old_size}"
        )


def _check_lengths(proof: Sequence[bytes], *hashes: bytes) -> None:
    if len(proof) > MAX_PROOF_HASHES:
        raise ProofError(f"a proof has at most {MAX_PROOF_HASHES} hashes")
    if any(len(value) != HASH_LEN for value in (*proof, *hashes)):
        raise ProofError(f"every hash has {HASH_LEN} bytes")
