"""The signing path of the adapter. For each item of a batch: 1 identify, 2 verify the handle, 3
decide by policy, 4 look the intent up, 5 derive, 6 sign; then once for the batch: 7 commit ledger
and evidence in one transaction, 8 release.

1 is done by the servicer from the peer certificate. 4 happens inside 7: the ledger inserts an
intent or finds the one that is there, in the same transaction, so that nothing can come between
looking and writing. A signature that loses there is dropped and was never released (I4, I5).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from capsign_evidence import leaf as leaves
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.bounds import MAX_BATCH_ITEMS, check
from capsign_wire.failures import FailureError
from capsign_wire.intents import is_intent_id, millis_of
from capsign_wire.token_bucket import Taken
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.biscuits import Verified
from capsign_adapter.decide.budget import Budget, UsedUpError
from capsign_adapter.decide.evidence_quota import REFUSAL_BYTES, EvidenceQuota
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.model.intents import Committed, Draft, Verdict
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.sign.admit import Bound, Decided, Groups, Ready
from capsign_adapter.sign.decision_cache import Recent, name_of
from capsign_adapter.sign.edge import failure_of, now_ms, pause
from capsign_adapter.sign.fair import TURN_US, Turn, Turns, flow_of
from capsign_adapter.sign.revocation_barrier import ReleaseTicket
from capsign_adapter.sign.signing_threads import Patience, Signing
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.sign.token_turns import TokenTurns
from capsign_adapter.store.errors import CommitUnknownError, EpochMovedError, StoreUnavailableError
from capsign_adapter.store.interface import Store
from capsign_adapter.store.ledger import floor_of

EPOCH_ATTEMPTS = 5
"""How often a batch is decided anew because something was revoked meanwhile, before it is given
back.
"""

FUTURE_MS = 300_000
"""How far ahead of our clock an intent id may be: it would otherwise outlive the retention
window.
"""

PIECE = 32
"""Signatures of a batch that are committed at once where others are about: they wait behind these,
not behind a thousand.
"""

ALONE_US = 64 * TURN_US
"""Longest work of one piece where nobody else is about: who comes then waits for no more."""

REFUSALS, NEVERS = "", "*never"
"""Names of the buckets that a workload has beside those of its grants; no grant can be called
so.
"""


@dataclass(slots=True)
class Course:
    """What stays of a batch while it is decided anew."""

    taken: dict[int, Taken] = field(default_factory=dict)
    """What the rate gave each group: a batch that is decided anew is neither charged nor freed."""
    patience: Patience = field(default_factory=Patience)
    """With a token that gives no answer."""
    recorded: bool = False
    """Whether refusals that no handle vouches for are in the log."""
    granted: int = 0
    """Signatures that the rate and the evidence quota have let pass."""
    made: int = 0
    """Signatures that were written, or may have been."""
    refused: int = 0
    """Refusals that are to be recorded."""
    signed: set[int] = field(default_factory=set)
    """Places in the answer whose intent an earlier attempt has signed, before something was
    revoked.
    """


@dataclass(slots=True)
class Attempt:
    """A batch as it is worked through once under one snapshot."""

    course: Course
    peer: Peer
    now_ms: int
    oldest: bytes
    """Ids that sort below it are older than the retention."""
    snapshot: Snapshot
    answer: pb.SignResponse
    turn: Turn
    drafts: list[Draft] = field(default_factory=list)
    slots: list[pb.SignedItem] = field(default_factory=list)
    """For each draft, the item of the answer that waits for it."""
    signatures: list[bytes] = field(default_factory=list)
    """For each draft, the signature to release if the ledger takes it; empty for a refusal."""
    prefixes: list[bytes] = field(default_factory=list)
    """For each draft, how a stored answer begins that was made under what the whole group is; the
    group says that already.
    """
    unbound: list[bytes] = field(default_factory=list)
    """Leaves of refusals that no handle vouches for."""
    committed: list[Committed] = field(default_factory=list)
    """What became of the first drafts: where others are about, a large batch is committed in
    pieces.
    """
    used_up_ms: int = 0
    """How long until the budget of this peer, which part of the batch has used up, has something in
    it again.
    """


class Pipeline:
    """Runs batches, from any number of threads."""

    def __init__(
        self,
        policy: Policy,
        groups: Groups,
        recent: Recent,
        snapshots: Snapshots,
        store: Store,
        rates: Buckets,
        refusals_per_second: int,
        budget: Budget,
        turns: Turns,
        token: TokenTurns,
        evidence: EvidenceQuota,
    ) -> None:
        self._evidence = evidence
        self._policy = policy
        self._turns = turns
        self._token = token
        self._policy_digest = policy.digest
        self._message_max = policy.limits.message_max
        self._retention_ms = policy.limits.intent_retention_ms
        self._groups = groups
        self._signing = Signing()
        self._recent = recent
        self._snapshots = snapshots
        self._store = store
        self._rates = rates
        self._refusals_per_second = refusals_per_second
        self._budget = budget

    def run(self, peer: Peer, request: pb.SignRequest, ticket: ReleaseTicket) -> pb.SignResponse:
        """Answer one batch. Raises FailureError for the batch as a whole; an item's failure is in
        its place in the answer.

        The ticket takes the batch in before its commit. The caller asks the ticket to authorize the
        release before it hands the answer over, and leaves the ticket afterwards.
        """
        check(request)
        if sum(len(group.items) for group in request.groups) > MAX_BATCH_ITEMS:
            raise FailureError(
                failures_pb2.REASON_INPUT_TOO_LARGE,
                f"A batch takes at most {MAX_BATCH_ITEMS} items.",
                field="groups",
            )
        flow = flow_of(self._policy, peer, request.groups[0].caller)
        with Turn(self._turns, flow) as turn:
            self._token.begin(flow, turn)
            try:
                return self._in_turns(peer, request, ticket, turn)
            finally:
                self._token.end()

    def _in_turns(
        self, peer: Peer, request: pb.SignRequest, ticket: ReleaseTicket, turn: Turn
    ) -> pb.SignResponse:
        course = Course()
        attempt: Attempt | None = None
        try:
            for _ in range(EPOCH_ATTEMPTS):
                attempt = self._begun(course, peer, request, turn)
                try:
                    self._work(attempt, request, ticket)
                    break
                except EpochMovedError:
                    # What is signed stays in: whether it may still leave is decided anew.
                    _give_up(attempt)
                    ticket.leave()
                    self._snapshots.refresh()
            else:
                raise FailureError(
                    failures_pb2.REASON_OVERLOADED,
                    "Revocations came faster than this batch.",
                    retry_after_ms=100,
                )
        except (FailureError, StoreUnavailableError, CommitUnknownError) as error:
            if attempt is None or not (attempt.committed or course.signed):
                self._evidence.free(peer, course.refused * REFUSAL_BYTES)
                course.refused = 0
                raise
            _fail_rest(attempt, request, failure_of(error))
        finally:
            if course.refused:
                self._evidence.wrote("refused", course.refused * REFUSAL_BYTES)
            self._evidence.unmade(peer, course.granted - course.made)
        assert attempt is not None
        _release(attempt, attempt.committed)
        if course.signed:
            _own_up(attempt)
        attempt.answer.revocation_epoch = attempt.snapshot.epoch
        return attempt.answer

    def _begun(self, course: Course, peer: Peer, request: pb.SignRequest, turn: Turn) -> Attempt:
        now = now_ms()
        oldest = floor_of(max(0, now - self._retention_ms))
        return Attempt(
            course,
            peer,
            now,
            oldest,
            self._snapshots.current,
            pb.SignResponse(batch_id=request.batch_id),
            turn,
        )

    def _work(self, attempt: Attempt, request: pb.SignRequest, ticket: ReleaseTicket) -> None:
        """Steps 2 to 7 under one snapshot."""
        turn, course = attempt.turn, attempt.course
        turn.spend(cost.BATCH)
        for place, group in enumerate(request.groups):
            self._group(attempt, request, group, place, ticket)
        turn.let_go()
        if attempt.used_up_ms:
            with turn.aside():
                pause(attempt.used_up_ms)
        if attempt.unbound and not course.recorded:
            self._store.append(attempt.unbound, attempt.now_ms)
            course.recorded = True
        self._commit(attempt, ticket)

    def _commit(self, attempt: Attempt, ticket: ReleaseTicket) -> None:
        """7. Commit the drafts that wait for it. Raises EpochMovedError if something was revoked
        since the snapshot: then nothing of these was written, and what was written before is
        found there when the batch is decided anew.
        """
        waiting = attempt.drafts[len(attempt.committed) :]
        if not waiting:
            return
        attempt.turn.before_commit(len(waiting))
        if not attempt.committed and not ticket.enter(attempt.snapshot.epoch):
            # the current snapshot is a later one: the barrier is never ahead of it
            raise EpochMovedError
        try:
            results = self._store.commit(attempt.snapshot.epoch, waiting, attempt.now_ms)
        except CommitUnknownError:
            attempt.course.made += len(waiting)
            raise
        attempt.committed += results
        done, new = IntentState.DONE, Verdict.NEW
        sizes = [
            len(draft.result) + len(draft.leaf)
            for draft, result in zip(waiting, results, strict=True)
            if draft.state is done and result.verdict is new
        ]
        if sizes:
            attempt.course.made += len(sizes)
            self._evidence.signed(attempt.peer, len(sizes), sum(sizes))

    def _group(
        self,
        attempt: Attempt,
        request: pb.SignRequest,
        group: pb.SignGroup,
        place: int,
        ticket: ReleaseTicket,
    ) -> None:
        attempt.turn.spend(cost.GROUP + cost.ITEM * len(group.items))
        answer = attempt.answer.groups.add()
        items = [answer.items.add() for _ in group.items]
        try:
            if group.handle_index >= len(request.handles):
                raise FailureError(
                    failures_pb2.REASON_INPUT_MALFORMED,
                    "No such handle in this batch.",
                    field="handle_index",
                )
            token = request.handles[group.handle_index]
            name = name_of(token, attempt.peer, group)
            decided: Ready | Decided | None = self._recent.get(
                name, attempt.snapshot, attempt.now_ms
            )
            handle = (
                self._groups.verify(token, attempt.peer, attempt.now_ms, attempt.turn.spend)
                if decided is None
                else None
            )
        except FailureError as error:
            self._refuse_unbound_group(attempt, group, items, error)
            return
        if handle is not None:
            try:
                decided = self._groups.decide(handle, attempt.snapshot, group, attempt.now_ms)
            except FailureError as error:
                self._refuse_group(attempt, handle, group, items, error)
                return
        assert decided is not None
        taken = attempt.course.taken
        if place not in taken:
            workload, grant = attempt.peer.spiffe_id, decided.capability.grant
            rate, burst = decided.rate_per_second, decided.burst
            taken[place] = self._rates.take(
                workload, grant, rate, burst, len(items), attempt.peer.key_hash
            )
            if taken[place].granted:
                try:
                    self._evidence.sign(attempt.peer, taken[place].granted)
                except FailureError as full:
                    self._rates.give_back(
                        workload, grant, taken[place].granted, attempt.peer.key_hash
                    )
                    _fail(attempt, items, full)
                    taken[place] = Taken(0, full.retry_after_ms)
                    return
                attempt.course.granted += taken[place].granted
        allowed, wait_ms = taken[place]
        if allowed < len(items):
            limited = FailureError(
                failures_pb2.REASON_RATE_LIMITED,
                "The grant's rate is used up.",
                retry_after_ms=wait_ms,
            )
            _fail(attempt, items[allowed:], limited)
            if not allowed:
                return  # before the token has had any work
            items = items[:allowed]
        if isinstance(decided, Decided):
            handle, patience = decided.handle, attempt.course.patience
            try:
                if patience.gone is not None:
                    raise patience.gone
                decided = self._groups.ready(
                    decided, attempt.snapshot, attempt.peer, group, attempt.turn.spend
                )
            except FailureError as error:
                patience.failed(error)
                self._refuse_group(attempt, handle, group, items, error)
                return
            self._recent.put(name, attempt.snapshot, decided, attempt.now_ms)
        for some, slots in self._pieces(attempt, decided, group.items[:allowed], items):
            if now_ms() >= decided.until_ms:  # a batch among many waits for each of its turns
                detail = "The handle's life ended while the batch was signed."
                self._refuse_all(
                    attempt,
                    decided,
                    some,
                    slots,
                    FailureError(failures_pb2.REASON_HANDLE_EXPIRED, detail),
                )
                continue
            self._sign(attempt, decided, some, slots)
            if len(attempt.drafts) - len(attempt.committed) >= PIECE and attempt.turn.company:
                self._commit(attempt, ticket)
        answer.signed_by.CopyFrom(decided.signed_by)

    def _pieces(
        self,
        attempt: Attempt,
        ready: Ready,
        items: Sequence[pb.SignItem],
        slots: Sequence[pb.SignedItem],
    ) -> Iterator[tuple[Sequence[pb.SignItem], Sequence[pb.SignedItem]]]:
        """The items of a group: all at once for whoever is alone, otherwise as many as a turn
        takes.
        """
        begin, price = 0, cost.signature(ready.row.number, ready.signer.custody)
        while begin < len(items):
            alone = len(items) == 1 or not attempt.turn.company
            most = max(1, ALONE_US // price if alone else min(PIECE, TURN_US // price))
            if not begin and most >= len(items):
                attempt.turn.spend(price * len(items))
                yield items, slots
                return
            some = items[begin : begin + most]
            attempt.turn.spend(price * len(some))
            yield some, slots[begin : begin + most]
            begin += most

    def _sign(
        self,
        attempt: Attempt,
        ready: Ready,
        items: Sequence[pb.SignItem],
        slots: Sequence[pb.SignedItem],
    ) -> None:
        good: list[tuple[pb.SignItem, pb.SignedItem, bytes]] = []
        inputs: list[bytes] = []
        shortest, longest = _lengths(ready.row, self._message_max)
        latest = latest_intent(attempt.now_ms)
        fingerprint_of = ready.fingerprint.of
        for item, slot in zip(items, slots, strict=True):
            intent_id, data = item.intent_id, item.input
            if intent_id > latest or not is_intent_id(intent_id):
                try:
                    intent_in_time(intent_id, attempt.now_ms)
                except FailureError as error:
                    self._refuse_unbound(attempt, item, slot, error)
                    continue
            fingerprint = fingerprint_of(data)
            if not shortest <= len(data) <= longest:
                self._refuse(attempt, ready, item, slot, fingerprint, _misfit(ready.row, longest))
                continue
            good.append((item, slot, fingerprint))
            inputs.append(data)
        signatures = self._signing.sign(ready.signer, inputs, attempt.course.patience)  # 6. Sign.
        prefix, signed_leaf, sha256 = ready.stored_prefix, ready.leaf.signed, hashlib.sha256
        for (item, slot, fingerprint), signature in zip(good, signatures, strict=True):
            if isinstance(signature, FailureError):
                self._refuse(attempt, ready, item, slot, fingerprint, signature)
                continue
            intent_id = item.intent_id
            entry = signed_leaf(attempt.now_ms, intent_id, fingerprint, sha256(signature).digest())
            result = prefix + pb.SignedItem(signature=signature).SerializeToString()
            self._draft(
                attempt,
                ready,
                intent_id,
                slot,
                fingerprint,
                IntentState.DONE,
                result,
                entry,
                signature,
                prefix,
            )

    def _refuse_group(
        self,
        attempt: Attempt,
        handle: Verified,
        group: pb.SignGroup,
        slots: list[pb.SignedItem],
        error: FailureError,
    ) -> None:
        if error.outcome != failures_pb2.OUTCOME_REFUSED:
            _fail(attempt, slots, error)
            return
        try:
            self._budget.charge(attempt.peer, cost.refusals(len(slots)))
            bound = self._groups.refused(handle, attempt.peer, group)
        except FailureError as unavailable:
            _fail(attempt, slots, unavailable)
            return
        self._refuse_all(attempt, bound, group.items[: len(slots)], slots, error)

    def _refuse_all(
        self,
        attempt: Attempt,
        bound: Bound,
        items: Sequence[pb.SignItem],
        slots: Sequence[pb.SignedItem],
        error: FailureError,
    ) -> None:
        for item, slot in zip(items, slots, strict=True):
            attempt.turn.spend(cost.REFUSAL)
            try:
                intent_in_time(item.intent_id, attempt.now_ms)
            except FailureError as malformed:
                self._refuse_unbound(attempt, item, slot, malformed)
                continue
            self._refuse(attempt, bound, item, slot, bound.fingerprint.of(item.input), error)

    def _refuse(
        self,
        attempt: Attempt,
        bound: Bound,
        item: pb.SignItem,
        slot: pb.SignedItem,
        fingerprint: bytes,
        error: FailureError,
    ) -> None:
        """Refused is final for this intent: it goes into the ledger. Unavailable is not, and leaves
        no trace there.
        """
        if error.outcome != failures_pb2.OUTCOME_REFUSED:
            slot.failure.CopyFrom(error.to_item())
        elif not self._may_record_refusal(attempt):
            slot.failure.CopyFrom(_flooded().to_item())
        else:
            failure = error.to_item()
            slot.failure.CopyFrom(failure)
            entry = bound.leaf.refused(attempt.now_ms, item.intent_id, fingerprint, error.reason)
            result = failure.SerializeToString()
            self._draft(
                attempt,
                bound,
                item.intent_id,
                slot,
                fingerprint,
                IntentState.REFUSED,
                result,
                entry,
            )

    def _draft(
        self,
        attempt: Attempt,
        bound: Bound,
        intent_id: bytes,
        slot: pb.SignedItem,
        fingerprint: bytes,
        state: IntentState,
        result: bytes,
        entry: bytes,
        signature: bytes = b"",
        prefix: bytes = b"",
    ) -> None:
        now, capability = attempt.now_ms, bound.capability

        def refusal(reason: failures_pb2.Reason.ValueType) -> bytes:
            return bound.leaf.refused(now, intent_id, fingerprint, reason)

        workload, grant, serial = attempt.peer.spiffe_id, capability.grant, capability.serial
        attempt.drafts.append(
            Draft(
                workload,
                intent_id,
                fingerprint,
                grant,
                state,
                result,
                entry,
                refusal,
                serial,
                bound.max_uses,
                intent_id < attempt.oldest,
            )
        )
        attempt.slots.append(slot)
        attempt.signatures.append(signature)
        attempt.prefixes.append(prefix)

    def _refuse_unbound_group(
        self, attempt: Attempt, group: pb.SignGroup, slots: list[pb.SignedItem], error: FailureError
    ) -> None:
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            try:
                self._budget.charge(attempt.peer, cost.refusals(len(slots)))
            except FailureError as used_up:
                error = used_up
        if error.outcome != failures_pb2.OUTCOME_REFUSED:
            _fail(attempt, slots, error)
            return
        for item, slot in zip(group.items, slots, strict=True):
            attempt.turn.spend(cost.REFUSAL)
            self._refuse_unbound(attempt, item, slot, error)

    def _refuse_unbound(
        self, attempt: Attempt, item: pb.SignItem, slot: pb.SignedItem, error: FailureError
    ) -> None:
        """A refusal that binds no intent: the handle is not good, or the id is none."""
        if error.outcome == failures_pb2.OUTCOME_REFUSED:
            if not self._may_record_refusal(attempt):
                error = _flooded()
            else:
                workload, digest = attempt.peer.spiffe_id, self._policy_digest
                attempt.unbound.append(
                    leaves.refused_unbound(
                        attempt.now_ms, digest, workload, item.intent_id, error.reason
                    )
                )
        slot.failure.CopyFrom(error.to_item())

    def _may_record_refusal(self, attempt: Attempt) -> bool:
        rate, peer = self._refusals_per_second, attempt.peer
        if not self._rates.take(peer.spiffe_id, REFUSALS, rate, 5 * rate, 1, peer.key_hash).granted:
            return False
        try:
            self._evidence.reserve(peer, REFUSAL_BYTES)
        except FailureError:
            return False
        attempt.course.refused += 1
        return True

    @contextmanager
    def closing(self, peer: Peer) -> Iterator[None]:
        """Around closing an intent of this workload that nobody has seen: each is a row and a leaf.
        Raises RATE_LIMITED.

        Counted apart from refusals: who is refused often may still ask what became of the rest.
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


