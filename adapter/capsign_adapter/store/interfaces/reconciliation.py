"""Reconciliation: which replica does it, how far it came, and the incidents that stand."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation


class ReconciliationStore(Protocol):
    """An incident's row is written and deleted in one transaction with its entry in the log."""

    def lead_reconciliation(self, replica: bytes, now_ms: int, until_ms: int) -> bool:
        """Take or renew the lease; False while another replica has it. It only saves work: who
        writes without it is found out by the revision.
        """

    def reconciliation(self) -> Reconciliation:
        """All of it, of one moment."""

    def incidents(self) -> list[IncidentRow]:
        """Those that stand, the oldest first."""

    def settle_incidents(self, before: Reconciliation, progress: Progress, now_ms: int) -> bool:
        """Write what was come to since `before`. False, with nothing written, if the revision is
        another one by now: somebody else went on.
        """
