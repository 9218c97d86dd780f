"""4. Charge: signatures to the grant's rate and the workload's evidence quota, refusals to a rate.

What was charged and then not written is given back, so that retries while a store is away cost
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from capsign_wire.failures import FailureError
from capsign_wire.token_bucket import Taken
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.evidence_quota import REFUSAL_BYTES, EvidenceQuota
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.sign.batch import Batch, Group
from capsign_adapter.sign.key_uses import KeyUseCounter
from capsign_adapter.store.errors import StoreUnavailableError

REFUSALS, NEVERS = "", "*never"
"""Names of the buckets that a workload has beside those of its grants; no grant can be called so.
"""


class Charges:
    """One for each replica. Safe for any thread."""

    def __init__(
        self,
        rates: Buckets,
        evidence: EvidenceQuota,
        refusals_per_second: int,
        uses: KeyUseCounter | None = None,
    ) -> None:
        self.uses = uses or KeyUseCounter()
        """Which keys signed, and when."""
        self._rates = rates
        self._evidence = evidence
        self._refusals_per_second = refusals_per_second

    def signatures(self, batch: Batch, group: Group) -> None:
        """Charge a group's items. Those beyond the rate or the evidence quota fail.

        Raises FailureError RATE_LIMITED if none may be signed. A batch is charged once for all its
        attempts.
        """
        if group.taken is None:
            group.taken = self._rate(batch, group)
            self._evidence_for(batch, group)
        allowed, wait_ms = group.taken
        if allowed < len(group.items):
            detail = "The grant's rate is used up."
            limited = FailureError(failures_pb2.REASON_RATE_LIMITED, detail, retry_after_ms=wait_ms)
            if not allowed:
                raise limited  # before the token has had any work
            batch.fail(group.items[allowed:], limited)
            group.open = group.items[:allowed]

    def _rate(self, batch: Batch, group: Group) -> Taken:
        peer, terms = batch.peer, group.terms
        grant, rate, burst = terms.capability.grant, terms.rate_per_second, terms.burst
        count = len(group.items)
        return self._rates.take(peer.spiffe_id, grant, rate, burst, count, peer.key_hash)

    def _evidence_for(self, batch: Batch, group: Group) -> None:
        peer, grant, taken = batch.peer, group.terms.capability.grant, group.taken
        if taken is None or not taken.granted:
            return
        try:
            self._evidence.sign(peer, taken.granted)
        except FailureError as full:
            self._rates.give_back(peer.spiffe_id, grant, taken.granted, peer.key_hash)
            group.taken = Taken(0, full.retry_after_ms)
            raise
        batch.granted += taken.granted

    def signed(self, batch: Batch, count: int, size: int) -> None:
        """Count signatures that were written, and their bytes."""
        batch.made += count
        self._evidence.signed(batch.peer, count, size)

    def refusal(self, batch: Batch) -> bool:
        """Charge one refusal. Returns False if no more of this peer may be recorded now."""
        rate, peer = self._refusals_per_second, batch.peer
        if not self._rates.take(peer.spiffe_id, REFUSALS, rate, 5 * rate, 1, peer.key_hash).granted:
            return False
        try:
            self._evidence.reserve(peer, REFUSAL_BYTES)
        except FailureError:
            return False
        batch.refused += 1
        return True

    def give_back_refusals(self, batch: Batch) -> None:
        """Give back all refusals of a batch that failed as a whole: none was written."""
        self._evidence.free(batch.peer, batch.refused * REFUSAL_BYTES)
        batch.refused = 0

    def close(self, batch: Batch) -> None:
        """Call at the end of each batch: counts what was written, and gives back the rest."""
        if batch.made:
            self.uses.note(batch)
        if batch.refused:
            self._evidence.wrote("refused", batch.refused * REFUSAL_BYTES)
        if batch.granted != batch.made:
            self._evidence.unmade(batch.peer, batch.granted - batch.made)

    @contextmanager
    def never(self, peer: Peer) -> Iterator[None]:
        """Charge the closing of an intent that was never seen, which writes a row and a leaf. Given
        back if the block fails.

        Raises FailureError RATE_LIMITED. Counted apart from refusals, so that a workload that is
        refused often can still resolve its intents.
        """
        rate = self._refusals_per_second
        granted, wait_ms = self._rates.take(
            peer.spiffe_id, NEVERS, rate, 5 * rate, 1, peer.key_hash
        )
        if not granted:
            sentence = "This workload asks too often for what was never sent."
            raise FailureError(failures_pb2.REASON_RATE_LIMITED, sentence, retry_after_ms=wait_ms)
        self._evidence.reserve(peer, REFUSAL_BYTES)
        try:
            yield
        except (StoreUnavailableError, FailureError):
            self._evidence.free(peer, REFUSAL_BYTES)
            raise
        self._evidence.wrote("never", REFUSAL_BYTES)