def _give_up(attempt: Attempt) -> None:
    """Nothing of this attempt leaves, and what of it was signed is remembered."""
    placed = zip(
        attempt.committed, attempt.drafts, attempt.slots, strict=False
    )  # not all were committed
    signed = {id(slot) for result, draft, slot in placed if _is_done(result, draft)}
    attempt.course.signed.update(
        place for place, slot in enumerate(_slots(attempt)) if id(slot) in signed
    )
    attempt.committed.clear()
    _drop_rest(attempt)


def _is_done(result: Committed, draft: Draft) -> bool:
    """Whether the ledger holds a signature for this draft's intent."""
    if result.stored is not None:
        return result.stored.state is IntentState.DONE
    return result.verdict is Verdict.NEW and draft.state is IntentState.DONE


def _slots(attempt: Attempt) -> Iterator[pb.SignedItem]:
    return (slot for group in attempt.answer.groups for slot in group.items)


def _drop_rest(attempt: Attempt) -> None:
    """Forget the drafts that were not committed."""
    done = len(attempt.committed)
    for waiting in (attempt.drafts, attempt.slots, attempt.signatures, attempt.prefixes):
        del waiting[done:]


def _fail_rest(attempt: Attempt, request: pb.SignRequest, error: FailureError) -> None:
    """What was committed before this is done and goes out; all that was not is told why. A refusal
    that is not in the ledger is none: the same intent may still be signed (I5).
    """
    _drop_rest(attempt)
    settled = {id(slot) for slot in attempt.slots}
    failure = error.to_item()
    for place, group in enumerate(request.groups):
        answer = (
            attempt.answer.groups[place]
            if place < len(attempt.answer.groups)
            else attempt.answer.groups.add()
        )
        for index in range(len(group.items)):
            slot = answer.items[index] if index < len(answer.items) else answer.items.add()
            if id(slot) in settled:
                continue
            if not slot.HasField("failure") or _outcome(slot) == failures_pb2.OUTCOME_REFUSED:
                slot.failure.CopyFrom(failure)


