"""Drift: the differences that are there now, what replicas report of themselves, and when keys were
used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from capsign_adapter.model.drift import Difference, DriftRow, DriftState, KeyUse, ReplicaReport

MAX_REPORTS = 256
"""Most reports that a read returns, those of who was heard of last first."""

Entry = Callable[[Difference, int, bool], bytes]
"""The entry of a difference: when it was found, and whether it is there (or gone)."""


class Drift(Protocol):
    """A row is written and deleted in one transaction with its entry in the log."""

    def drift(self) -> DriftState:
        """Rows, by kind and name, and reports, all of one moment."""

    def settle_drift(
        self,
        revision: int,
        found: Sequence[Difference],
        gone: Sequence[DriftRow],
        entry: Entry,
        now_ms: int,
    ) -> bool:
        """Insert what was found, delete what is gone, and raise the revision. False, with nothing
        written, if the revision is another by now: somebody looked meanwhile.
        """

    def report_replica(self, report: ReplicaReport, forget_before_ms: int) -> None:
        """Write this replica's report over its last one, and delete those of replicas that were not
        heard of since.
        """

    def end_report(self, replica: bytes) -> None:
        """Delete the report of a replica that stops."""


class KeyUses(Protocol):
    """Figures for people."""

    def key_uses(self) -> list[KeyUse]:
        """Of each version that signed."""

    def add_key_uses(self, uses: Sequence[KeyUse]) -> None:
        """Add the counts; the later time holds."""
