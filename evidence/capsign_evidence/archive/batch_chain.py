"""Agents' batches held against their entries, and each life of an agent as an unbroken chain.

It finds what was changed, dropped, added or put in another order in the store. Whether an agent
told all it should have is another question (`capsign audit reconcile`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from capsign_wire.adapter.v1 import evidence_pb2 as pb
from google.protobuf.message import DecodeError

from capsign_evidence import told_calls
from capsign_evidence.archive.interface import Batch
from capsign_evidence.leaf_reader import AgentBatch

Life = tuple[str, bytes]
"""Workload and boot id."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What does not hold: a word for its kind, the leaf, and a sentence about it."""

    kind: str
    leaf: int
    text: str


@dataclass(slots=True)
class _Tip:
    sequence: int = 0
    batch_hash: bytes = b""
    closed: bool = False


class BatchChain:
    """Takes the entries of batches in the order of the log, each with the batch that is held for
    it. Remembers one batch hash for each life of an agent.
    """

    def __init__(self) -> None:
        self._tips: dict[Life, _Tip] = {}
        self.batches = 0

    @property
    def lives(self) -> int:
        """How many lives of agents there are."""
        return len(self._tips)

    def take(self, leaf: int, entry: AgentBatch, batch: Batch | None) -> Iterator[Fault]:
        """What does not hold about this entry, its batch, and the batches before."""
        self.batches += 1
        parsed = _parsed(batch) if batch is not None else None
        if batch is None:
            yield Fault("batch-missing", leaf, f"The batch of leaf {leaf} is not held.")
        elif hashlib.sha256(batch[2]).digest() != entry.batch_hash:
            text = f"The batch of leaf {leaf} is not the one that its entry names."
            yield Fault("batch-differs", leaf, text)
        elif parsed is None:
            yield Fault("batch-unreadable", leaf, f"The batch of leaf {leaf} cannot be read.")
        elif batch[1] != entry.workload or _contradicts(parsed, entry):
            text = (
                f"The batch of leaf {leaf} is of another workload, boot or span than its entry "
                "says."
            )
            yield Fault("batch-differs", leaf, text)
        yield from self._continued(leaf, entry, parsed.previous if parsed is not None else None)

    def _continued(self, leaf: int, entry: AgentBatch, previous: bytes | None) -> Iterator[Fault]:
        """What does not hold about it and those before; `previous` is the hash that the batch
        names, None if it cannot be told.
        """
        tip = self._tips.setdefault((entry.workload, entry.boot_id), _Tip())
        if entry.first_sequence != tip.sequence + 1:
            text = (
                f"Leaf {leaf} has records from {entry.first_sequence} on, and the batch before it "
                f"ends at {tip.sequence}."
            )
            yield Fault("chain-broken", leaf, text)
        elif previous is not None and previous != tip.batch_hash:
            text = f"The batch of leaf {leaf} does not name the one before it in its boot."
            yield Fault("chain-broken", leaf, text)
        if tip.closed:
            text = f"Leaf {leaf} goes on with a life that had ended."
            yield Fault("chain-broken", leaf, text)
        tip.sequence, tip.batch_hash = entry.last_sequence, entry.batch_hash
        tip.closed = tip.closed or entry.closes


def _parsed(batch: Batch) -> pb.AuditBatch | None:
    try:
        parsed = pb.AuditBatch.FromString(batch[2])
    except DecodeError:
        return None
    return parsed if told_calls.sound(parsed.records) else None


def _contradicts(parsed: pb.AuditBatch, entry: AgentBatch) -> bool:
    """Whether a batch says another thing than its entry."""
    sequences = [record.sequence for record in parsed.records]
    closes = bool(sequences) and parsed.records[-1].kind == pb.AUDIT_KIND_CLOSE
    return (
        parsed.boot_id != entry.boot_id
        or sequences != [*range(entry.first_sequence, entry.first_sequence + len(sequences))]
        or sequences[-1:] != [entry.last_sequence]
        or closes != entry.closes
    )