def _own_up(attempt: Attempt) -> None:
    """What an earlier attempt has signed, and this one does not give out, is not said not to have
    happened.
    """
    signed = attempt.course.signed
    for place, slot in enumerate(_slots(attempt)):
        if (
            place in signed
            and slot.HasField("failure")
            and _outcome(slot) != failures_pb2.OUTCOME_UNKNOWN
        ):
            slot.failure.CopyFrom(signed_before(FailureError.from_item(slot.failure)).to_item())


def _outcome(slot: pb.SignedItem) -> failures_pb2.Outcome.ValueType:
    return FailureError.from_item(slot.failure).outcome


def _release(attempt: Attempt, committed: list[Committed]) -> None:
    """8. Release: only what this commit inserted, or what an earlier one stored (I4, I5)."""
    placed = zip(
        committed, attempt.drafts, attempt.slots, attempt.signatures, attempt.prefixes, strict=True
    )
    for result, draft, slot, signature, prefix in placed:
        if result.verdict == Verdict.NEW:
            slot.leaf_index = result.leaf_index
            if signature:
                slot.signature = signature
        elif result.verdict == Verdict.REPLAY and result.stored is not None:
            if result.stored.state != IntentState.DONE:
                slot.Clear()
                slot.failure.MergeFromString(result.stored.result)
            elif signature:
                slot.Clear()
                slot.MergeFromString(result.stored.result.removeprefix(prefix))
            else:
                slot.failure.CopyFrom(signed_before(FailureError.from_item(slot.failure)).to_item())
            slot.leaf_index = result.stored.leaf_index
        else:
            expired = result.reason == failures_pb2.REASON_INTENT_EXPIRED
            why = (
                _too_old(draft.intent_id, attempt.now_ms)
                if expired
                else "The ledger does not take this intent."
            )
            refused = FailureError(result.reason, why)
            slot.failure.CopyFrom(refused.to_item())
            slot.leaf_index = result.leaf_index


