"""The log's entries and the agents' batches over any relational engine, and over the cold files
that the oldest were moved to.
"""

from __future__ import annotations

from pathlib import Path

from capsign_evidence.merkle import MAX_SIZE

from capsign_adapter.store import audit, cold, log
from capsign_adapter.store.cold_files import ColdFiles
from capsign_adapter.store.cold_reads import ColdReads
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.transaction import Reader

Batches = list[tuple[int, str, bytes]]


class RelationalEvidence(Engine[Connection]):
    """Implements the reading half of `interfaces.evidence`, and `interfaces.cold`."""

    def __init__(self, dialect: str, place: str) -> None:
        super().__init__(dialect, place)
        self._cold = ColdFiles(None)

    def use_cold_files(self, directory: Path, reads: ColdReads | None = None) -> None:
        self._cold = ColdFiles(directory, reads)

    def moved_leaves(self) -> int:
        return self.read(cold.moved)

    def leaf_written_ms(self, index: int) -> int:
        return self.read(lambda tx: cold.written_ms(tx, index))

    def retire(self, before: int, end: int, leaf: bytes, now_ms: int) -> int | None:
        return self.write(lambda tx, head: cold.retire(tx, head, before, end, leaf, now_ms))

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        try:
            return self.read(lambda tx: log.read_hashes(tx, level, first, count))
        except log.MovedError as moved:
            here = min(count, moved.held - first)
            found = self._cold.hashes(moved.size, first, here)
        return found + self.hashes(level, first + here, count - here)

    def entries(self, first: int, count: int) -> list[bytes]:
        try:
            return self.read(lambda tx: log.read_entries(tx, first, count))
        except log.MovedError as moved:
            here = min(count, moved.held - first)
            found = self._cold.entries(moved.size, first, here)
        return found + self.entries(first + here, count - here)

    def audit_batches(
        self,
        workload: str = "",
        first_leaf: int = 0,
        limit: int = 256,
        end_leaf: int | None = None,
    ) -> Batches:
        limit = max(0, min(limit, audit.MAX_BATCHES))
        end = MAX_SIZE if end_leaf is None else end_leaf

        def read(tx: Reader) -> tuple[int, int, Batches]:
            size = cold.moved(tx)
            held = cold.held_from(tx) if size else 0
            if first_leaf < held:
                return size, held, []
            return size, held, audit.batches(tx, workload, first_leaf, end, limit)

        size, held, found = self.read(read, snapshot=True)
        if first_leaf >= held:
            return found
        found = self._cold.batches(size, first_leaf, min(held, end), workload, limit)
        if len(found) == limit or end <= held:
            return found
        return found + self.audit_batches(workload, held, limit - len(found), end)
