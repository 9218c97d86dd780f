"""The log of `two_streams` in a store of SQLite."""

from __future__ import annotations

import hashlib

from capsign_adapter.model.evidence import AuditDraft
from capsign_adapter.store.sqlite import SqliteStore
from capsign_evidence.incident_leaf import IncidentKind, IncidentLeaf, IncidentState
from capsign_evidence.leaf_kinds import Kind
from capsign_evidence.leaf_reader import AgentBatch, decode
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from support.two_streams import POLICY, Log


class StoredLog(Log):
    """The log of the simulated deployment, in a store."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__()
        self.store = store

    def add(self, entry: bytes) -> int:
        self.entries.append(entry)
        if entry[1] == Kind.AGENT_BATCH:
            return len(self.entries) - 1  # `take` stores it
        return self.store.append([entry], self.now_ms)

    def take(self, workload: str, batch: bytes, kept: bytes | None = None) -> int:
        super().take(workload, batch, kept)
        return self.store.submit_audit(self.draft(workload, batch), self.now_ms).leaf_index

    def draft(self, workload: str, batch: bytes) -> AuditDraft:
        """What an adapter makes of a batch."""
        read = pb.AuditBatch.FromString(batch)
        return AuditDraft(
            workload=workload,
            boot_id=read.boot_id,
            previous=read.previous,
            first_sequence=read.records[0].sequence,
            last_sequence=read.records[-1].sequence,
            closes=read.records[-1].kind == pb.AUDIT_KIND_CLOSE,
            batch=batch,
            batch_hash=hashlib.sha256(batch).digest(),
            leaf=self.entries[-1],
        )

    def silence(self, batch: bytes) -> None:
        """What a running adapter writes about the life of this batch."""
        read = decode(batch)
        assert isinstance(read, AgentBatch)
        kind, state = IncidentKind.SILENCE, IncidentState.FOUND
        fields = (read.workload, read.boot_id, b"", b"", 0, 2, 2, 0, self.now_ms)
        self.add(IncidentLeaf(self.now_ms, POLICY, kind, state, *fields).encode())