def signed_before(now: FailureError) -> FailureError:
    """What is in the ledger does not leave under what no longer allows it (I2, I6). But it was
    signed: not "refused".
    """
    return FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, f"Signed before; now {now.row.name}.")


def _fail(attempt: Attempt, slots: list[pb.SignedItem], error: FailureError) -> None:
    if isinstance(error, UsedUpError):
        attempt.used_up_ms = max(attempt.used_up_ms, error.retry_after_ms)
    failure = error.to_item()
    for slot in slots:
        slot.failure.CopyFrom(failure)


def _flooded() -> FailureError:
    return FailureError(
        failures_pb2.REASON_RATE_LIMITED,
        "This workload is refused too often to record each.",
        retry_after_ms=1000,
    )


def latest_intent(now: int) -> bytes:
    """The last id that `intent_in_time` takes: ids begin with their time and sort by it."""
    return (now + FUTURE_MS).to_bytes(6, "big") + b"\xff" * 10


def intent_in_time(intent_id: bytes, now: int) -> None:
    """Raises FailureError INPUT_MALFORMED if it is no id, INTENT_FROM_FUTURE if it lies too far
    ahead.
    """
    if millis_of(intent_id) > now + FUTURE_MS:
        detail = f"The intent id lies in the future: {_clocks(intent_id, now)}."
        raise FailureError(failures_pb2.REASON_INTENT_FROM_FUTURE, detail, field="intent_id")


