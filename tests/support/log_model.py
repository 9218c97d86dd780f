"""A log in memory that stores what a store would, and RFC 6962 written down as the RFC does, to
hold the fast code against.
"""

from __future__ import annotations

import hashlib

from capsign_evidence.merkle import Frontier, leaf_hash


def merkle_tree_hash(leaves):
    """MTH(D) of RFC 6962 section 2.1, over leaf hashes, by its own recursion."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(
        b"\x01" + merkle_tree_hash(leaves[:k]) + merkle_tree_hash(leaves[k:])
    ).digest()


class MemoryLog:
    """Appends in batches and keeps entries, tile-level hashes and the encoded frontier, as a store
    keeps them.
    """

    def __init__(self):
        self.entries = []
        self.levels: dict[int, list[bytes]] = {0: []}
        self.frontier = Frontier().encode()
        self.reads = 0

    def append(self, entries):
        leaves = [leaf_hash(entry) for entry in entries]
        frontier, completed = Frontier.decode(self.frontier).append(leaves)
        self.entries.extend(entries)
        self.levels[0].extend(leaves)
        for done in completed:
            level = self.levels.setdefault(done.level, [])
            assert done.index == len(level)
            level.append(done.hash)
        self.frontier = frontier.encode()
        return frontier

    @property
    def size(self):
        return len(self.entries)

    def hashes(self, level, first, count):
        """As `Store.hashes`."""
        assert count > 0
        self.reads += 1
        return self.levels.get(level, [])[first : first + count]

    @classmethod
    def of(cls, size):
        log = cls()
        log.append([b"entry %d" % number for number in range(size)])
        return log
