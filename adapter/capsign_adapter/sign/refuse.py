"""Refusals, and what is recorded of them.

* *Refused* is final for an intent: it goes into the ledger with its leaf.
* Without a valid handle there is no grant to bind an intent to: a leaf alone (unattributed).
* *Unavailable* is not final and is not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_evidence import leaf as leaves
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.batch import Batch, Group, Item
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.intent_time import intent_in_time
from capsign_adapter.sign.scope import HandleScope
from capsign_adapter.store.stored_result import of_refusal


class Refusals:
    """One for a replica; any thread."""

    def __init__(self, admission: Admission, charges: Charges) -> None:
        self._admission = admission
        self._charges = charges

    def group(self, batch: Batch, group: Group, error: FailureError) -> None:
        """Fail all items of a group that are still open, before any is signed."""
        items = group.open
        scope: HandleScope | None = None
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            try:
                self._admission.budget.charge(batch.peer, cost.refusals(len(items)))
                if group.handle is not None:
                    scope = self._scope(batch, group.handle, group)
            except FailureError as unavailable:
                error = unavailable
        if error.outcome != failures_pb2.OUTCOME_REFUSED:
            batch.fail(items, error)
        elif scope is not None:
            self.all(batch, scope, items, error)
        else:
            for item in items:
                batch.turn.spend(cost.REFUSAL)
                self.unattributed(batch, item, error)

    def _scope(self, batch: Batch, handle: Verified, group: Group) -> HandleScope | None:
        """What binds the intents of a group; None for an erased tenant, whose commitments nobody
        can make.
        """
        snapshot = batch.snapshot
        if snapshot.revoked.of_erased(handle.capability.tenant) is not None:
            return None
        return self._admission.refused(handle, snapshot.policy, batch.peer, group.asked)

    def all(
        self, batch: Batch, scope: HandleScope, items: Sequence[Item], error: FailureError
    ) -> None:
        """Refuse items under a valid handle."""
        for item in items:
            batch.turn.spend(cost.REFUSAL)
            try:
                intent_in_time(item.intent_id, batch.now_ms)
            except FailureError as malformed:
                self.unattributed(batch, item, malformed)
                continue
            item.fingerprint = scope.fingerprint_of(item.asked)
            self.one(batch, scope, item, error)

    def one(self, batch: Batch, scope: HandleScope, item: Item, error: FailureError) -> None:
        """Refuse an item whose fingerprint is set, or fail it if `error` is not final."""
        if error.outcome == failures_pb2.OUTCOME_REFUSED and not self._charges.refusal(batch):
            error = _flooded()
        item.failure = failure = error.to_item()
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            intent_id, fingerprint = item.intent_id, item.fingerprint
            leaf = scope.leaf.refused(batch.now_ms, intent_id, fingerprint, error.reason)
            batch.draft([item], scope, IntentEvent.REFUSE, [of_refusal(failure)], [leaf])

    def unattributed(self, batch: Batch, item: Item, error: FailureError) -> None:
        """Refuse an item without binding its intent: the handle or the intent id is not valid."""
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            if not self._charges.refusal(batch):
                error = _flooded()
            else:
                now, workload, intent_id = batch.now_ms, batch.peer.spiffe_id, item.intent_id
                digest = batch.snapshot.policy.digest
                leaf = leaves.refused_unbound(now, digest, workload, intent_id, error.reason)
                batch.unattributed.append(leaf)
        item.failure = error.to_item()


def _flooded() -> FailureError:
    return FailureError(
        failures_pb2.REASON_RATE_LIMITED,
        "This workload is refused too often to record each.",
        retry_after_ms=1000,
    )
