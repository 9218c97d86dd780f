"""An evidence log in memory, as adapters show it, and its forks."""

from __future__ import annotations

import copy
import itertools

from capsign_evidence import merkle
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.note import Note, SignatureLine, VerifierKey
from capsign_evidence.proofs import TreeReader
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FORKS = itertools.count(1)


class FakeLog:
    """Leaves below 256, so that one tile holds them."""

    def __init__(self, origin: str = "log.test", leaves: int = 3) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.key = VerifierKey(origin, self.private.public_key().public_bytes_raw())
        self.leaves: list[bytes] = []
        self.asked: list[tuple[int, int]] = []
        """Size and age that each look asked for."""
        self.proves = True
        """Whether a checkpoint comes with its proof, as an adapter of this release has it."""
        self.shows: int | None = None
        """A size to show in place of the newest."""
        self.grow(leaves)

    def grow(self, count: int = 1, by: bytes = b"leaf") -> FakeLog:
        """Append leaves."""
        self.leaves += [by + b"%d" % (len(self.leaves) + n) for n in range(count)]
        return self

    def fork(self, leaves: int = 1) -> FakeLog:
        """A copy that goes on by itself, under the same key."""
        other = copy.copy(self)
        other.leaves, other.asked = list(self.leaves), []
        return other.grow(leaves, b"fork %d " % next(_FORKS))

    def forged(self) -> FakeLog:
        """A copy whose signatures another key makes."""
        other = self.fork(0)
        other.private = Ed25519PrivateKey.generate()
        return other

    def tree(self, size: int) -> TreeReader:
        hashes = [merkle.leaf_hash(leaf) for leaf in self.leaves]
        return TreeReader(lambda _, first, count: hashes[first : first + count], size)

    def checkpoint(self, size: int | None = None) -> bytes:
        """A signed checkpoint, of the newest tree if no size is given."""
        size = len(self.leaves) if size is None else size
        text = TreeHead(self.key.name, size, self.tree(size).root()).text()
        signature = self.private.sign(text.encode())
        return Note(text, (SignatureLine(self.key.name, self.key.key_id, signature),)).encode()

    def consistency(self, old: int, new: int) -> list[bytes]:
        return self.tree(new).consistency(old) if 0 < old <= new else []
