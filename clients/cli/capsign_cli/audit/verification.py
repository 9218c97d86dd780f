"""Verifies an archive from end to end, in one pass and bounded memory: entries, tree, stored
hashes, agents' batches, summaries and documents of policies.

The tree is computed by `transparency`, which shares no code with what wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from capsign_cli.transparency import Frontier, Head, leaf_hash

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.batch_chain import Fault
    from capsign_evidence.archive.interface import Batch

TILE = 256
"""Leaves of a tile, C2SP tlog-tiles."""

LISTED = 100
"""Faults of which all is told; more are counted."""

BATCHED = b"\x01\x04"
"""First bytes of the entry of an agent's batch (docs/formats.md, "Log entry")."""


@dataclass(slots=True)
class Findings:
    """What was read, and what does not hold."""

    entries: int = 0
    batches: int = 0
    lives: int = 0
    summaries: int = 0
    policies: int = 0
    """Documents of policies that are held, and that entries name."""
    lacking: int = 0
    """Policies that entries name and that are not held: a mirror of the tiles alone has none."""
    unreadable: int = 0
    """Entries that this program cannot read: a newer one wrote them, or they are damaged. The tree
    is verified over them all the same.
    """
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    """Of faults, those that are not listed too."""

    def add(self, fault: Fault) -> None:
        """Note a fault."""
        self.count += 1
        if len(self.faults) < LISTED:
            self.faults.append(fault)


def verify(
    archive: Archive, head: Head, before: Head | None, tell: Callable[[int, int], None]
) -> Findings:
    """Holds the archive against a checkpoint whose signature was verified, and the one that was
    remembered. `tell` gets how many entries of how many are behind. Raises ArchiveError.
    """
    return _Verification(archive, head, before).run(tell)


