"""Drift over any relational engine."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_adapter.model.drift import Difference, DriftRow, DriftState, KeyUse, ReplicaReport
from capsign_adapter.store import drift
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.interfaces.drift import Entry


class RelationalDrift(Engine[Connection]):
    """Implements `interfaces.drift.Drift` and `KeyUses`."""

    def drift(self) -> DriftState:
        return self.read(drift.state, snapshot=True)

    def settle_drift(
        self,
        revision: int,
        found: Sequence[Difference],
        gone: Sequence[DriftRow],
        entry: Entry,
        now_ms: int,
    ) -> bool:
        return self.write(
            lambda tx, head: drift.settle(tx, head, revision, found, gone, entry, now_ms)
        )

    def report_replica(self, report: ReplicaReport, forget_before_ms: int) -> None:
        self.write(lambda tx, _: drift.report(tx, report, forget_before_ms))

    def end_report(self, replica: bytes) -> None:
        self.write(lambda tx, _: drift.end_report(tx, replica))

    def key_uses(self) -> list[KeyUse]:
        return self.read(drift.key_uses)

    def add_key_uses(self, uses: Sequence[KeyUse]) -> None:
        self.write(lambda tx, _: drift.add_key_uses(tx, uses))
