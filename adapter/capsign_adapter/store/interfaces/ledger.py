"""The ledger of intents: one row for each, final from its first transaction on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from capsign_adapter.model.intents import Committed, Draft, Stored

MAX_COLLECTED = 10_000
"""Intents that one collection deletes: other writers wait that long and no longer."""


class Ledger(Protocol):
    """An intent is absent, or its row is final: there is no "pending" state.

    A row is inserted in the transaction that sequences its leaf, under a unique key of workload and
    intent id. Callers of one process share commits (`store/group_commit.py`).
    """

    def commit(self, epoch: int, drafts: Sequence[Draft], now_ms: int) -> list[Committed]:
        """Commit a batch in one transaction; results in order.

        Inside the transaction, in this order: the revocation epoch is compared (EpochMovedError);
        each draft is inserted if its (workload, intent_id) is absent; an existing row with the same
        fingerprint and grant is a REPLAY, with another one INTENT_CONFLICT, a NEVER row
        INTENT_NEVER; absent ids older than the watermark are refused INTENT_EXPIRED; uses are
        counted for drafts that are DONE and new (USES_EXHAUSTED, which gets a row in state
        REFUSED); leaves are sequenced. Two drafts of one batch with the same id: the second sees
        the first. Fingerprints are compared in constant time.
        """

    def find(self, workload: str, intent_ids: Sequence[bytes]) -> dict[bytes, Stored]:
        """The rows that exist, without writing."""

    def resolve(
        self, workload: str, intent_id: bytes, grant: str, never_leaf: bytes, now_ms: int
    ) -> Stored:
        """The row of this intent; if there is none, one in state NEVER with its leaf. Durable when
        this returns.

        Raises FailureError INTENT_EXPIRED if the id is older than the watermark and no row is left
        to tell, and INTENT_CONFLICT if the row belongs to another grant.
        """

    def collect_garbage(self, now_ms: int, retention_ms: int, limit: int = MAX_COLLECTED) -> int:
        """Move the watermark and delete up to `limit` rows older than it, in one transaction; how
        many went.

        It moves to `retention_ms` before `now_ms` or before the time of the newest intent that has
        a row, whichever is earlier, and never back. So the caller's clock alone closes no window,
        and a ledger without a row stays as it is. Revocations of single handles that ended long
        before it go too; their leaves stay.
        """