def _too_old(intent_id: bytes, now: int) -> str:
    return (
        f"Of this time nothing is kept any more: {_clocks(intent_id, now)}. If it is new, the "
        f"clock of its node is behind."
    )


def _clocks(intent_id: bytes, now: int) -> str:
    """What a person needs to see whose clock is wrong."""
    return (
        f"the id says {_moment(millis_of(intent_id))}, and the adapter's clock says {_moment(now)}"
    )


def _moment(millis: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(millis / 1000))
    except (
        OverflowError,
        ValueError,
        OSError,
    ):  # 48 bits of milliseconds last longer than calendars
        return f"{millis} ms after 1970"


def _lengths(row: AlgorithmRow, message_max: int) -> tuple[int, int]:
    """The shortest and the longest input that the algorithm takes here, bytes."""
    return (
        (row.max_input, row.max_input) if row.takes_digest else (0, min(row.max_input, message_max))
    )


def _misfit(row: AlgorithmRow, longest: int) -> FailureError:
    """The input has not the length that the algorithm sends upstream."""
    if row.takes_digest:
        detail = f"{row.name} takes a digest of {longest} bytes."
        return FailureError(failures_pb2.REASON_INPUT_MALFORMED, detail, field="input")
    return FailureError(
        failures_pb2.REASON_INPUT_TOO_LARGE,
        f"Messages are at most {longest} bytes here.",
        field="input",
    )
