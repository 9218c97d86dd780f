"""A log in memory that signs checkpoints, and asks witnesses for cosignatures."""

from __future__ import annotations

from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.merkle import EMPTY_ROOT
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import TreeReader
from capsign_evidence.witness_protocol import AddCheckpoint
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.log_model import MemoryLog

ORIGIN = "log.capsign.test/main"


class WitnessedLog:
    """`leaves` are its entries; two logs with the same key and other leaves are a fork."""

    def __init__(self, leaves: list[bytes], origin: str = ORIGIN) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.key = VerifierKey(origin, self._private.public_key().public_bytes_raw())
        self._log = MemoryLog()
        self._log.append(leaves)

    def root(self, size: int) -> bytes:
        return TreeReader(self._log.hashes, size).root() if size else EMPTY_ROOT

    def checkpoint(self, size: int) -> bytes:
        return sign_checkpoint(size, self.root(size), self.key, self._private.sign)

    def request(self, old: int, new: int) -> bytes:
        """The body of add-checkpoint."""
        proof = TreeReader(self._log.hashes, new).consistency(old) if 0 < old <= new else []
        return AddCheckpoint(old, tuple(proof), self.checkpoint(new)).encode()


def log_and_fork() -> tuple[WitnessedLog, WitnessedLog]:
    """Two logs under one key that part after the third leaf."""
    leaves = [bytes((number,)) for number in range(20)]
    return WitnessedLog(leaves), WitnessedLog([*leaves[:3], *(b"x" + one for one in leaves[3:])])
