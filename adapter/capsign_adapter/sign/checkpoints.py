"""Signs checkpoints (C2SP tlog-checkpoint) with the log's key in the token. A checkpoint is stored
durably before anybody gets it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import TreeReader
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_adapter.keys import labels
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.token.interface import Token

TURN_S = 10.0
"""Longest wait for another thread that signs a checkpoint, seconds."""


class GrowingLog(ControlState, EvidenceLog, Protocol):
    """The parts of the store that checkpoints are made from."""


class Checkpoints:
    """Gives signed tree heads. Safe for any thread; one signs at a time."""

    def __init__(
        self,
        store: GrowingLog,
        token: Token,
        origin: str,
        yielded: Callable[[], AbstractContextManager[object]] = nullcontext,
        turn_s: float = TURN_S,
    ) -> None:
        """`yielded` is entered while one is made, and while another thread is waited for: `turn_s`
        seconds at most.
        """
        self._turn_s = turn_s
        self._yielded = yielded
        self._store = store
        self._token = token
        self._key = VerifierKey(origin, _raw_public_key(token))
        self._signing = threading.Lock()
        self._latest: Checkpoint | None = store.latest_checkpoint()

    @property
    def verifier_key(self) -> str:
        """The C2SP signed-note verifier key, in text form."""
        return self._key.text()

    def current(self, now_ms: int) -> Checkpoint:
        """Returns a checkpoint that covers the tree as it is now. The last one, if the tree did not
        grow.

        Raises what token and store raise, and FailureError OVERLOADED if another thread takes
        longer than `turn_s` to make one: while a token hangs, callers do not queue behind each
        other.
        """
        size = self._store.control().tree_size
        if (known := self._of(size)) is not None:
            return known
        with self._yielded():
            return self._made(size, now_ms)

    def _made(self, size: int, now_ms: int) -> Checkpoint:
        if not self._signing.acquire(timeout=self._turn_s):
            sentence = "The adapter's token or store takes too long to make a checkpoint."
            raise FailureError(failures_pb2.REASON_OVERLOADED, sentence, retry_after_ms=1000)
        try:
            # whoever held the lock may have made it
            return self._of(size) or self._sign_one(now_ms)
        finally:
            self._signing.release()

    def _of(self, size: int) -> Checkpoint | None:
        latest = self._latest
        return latest if latest is not None and latest.tree_size >= size else None

    def _sign_one(self, now_ms: int) -> Checkpoint:
        size = self._store.control().tree_size
        root = TreeReader(self._store.hashes, size).root()
        fresh = Checkpoint(size, root, sign_checkpoint(size, root, self._key, self._sign), now_ms)
        self._store.save_checkpoint(fresh)
        self._latest = fresh
        return fresh

    def covering(self, leaf_index: int, now_ms: int) -> Checkpoint:
        """Returns a checkpoint whose tree holds this leaf; the last one, if it does."""
        latest = self._latest
        return (
            latest if latest is not None and latest.tree_size > leaf_index else self.current(now_ms)
        )

    def _sign(self, text: bytes) -> bytes:
        return self._token.sign(labels.LOG, algorithms_pb2.ALGORITHM_ED25519, text)


def _raw_public_key(token: Token) -> bytes:
    spki = token.public_key(labels.LOG)
    return spki[
        -32:
    ]  # RFC 8410: the Ed25519 SubjectPublicKeyInfo ends with the 32 bytes of the key
