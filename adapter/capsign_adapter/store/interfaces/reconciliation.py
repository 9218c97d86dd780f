"""Reconciliation: which replica does it, how far it came, and the incidents that stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from capsign_evidence.reconcile.incidents import Incident

from capsign_adapter.model.reconciliation import IncidentRow, Progress, Reconciliation

Closing = Callable[[Incident], Sequence[bytes]]
"""The entries that say that an incident was closed."""


class ReconciliationStore(Protocol):
    """An incident's row is written and deleted in one transaction with its entry in the log."""

    def lead_reconciliation(self, replica: bytes, now_ms: int, until_ms: int) -> bool:
        """Take or renew the lease; False while another replica has it. One that ends ten times as
        late as this one would is nobody's: a clock that was ahead wrote it. It only saves work: who
        writes without it is found out by the revision.
        """

    def reconciled_through(self) -> int:
        """The next entry to read, as it was last written down; 0 at the very beginning."""

    def reconciliation(self) -> Reconciliation:
        """All of it, of one moment."""

    def incidents(self) -> list[IncidentRow]:
        """Those that stand, the oldest first."""

    def file_incident(
        self, incident: Incident, entry: bytes, now_ms: int, more: Sequence[bytes] = ()
    ) -> bool:
        """Write an incident that was not found by following the log, with its entry and `more` that
        say who filed it. False, with nothing written, if it stands already, or as many as may
        (`MAX_STANDING`, `MAX_OF_WORKLOAD`).
        """

    def close_incident(self, leaf_index: int, entries: Closing, now_ms: int) -> bool:
        """Delete the incident whose finding is this entry, with the entries that say so. False if
        there is none.
        """

    def settle_incidents(self, before: Reconciliation, progress: Progress, now_ms: int) -> bool:
        """Write what was come to since `before`. False, with nothing written, if the revision is
        another one by now: somebody else went on.
        """
