"""Fills a store with evidence as a fleet writes it, with the store's own functions: segments of a
commit each, agents' batches, and summaries of tiles.

A record here is a signature's or a refusal's entry; what its agent told of it comes beside it.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from capsign_adapter.model.evidence import AuditDraft
from capsign_adapter.sign.tile_summaries import TileSummaries
from capsign_adapter.store import audit, log
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.relational import RelationalStore
from capsign_adapter.store.transaction import Head, Transaction
from capsign_evidence import leaf
from capsign_evidence.packed_batch import pack
from capsign_evidence.signing_leaf import PreparedLeaf, SigningLeaf
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

POLICY = bytes(range(32))
WORKLOADS = 200
KEYS = 40
COMMIT = 32
"""Most records of a commit; one to so many share one, of up to four applications."""
REPORTED_MS = 500
"""How long an agent gathers records before it reports them: its default."""
TRANSACTION = 100
"""Commits that are written in one transaction here: each would wait for the disk by itself."""


@dataclass
class Agent:
    """One workload: what its signatures share, and what its agent has yet to report."""

    number: int
    prepared: PreparedLeaf
    workload: str
    boot: bytes
    grant: str
    sequence: int = 0
    previous: bytes = b""
    waiting: list[pb.AuditRecord] = field(default_factory=list)


class Filler:
    """Goes on for as long as it is asked; the same seed gives the same evidence."""

    def __init__(self, start_ms: int, span_ms: int, records: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._agents = [self._agent(number) for number in range(WORKLOADS)]
        self._start, self._span, self._records = start_ms, span_ms, records
        self._reports: deque[tuple[int, Agent]] = deque()
        self.made = 0

    def fill(self, store: RelationalStore) -> Iterator[int]:  # type: ignore[type-arg]
        """Write everything; yields how many records there are now, after each transaction."""
        numbers = {one.workload: store.workload_id(one.workload) for one in self._agents}
        while self.made < self._records:
            store.write(lambda tx, head: self._transaction(tx, head, numbers))
            yield self.made

    def _transaction(self, tx: Transaction, head: Head, numbers: dict[str, int]) -> None:
        for _ in range(TRANSACTION):
            if self.made >= self._records:
                return
            now = self._start + self._span * self.made // self._records
            agents = self._random.sample(self._agents, self._random.randint(1, 4))
            count = min(self._random.randint(1, COMMIT), self._records - self.made)
            first = head.tree_size
            leaves = [
                self._record(self._random.choice(agents), now, first + place)
                for place in range(count)
            ]
            log.sequence(tx, head, leaves, now)
            self.made += count
            while self._reports and self._reports[0][0] + REPORTED_MS <= now:
                _, agent = self._reports.popleft()
                draft = self._batch(agent, now)
                number = numbers[agent.workload]
                audit.submit(tx, head, number, draft, pack(draft.batch), now)

    def _record(self, agent: Agent, now: int, index: int) -> bytes:
        value = bytearray(now.to_bytes(6, "big") + self._random.randbytes(10))
        value[6], value[8] = (value[6] & 0x0F) | 0x70, (value[8] & 0x3F) | 0x80
        intent = bytes(value)
        refused = self._random.random() < 0.02
        self._report(agent, now, intent, index, refused=refused)
        if refused:
            return agent.prepared.refused(
                now, intent, self._random.randbytes(32), failures_pb2.REASON_RATE_LIMITED
            )
        return agent.prepared.signed(
            now, intent, self._random.randbytes(32), self._random.randbytes(32)
        )

    def _report(self, agent: Agent, now: int, intent: bytes, index: int, *, refused: bool) -> None:
        if not agent.waiting:
            self._reports.append((now, agent))
        kinds = (pb.AUDIT_KIND_INTENT, pb.AUDIT_KIND_OUTCOME)
        for kind in kinds:
            agent.sequence += 1
            record = pb.AuditRecord(
                sequence=agent.sequence,
                time_ms=now,
                kind=kind,
                intent_id=intent,
                grant=agent.grant,
                algorithm=algorithms_pb2.ALGORITHM_ED25519,
                caller="app",
            )
            if kind == pb.AUDIT_KIND_OUTCOME:
                record.elapsed_ms = 3
                record.outcome = failures_pb2.OUTCOME_DONE
                record.leaf_index_plus_one = index + 1
                if refused:
                    record.outcome = failures_pb2.OUTCOME_REFUSED
                    record.reason = failures_pb2.REASON_RATE_LIMITED
            agent.waiting.append(record)

    def _batch(self, agent: Agent, now: int) -> AuditDraft:
        records, agent.waiting = agent.waiting, []
        data = pb.AuditBatch(
            boot_id=agent.boot, previous=agent.previous, records=records
        ).SerializeToString(deterministic=True)
        digest = hashlib.sha256(data).digest()
        previous, agent.previous = agent.previous, digest
        span = records[0].sequence, records[-1].sequence
        entry = leaf.agent_batch(
            now, POLICY, agent.workload, agent.boot, *span, digest, closes=False
        )
        return AuditDraft(agent.workload, agent.boot, previous, *span, False, data, digest, entry)

    def _agent(self, number: int) -> Agent:
        workload = f"spiffe://cluster.example/ns/team-{number % 20}/sa/service-{number}"
        grant = f"service-{number}-documents"
        shared = SigningLeaf(
            workload=workload,
            tenant=f"team-{number % 20}",
            key=f"documents-{number % KEYS}",
            purpose="document-signing",
            grant=grant,
            handle_serial=self._random.randbytes(16),
            policy_digest=POLICY,
            cert_key_hash=self._random.randbytes(32),
            key_version=3,
            algorithm=algorithms_pb2.ALGORITHM_ED25519,
            custody=algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY,
            context_digest=self._random.randbytes(32),
            caller="app",
        )
        return Agent(number, shared.prepare(), workload, self._random.randbytes(16), grant)


def summarise(store: Store) -> Iterator[int]:
    """Make the summaries that a replica makes in the background; yields how many tiles have one."""
    summaries = TileSummaries(store)
    while summaries.step():
        yield store.summarised_tiles()