class _Verification:
    def __init__(self, archive: Archive, head: Head, before: Head | None) -> None:
        from capsign_evidence.archive.batch_chain import BatchChain

        self._archive = archive
        self._heads = [one for one in (before, head) if one is not None]
        self._head = head
        self._tree = Frontier()
        self._chain = BatchChain()
        self._found = Findings()
        self._batches = archive.batches(0)
        self._held: Batch | None = next(self._batches, None)
        self._summaries = archive.summaries(0)
        self._summary = next(self._summaries, None)
        self._groups: set[bytes] = set()
        self._named: set[bytes] = set()
        """Digests of policies that entries have been decided under."""
        self._proposed: set[bytes] = set()

    def run(self, tell: Callable[[int, int], None]) -> Findings:
        size = self._archive.size
        if size < self._head.size:
            text = f"The checkpoint covers {self._head.size} entries, and {size} are held."
            self._add("truncated", size, text)
        self._check_roots()
        tile: list[bytes] = []
        for entry in self._archive.entries(0, size):
            tile.append(entry)
            if len(tile) == TILE:
                self._take(tile)
                tile = []
                if self._tree.size % (64 * TILE) == 0:
                    tell(self._tree.size, size)
        self._take(tile)
        for left in self._rest():
            self._add("batch-without-leaf", left[0], f"Leaf {left[0]} is not that of a batch.")
        self._compare_policies()
        found = self._found
        found.entries, found.lives = self._tree.size, self._chain.lives
        found.batches = self._chain.batches
        return found

    def _take(self, tile: list[bytes]) -> None:
        from capsign_evidence.archive.copying import DIGEST

        first = self._tree.size
        self._named.update({entry[DIGEST] for entry in tile})
        batches = list(self._look(first, tile))
        hashes = list(map(leaf_hash, tile))
        self._compare_hashes(first, hashes)
        self._hash(hashes)
        if len(tile) == TILE:
            self._compare_summary(first // TILE, tile, batches)

    def _compare_hashes(self, first: int, tile: list[bytes]) -> None:
        """Hold the stored hashes of these leaves, which proofs begin with, against the entries'."""
        if self._archive.hashes(0, first, len(tile)) != tile:
            text = f"The stored hashes of leaves {first} to {first + len(tile) - 1} are not theirs."
            self._add("hashes-differ", first, text)

    def _hash(self, tile: list[bytes]) -> None:
        """Grow the tree by the hashes of a tile's leaves, and look at its root wherever a
        checkpoint is about it.
        """
        first = self._tree.size
        ends = {head.size for head in self._heads if first < head.size < first + len(tile)}
        at = 0
        for end in (*sorted(end - first for end in ends), len(tile)):
            root = self._tree.extend(tile[at:end])
            at = end
            self._check_roots()
        if len(tile) == TILE and not ends:
            stored = self._archive.hashes(1, first // TILE, 1)
            if stored != [root]:
                text = f"The stored hash of leaves {first} to {first + TILE - 1} is not theirs."
                self._add("hashes-differ", first, text)

    def _check_roots(self) -> None:
        for head in self._heads:
            if head.size == self._tree.size and head.root != self._tree.root():
                text = f"The root of the first {head.size} entries is not the one that was signed."
                self._add("root-differs", head.size, text)

    def _look(self, first: int, tile: list[bytes]) -> Iterator[Batch]:
        """Read the entries; yields the batches of these leaves."""
        for leaf, entry in enumerate(tile, first):
            while self._held is not None and self._held[0] < leaf:
                text = f"Leaf {self._held[0]} is not that of a batch."
                self._add("batch-without-leaf", self._held[0], text)
                self._held = next(self._batches, None)
            if entry[:2] == BATCHED:
                yield from self._batch(leaf, entry)
            elif not self._is_readable(entry):
                self._found.unreadable += 1

    def _batch(self, leaf: int, entry: bytes) -> Iterator[Batch]:
        from capsign_evidence.leaf_fields import LeafError
        from capsign_evidence.leaf_reader import AgentBatch, decode

        held = self._held if self._held is not None and self._held[0] == leaf else None
        if held is not None:
            self._held = next(self._batches, None)
            yield held
        try:
            decoded = decode(entry)
        except LeafError:
            self._found.unreadable += 1
            return
        assert isinstance(decoded, AgentBatch)
        for fault in self._chain.take(leaf, decoded, held):
            self._found.add(fault)

    def _is_readable(self, entry: bytes) -> bool:
        """Whether the entry can be decoded. What entries of signatures share is looked at once."""
        from capsign_evidence.leaf_fields import LeafError
        from capsign_evidence.leaf_kinds import Act
        from capsign_evidence.leaf_reader import Admin, decode

        shared = entry[:2] + entry[10:-80] if entry[:2] == b"\x01\x01" else b""
        if shared and shared in self._groups:
            return True
        try:
            decoded = decode(entry)
        except LeafError:
            return False
        if isinstance(decoded, Admin) and decoded.act in {Act.POLICY_PROPOSED, Act.POLICY_APPLIED}:
            with suppress(ValueError):
                self._proposed.add(bytes.fromhex(decoded.target.rpartition("/")[2]))
        if shared:
            if len(self._groups) >= 10_000:
                self._groups.clear()
            self._groups.add(shared)
        return True

    def _compare_policies(self) -> None:
        """Hold each document of a policy against the digests that entries name."""
        held = set()
        for document in self._archive.policies():
            digest = sha256(document).digest()
            held.add(digest)
            if digest not in self._named | self._proposed:
                text = f"No entry names the policy that is held with SHA-256 {digest.hex()}."
                self._add("policy-differs", self._tree.size, text)
        self._found.policies = len(held & (self._named | self._proposed))
        self._found.lacking = len(self._named - held)

    def _compare_summary(self, tile: int, entries: list[bytes], batches: list[Batch]) -> None:
        from capsign_evidence.archive.summary import summarise

        while self._summary is not None and self._summary[0] < tile:
            self._summary = next(self._summaries, None)
        if self._summary is None or self._summary[0] != tile:
            return
        self._found.summaries += 1
        if summarise(tile * TILE, entries, batches).encode() != self._summary[1]:
            text = (
                f"The summary of leaves {tile * TILE} to {tile * TILE + TILE - 1} is not theirs: "
                "queries that rely on it may pass them over."
            )
            self._add("summary-differs", tile * TILE, text)

    def _rest(self) -> Iterator[Batch]:
        while self._held is not None:
            yield self._held
            self._held = next(self._batches, None)

    def _add(self, kind: str, leaf: int, text: str) -> None:
        from capsign_evidence.archive.batch_chain import Fault

        self._found.add(Fault(kind, leaf, text))
