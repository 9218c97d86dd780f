"""7. Commit: the ledger and the evidence log, in one transaction that compares the epoch.

The ledger looks each intent up in that same transaction, so that nothing can happen between the
look-up and the write. If the intent is there already, the new signature is dropped; it was not
released (I4, I5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from capsign_adapter.model.intents import Verdict
from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.sign import uncertain_commits
from capsign_adapter.sign.batch import Batch
from capsign_adapter.sign.charge import Charges
from capsign_adapter.store.errors import CommitUnknownError, EpochMovedError
from capsign_adapter.store.interfaces.evidence import EvidenceLog
from capsign_adapter.store.interfaces.ledger import Ledger


class LedgerAndLog(Ledger, EvidenceLog, Protocol):
    """The parts of the store that the signing path writes to."""


class Commits:
    """One for a replica; any thread."""

    def __init__(
        self, store: LedgerAndLog, charges: Charges, demand_unbroken: Callable[[], None]
    ) -> None:
        """`demand_unbroken` raises while the log contradicts what it has shown."""
        self._store = store
        self._charges = charges
        self.demand_unbroken = demand_unbroken

    def unattributed(self, batch: Batch) -> None:
        """Record the refusals without a valid handle, once for all attempts of a batch. Raises as
        `commit`.
        """
        if batch.unattributed and not batch.recorded:
            self.demand_unbroken()
            self._store.append(batch.unattributed, batch.now_ms)
            batch.recorded = True

    def commit(self, batch: Batch) -> None:
        """Commit the drafts that wait for it.

        Raises EpochMovedError if something was revoked since the snapshot: none of these was
        written then, and earlier chunks of the batch are found in the ledger when it is decided
        again. Raises FailureError LOG_ROLLED_BACK, and what the store raises.
        """
        waiting, batch.waiting = batch.waiting, []
        if not waiting:
            return
        self.demand_unbroken()
        batch.turn.before_commit(len(waiting))
        if not batch.committed and not batch.ticket.enter(batch.snapshot.epoch):
            # A later snapshot is current: the barrier is never ahead of it.
            raise EpochMovedError
        drafts = [item.draft for item in waiting]
        try:
            results = self._store.commit(batch.snapshot.epoch, drafts, batch.now_ms)
        except CommitUnknownError:
            uncertain_commits.keep_charged(batch, len(waiting))
            raise
        batch.committed += len(results)
        sign, new = IntentEvent.SIGN, Verdict.NEW
        count = size = 0
        for item, draft, result in zip(waiting, drafts, results, strict=True):
            item.committed = result
            if draft.event is sign and result.verdict is new:
                count += 1
                size += len(draft.result) + len(draft.leaf)
        if count:
            self._charges.signed(batch, count, size)
