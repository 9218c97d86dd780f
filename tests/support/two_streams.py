"""A deployment in a few lines: a log that is a list, agents with journals that are lists, and a
network that can be cut. It makes real entries and real batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from capsign_evidence import leaf
from capsign_evidence.signing_leaf import SigningLeaf
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import failures_pb2

NOW = 1_700_000_000_000
POLICY = bytes(32)
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
WORKLOAD = "spiffe://capsign.test/shop/checkout"
OTHER = "spiffe://capsign.test/shop/other"


def numbered(number: int, length: int = 16) -> bytes:
    return number.to_bytes(length, "big")


@dataclass
class Log:
    """The adapter's side: entries, and the bytes of the batches by leaf index."""

    now_ms: int = NOW
    entries: list[bytes] = field(default_factory=list)
    batches: dict[int, bytes] = field(default_factory=dict)
    intents: int = 0

    def add(self, entry: bytes) -> int:
        self.entries.append(entry)
        return len(self.entries) - 1

    def intent(self) -> bytes:
        self.intents += 1
        return numbered(self.intents)

    def sign(self, workload: str, key: bytes, intent_id: bytes, signature: bytes = b"") -> int:
        group = SigningLeaf(
            workload=workload,
            tenant="shop",
            key="orders",
            purpose="orders",
            grant="orders",
            handle_serial=bytes(16),
            policy_digest=POLICY,
            cert_key_hash=key,
            key_version=1,
            algorithm=1,
            custody=1,
            context_digest=bytes(32),
        )
        signed = group.prepare().signed(
            self.now_ms, intent_id, bytes(32), hashlib.sha256(signature).digest()
        )
        return self.add(signed)

    def take(self, workload: str, batch: bytes, kept: bytes | None = None) -> int:
        """The entry of a batch; `kept`: other bytes than those that the entry names."""
        read = pb.AuditBatch.FromString(batch)
        index = self.add(
            leaf.agent_batch(
                self.now_ms,
                POLICY,
                workload,
                read.boot_id,
                read.records[0].sequence,
                read.records[-1].sequence,
                hashlib.sha256(batch).digest(),
                closes=read.records[-1].kind == pb.AUDIT_KIND_CLOSE,
            )
        )
        self.batches[index] = batch if kept is None else kept
        return index


class Agent:
    """An agent with a journal. `crash` begins its next life; the journal stays."""

    def __init__(self, log: Log, number: int, workload: str = WORKLOAD) -> None:
        self.log, self.number, self.workload = log, number, workload
        self.lives = 0
        self.sealed: list[bytes] = []
        """Batches of all lives that are not delivered yet, oldest first."""
        self.reached = True
        self.alive = True
        self.last_ms = log.now_ms
        self.taken = 0
        self._begin([])

    def _begin(self, left: list[tuple[bytes, int]]) -> None:
        self.lives += 1
        self.boot = numbered(self.number * 1000 + self.lives)
        self.key = hashlib.sha256(self.boot).digest()
        self.previous, self.sequence = b"", 0
        self.records: list[pb.AuditRecord] = []
        self.write(pb.AuditRecord(kind=pb.AUDIT_KIND_OPEN))
        for boot, through in left:
            self.write(
                pb.AuditRecord(
                    kind=pb.AUDIT_KIND_RECOVERED, other_boot=boot, other_sequence=through
                )
            )
        self.write(pb.AuditRecord(kind=pb.AUDIT_KIND_IDENTITY_ISSUED, certificate_key=self.key))

    def write(self, record: pb.AuditRecord) -> None:
        self.sequence += 1
        record.sequence, record.time_ms = self.sequence, self.log.now_ms
        self.records.append(record)

    def sign(self, *, answered: bool = True, signature: bytes = b"") -> bytes:
        intent_id = self.log.intent()
        self.asked(intent_id)
        if self.reached:
            index = self.log.sign(self.workload, self.key, intent_id, signature)
        if self.reached and answered:
            self.done(intent_id, index)
        elif answered:
            self.write(
                pb.AuditRecord(
                    kind=pb.AUDIT_KIND_OUTCOME,
                    intent_id=intent_id,
                    outcome=failures_pb2.OUTCOME_UNKNOWN,
                )
            )
        return intent_id

    def asked(self, intent_id: bytes) -> None:
        self.write(pb.AuditRecord(kind=pb.AUDIT_KIND_INTENT, intent_id=intent_id))

    def done(self, intent_id: bytes, index: int) -> None:
        self.write(
            pb.AuditRecord(
                kind=pb.AUDIT_KIND_OUTCOME,
                intent_id=intent_id,
                outcome=failures_pb2.OUTCOME_DONE,
                leaf_index_plus_one=index + 1,
            )
        )

    def speak(self) -> None:
        """What a living agent does every 15 minutes, whether it has anything to tell or not."""
        self.write(pb.AuditRecord(kind=pb.AUDIT_KIND_ALIVE, leaf_index_plus_one=self.taken))

    def seal(self) -> None:
        if not self.records:
            return
        batch = pb.AuditBatch(boot_id=self.boot, previous=self.previous, records=self.records)
        data = batch.SerializeToString(deterministic=True)
        self.previous = hashlib.sha256(data).digest()
        self.sealed.append(data)
        self.records = []

    def deliver(self, most: int = 1 << 30) -> None:
        self.seal()
        while self.reached and self.sealed and most:
            self.taken = self.log.take(self.workload, self.sealed.pop(0)) + 1
            most -= 1

    def crash(self) -> None:
        """Killed with -9 and started again on its journal."""
        through = self.sequence if self.records or self._of_this_life() else 0
        self.seal()
        self._begin([(self.boot, through)])

    def _of_this_life(self) -> bool:
        return any(pb.AuditBatch.FromString(one).boot_id == self.boot for one in self.sealed)

    def end(self) -> None:
        """Drained."""
        self.write(pb.AuditRecord(kind=pb.AUDIT_KIND_CLOSE))
        self.deliver()
        self.alive = False
