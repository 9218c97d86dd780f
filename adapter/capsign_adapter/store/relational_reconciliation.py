"""Reconciliation over any relational engine."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_evidence.reconcile.incidents import Incident

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation
from capsign_adapter.store import reconciliation
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.interfaces.reconciliation import Closing


class RelationalReconciliation(Engine[Connection]):
    """Implements `interfaces.reconciliation.ReconciliationStore`."""

    def lead_reconciliation(self, replica: bytes, now_ms: int, until_ms: int) -> bool:
        return self.write(lambda tx, _: reconciliation.lead(tx, replica, now_ms, until_ms))

    def reconciliation(self) -> Reconciliation:
        return self.read(reconciliation.read, snapshot=True)

    def reconciled_through(self) -> int:
        return self.read(reconciliation.through)

    def incidents(self) -> list[IncidentRow]:
        return self.read(reconciliation.incidents)

    def file_incident(
        self, incident: Incident, entry: bytes, now_ms: int, more: Sequence[bytes] = ()
    ) -> bool:
        return self.write(
            lambda tx, head: reconciliation.file(tx, head, incident, [entry, *more], now_ms)
        )

    def close_incident(self, leaf_index: int, entries: Closing, now_ms: int) -> bool:
        return self.write(
            lambda tx, head: reconciliation.close(tx, head, leaf_index, entries, now_ms)
        )

    def settle_incidents(self, before: Reconciliation, progress: Progress, now_ms: int) -> bool:
        return self.write(
            lambda tx, head: reconciliation.settle(tx, head, before.revision, progress, now_ms)
        )
