"""The signing path of the adapter, in eight numbered steps.

For each group of a batch:
 1 identify the workload        `front/identity`: from the peer certificate, once for a stream
 2 verify the handle            `admit`, with `decide/handle_cache`
 3 decide by policy             `admit`, with `decide/admission`
 4 charge rate and evidence     `charge`; what is above the rate fails item by item
 5 derive                       `admit`, with `keys/keyring`
 6 sign                         `signatures`
then once for the batch, or in chunks while other batches are being worked on:
 7 commit ledger and evidence   `commit`: looks each intent up, and compares the epoch
 8 release                      `release`: what the ledger accepted, or had stored before

The numbers stand again at the lines where the steps happen. What is known after each step is in
the records of `batch`. A refusal can happen at any step (`refuse`); `uncertain_commits` has what
happens if the answer to 7 is lost. `front/signing_servicer` does 1
and the last part of 8: it hands the answer over if nothing was revoked meanwhile.
"""

from __future__ import annotations

from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.bounds import MAX_BATCH_ITEMS, check
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.peer import Peer
from capsign_adapter.sign import release, uncertain_commits
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.batch import Batch, Group
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.chunks import CHUNK, chunks
from capsign_adapter.sign.clock import CLOCK, Clock
from capsign_adapter.sign.commit import Commits
from capsign_adapter.sign.decision_cache import DecisionCache, name_of
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.refuse import Refusals
from capsign_adapter.sign.revocation_barrier import ReleaseTicket
from capsign_adapter.sign.scheduled_token import BatchScheduler
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.signatures import Signatures
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.errors import CommitUnknownError, EpochMovedError, StoreUnavailableError
from capsign_adapter.store.ledger import floor_of

EPOCH_ATTEMPTS = 5
"""How often a batch is decided if something is revoked meanwhile; then it fails as OVERLOADED."""


class Pipeline:
    """Runs batches. Safe for any thread."""

    def __init__(
        self,
        admission: Admission,
        decisions: DecisionCache,
        charges: Charges,
        snapshots: Snapshots,
        commits: Commits,
        turns: BatchScheduler,
        clock: Clock = CLOCK,
    ) -> None:
        self._admission = admission
        self._decisions = decisions
        self._charges = charges
        self._snapshots = snapshots
        self._turns = turns
        self._clock = clock
        self._refusals = Refusals(admission, charges)
        self._signatures = Signatures(self._refusals)
        self._commits = commits

    def run(self, peer: Peer, request: pb.SignRequest, ticket: ReleaseTicket) -> pb.SignResponse:
        """2 to 8 for one batch; `peer` was identified before (1).

        Returns the answer, with the failures of single items in it. Raises FailureError for the
        batch as a whole, and what the store raises. The batch enters the ticket before its commit.
        The caller must ask the ticket whether the answer may be released, and leave it then.
        """
        check(request)
        if sum(len(group.items) for group in request.groups) > MAX_BATCH_ITEMS:
            detail = f"A batch takes at most {MAX_BATCH_ITEMS} items."
            raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, detail, field="groups")
        with self._turns.of(peer, request.groups[0].caller) as turn:
            batch = Batch.of(peer, request, turn, ticket)
            try:
                self._decide(batch)
            except (FailureError, StoreUnavailableError, CommitUnknownError) as error:
                if uncertain_commits.fails_as_a_whole(batch):
                    self._charges.give_back_refusals(batch)
                    raise
                uncertain_commits.fail_uncommitted(batch, failure_of(error))
            finally:
                self._charges.close(batch)
            return release.answer(batch)  # 8

    def _decide(self, batch: Batch) -> None:
        """2 to 7, again if something is revoked, or the policy replaced, meanwhile. Raises
        FailureError OVERLOADED, and LOG_ROLLED_BACK before anything is made.
        """
        for _ in range(EPOCH_ATTEMPTS):
            self._commits.demand_unbroken()
            now, snapshot = self._clock.now_ms(), self._snapshots.current
            retention_ms = snapshot.policy.limits.intent_retention_ms
            batch.begin(snapshot, now, floor_of(max(0, now - retention_ms)))
            try:
                self._attempt(batch)
                return
            except EpochMovedError:
                # Nothing of this attempt is released: whether it may be is decided again.
                batch.take_back()
                batch.ticket.leave()
                self._snapshots.refresh()
        detail = "Revocations or changes of the policy came faster than this batch."
        raise FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=100)

    def _attempt(self, batch: Batch) -> None:
        """2 to 7 under one snapshot."""
        turn = batch.turn
        turn.spend(cost.BATCH)
        for group in batch.groups:
            turn.spend(cost.GROUP + cost.ITEM * len(group.items))
            try:
                signable = self._signable(batch, group)
            except FailureError as error:
                self._refusals.group(batch, group, error)
            else:
                self._sign(batch, group, signable)
        turn.release()
        if batch.used_up_ms:
            with turn.yielded():
                self._clock.pause(batch.used_up_ms)
        self._commits.unattributed(batch)
        self._commits.commit(batch)  # 7

    def _signable(self, batch: Batch, group: Group) -> Signable:
        """2 to 5. Raises FailureError if nothing of the group is signed."""
        peer, snapshot, now = batch.peer, batch.snapshot, batch.now_ms
        token = batch.token_of(group)
        name = name_of(token, peer, group.asked)
        group.signable = self._decisions.get(name, snapshot, now)
        if group.signable is None:
            spend = batch.turn.spend
            group.handle = self._admission.verify(token, peer, snapshot.policy, now, spend)  # 2
            group.admitted = self._admission.admit(group.handle, snapshot, group.asked, now)  # 3
        self._charges.signatures(batch, group)  # 4
        if group.signable is None:
            group.signable = self._derived(batch, group)  # 5
            self._decisions.put(name, snapshot, group.signable, now)
        return group.signable

    def _derived(self, batch: Batch, group: Group) -> Signable:
        """5. A token that gives no answer is not asked again for the rest of a batch."""
        breaker, peer, spend = batch.token_breaker, batch.peer, batch.turn.spend
        assert group.admitted is not None
        try:
            if breaker.error is not None:
                raise breaker.error
            return self._admission.signable(
                group.admitted, batch.snapshot, peer, group.asked, spend
            )
        except FailureError as error:
            breaker.failed(error)
            raise

    def _sign(self, batch: Batch, group: Group, signable: Signable) -> None:
        """6, and 7 after each full chunk while other batches are being worked on."""
        for some in chunks(batch.turn, signable, group.open):
            # The handle may expire while the batch waits for its turns.
            if self._clock.now_ms() >= signable.until_ms:
                detail = "The handle's life ended while the batch was signed."
                ended = FailureError(failures_pb2.REASON_HANDLE_EXPIRED, detail)
                self._refusals.all(batch, signable, some, ended)
                continue
            self._signatures.make(batch, signable, some)  # 6
            if len(batch.waiting) >= CHUNK and batch.turn.contended:
                self._commits.commit(batch)  # 7
