"""Receipts (C2SP tlog-proof) of entries of the log, named by their leaf or by their intent."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

from capsign_evidence.leaf_reader import decode
from capsign_evidence.proofs import Trees
from capsign_evidence.receipt import make_receipt
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.ledger import Ledger


class ReceiptStore(ControlState, EvidenceLog, Ledger, Protocol):
    """The parts of the store that receipts are made from."""


@dataclass(frozen=True, slots=True)
class Located:
    """An entry and its place in the log."""

    index: int
    entry: bytes


class Receipts:
    """Finds entries and proves them. Safe for any thread."""

    def __init__(self, store: ReceiptStore, checkpoints: Checkpoints) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._trees = Trees(store.hashes)

    def at(self, index: int) -> Located:
        """The entry of this leaf. Raises FailureError NOT_IN_LOG."""
        if index >= self._store.control().tree_size:
            raise _absent("The log does not hold this leaf.")
        return Located(index, self._store.entries(index, 1)[0])

    def of_intent(self, workload: str, intent_id: bytes, index: int, caller: str = "") -> Located:
        """The entry that became of an intent. Where the ledger has the intent no more, leaf `index`
        is looked at, and must be the record of it. With `caller`, an entry that does not name this
        socket is as one that is not there. Raises FailureError NOT_IN_LOG.
        """
        row = self._store.find(workload, [intent_id]).get(intent_id)
        if row is not None:
            index = row.leaf_index
        if index < self._store.control().tree_size:
            found = self.at(index)
            recorded = getattr(decode(found.entry), "intent_id", b"")
            if (row or hmac.compare_digest(recorded, intent_id)) and asked_by(found.entry, caller):
                return found
        raise _absent(
            "The ledger has no such intent any more, and the leaf that was named is not of it. "
            "Ask with the leaf that the signature came with."
        )

    def prove(self, found: Located, now_ms: int) -> bytes:
        """The receipt, under a checkpoint that covers the entry."""
        latest = self._checkpoints.covering(found.index, now_ms)
        proof = self._trees.of(latest.tree_size).inclusion(found.index)
        return make_receipt(found.index, proof, latest.note)


def asked_by(entry: bytes, caller: str) -> bool:
    """Whether an entry names this socket of the agent; always, if none is given."""
    return not caller or getattr(getattr(decode(entry), "group", None), "caller", "") == caller


def _absent(text: str) -> FailureError:
    return FailureError(failures_pb2.REASON_NOT_IN_LOG, text)
