"""Acts that need two people: made into proposals, decided, and done, each under one epoch.

A move is decided under a snapshot, and its transaction compares the epoch: a role that is taken
away, or an identity that is revoked, while somebody approves, is found there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act, GlassReason, ProposedAct
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import approvals as rules
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.model.lifecycle import ProposalEvent
from capsign_adapter.model.proposals import MAX_PAYLOAD, ProposalRow
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.refused_moves import RefusedMoves
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.store.errors import EpochMovedError
from capsign_adapter.store.executors import Executors
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.proposals import Move, Moved, Proposals

Result = TypeVar("Result")

TRIES = 16
"""Decisions anew while others move the epoch."""

_ACTS = {
    ProposalEvent.APPROVE: Act.APPROVED,
    ProposalEvent.EXECUTE: Act.PROPOSAL_EXECUTED,
    ProposalEvent.BREAK_GLASS: Act.BROKE_GLASS,
    ProposalEvent.REJECT: Act.REJECTED,
    ProposalEvent.EXPIRE: Act.PROPOSAL_EXPIRED,
    ProposalEvent.CALL_OFF: Act.CALLED_OFF,
    ProposalEvent.OVERTAKE: Act.PROPOSAL_OVERTAKEN,
}


class ApprovalStore(Proposals, ControlState, Database, Protocol):
    """What two people leave in the store."""


class Approvals:
    """Of one replica. Any thread may call any method."""

    def __init__(
        self,
        store: ApprovalStore,
        snapshots: Snapshots,
        epochs: EpochFollower,
        executors: Executors,
        refused: RefusedMoves,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._epochs = epochs
        self._executors = executors
        self._refused = refused
        self._clock = clock

    def propose(self, actor: str, act: int, target: str, payload: bytes) -> ProposalRow:
        """Returns the proposal of an act: a new one, or the same one if it waits already. `payload`
        says exactly what will happen; `target` is in the form of an entry of the log.

        Raises FailureError ROLE_MISSING, OVERLOADED if too many wait, and what the executor's
        `state` raises.
        """
        if len(payload) > MAX_PAYLOAD:
            detail = f"The proposal has {len(payload)} bytes; at most {MAX_PAYLOAD} are taken."
            raise FailureError(failures_pb2.REASON_INPUT_TOO_LARGE, detail)

        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            rule = rules.check_propose(act, actor, standing)
            draft = ProposalRow(
                id=new_intent_id(now),
                act=act,
                target=target,
                digest=b"",
                payload=payload,
                proposer=actor,
                created_ms=now,
                expires_ms=now + standing.policy.approvals.expire_ms,
                waits_ms=rule.waits_ms(standing.policy),
            )
            return self._store.add_proposal(
                draft,
                snapshot.epoch,
                self._executors,
                lambda row, _, epoch: self._entry(Act.PROPOSED, row, actor, now, epoch),
                now,
            )

        return self._decided(attempt).row

    def approve(self, actor: str, proposal_id: bytes, digest: bytes) -> Moved:
        """Approves a proposal by a second person: the act is done at once, or waits. `digest` is
        what was shown.

        Raises FailureError NOT_FOUND, ROLE_MISSING, SAME_PERSON, PROPOSAL_CHANGED,
        ILLEGAL_TRANSITION, and what the executor raises.
        """

        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            row = self._found(proposal_id)
            rules.check_approve(row, actor, now, standing)
            rules.check_shown(row, digest)
            events: tuple[ProposalEvent, ...] = (ProposalEvent.APPROVE,)
            if not row.waits_ms:
                events += (ProposalEvent.EXECUTE,)
            return self._moved(Move(row, events, actor, snapshot.epoch, now))

        return self._done(self._asked(actor, proposal_id, attempt))

    def reject(self, actor: str, proposal_id: bytes) -> Moved:
        """Rejects a proposal by a second person. Raises FailureError as `approve`."""
        return self._one(rules.check_reject, ProposalEvent.REJECT, actor, proposal_id)

    def call_off(self, actor: str, proposal_id: bytes) -> Moved:
        """Withdraws a proposal. Raises FailureError NOT_FOUND, ROLE_MISSING, ILLEGAL_TRANSITION."""
        return self._one(rules.check_call_off, ProposalEvent.CALL_OFF, actor, proposal_id)

    def break_glass(self, actor: str, proposal_id: bytes, digest: bytes, reason: int) -> Moved:
        """Does an act that one person wants alone, for a reason of capsign.adapter.v1.GlassReason.

        Raises FailureError as `approve`, and APPROVAL_REQUIRED if nobody may for that act.
        """

        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            row = self._found(proposal_id)
            rules.check_break(row, actor, now, standing)
            rules.check_shown(row, digest)
            events = (ProposalEvent.BREAK_GLASS,)
            return self._moved(Move(row, events, actor, snapshot.epoch, now, glass=reason))

        moved = self._asked(actor, proposal_id, attempt)
        name = GlassReason(reason).name
        logs.warning("glass.broken", actor=actor, proposal=moved.row.id.hex(), reason=name)
        return self._done(moved)

    def acknowledge(self, actor: str, proposal_id: bytes) -> Moved:
        """Somebody else has looked at what was done alone. Raises FailureError NOT_FOUND,
        ROLE_MISSING, SAME_PERSON, ILLEGAL_TRANSITION.
        """

        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            row = self._found(proposal_id)
            rules.check_acknowledge(row, actor, standing)
            act = Act.GLASS_ACKNOWLEDGED
            return self._store.acknowledge_proposal(
                row,
                actor,
                snapshot.epoch,
                lambda after, _, epoch: self._entry(act, after, actor, now, epoch),
                now,
            )

        return self._asked(actor, proposal_id, attempt)

    def listed(self, actor: str, *, waiting: bool, before: bytes) -> list[ProposalRow]:
        """Returns proposals, newest first. Raises FailureError ROLE_MISSING."""
        self._demand_looking(actor)
        return self._store.proposals(waiting=waiting, before=before)

    def shown(self, actor: str, proposal_id: bytes) -> tuple[ProposalRow, list[str]]:
        """Returns a proposal, and what exactly will happen, in words. Raises FailureError
        ROLE_MISSING, NOT_FOUND.
        """
        self._demand_looking(actor)
        row = self._found(proposal_id)
        return row, list(self._executors.of(row.act).words(row))

    def broken(self) -> list[ProposalRow]:
        """Returns what was done alone, and nobody else has looked at."""
        return [row for row in self._store.proposals(waiting=True) if row.unacknowledged]

    def look(self) -> list[ProposalRow]:
        """Expire what nobody decided, and do what was approved and has waited; what of it waits
        yet. Every replica looks; the transaction decides which one does it.
        """
        rows = self._store.proposals(waiting=True)
        now = self._now()
        for row in rows:
            event = rules.due_event(row, now)
            if event is not None:
                self._by_itself(row, event)
        return rows

    def overtake(self, row: ProposalRow) -> None:
        """Ends a proposal that nobody can approve any more, unless somebody was first."""
        self._by_itself(row, ProposalEvent.OVERTAKE)

    def _by_itself(self, row: ProposalRow, event: ProposalEvent) -> None:
        try:
            self._done(self._alone(row, event))
        except FailureError as error:
            if error.reason == failures_pb2.REASON_ILLEGAL_TRANSITION:
                return  # another replica, or a person, was first
            if event is not ProposalEvent.EXECUTE or _passing(error):
                raise
            logs.warning("proposal.overtaken", proposal=row.id.hex(), reason=error.row.name)
            self._alone(row, ProposalEvent.OVERTAKE)

    def _alone(self, row: ProposalRow, event: ProposalEvent) -> Moved:
        actor = f"spiffe://{self._snapshots.policy().trust_domain}/adapter/approvals"

        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            if event is ProposalEvent.EXECUTE:
                rules.check_execute(row, standing)
            return self._moved(Move(row, (event,), actor, snapshot.epoch, now))

        return self._decided(attempt)

    def _one(
        self,
        check: Callable[[ProposalRow, str, int, Standing], None],
        event: ProposalEvent,
        actor: str,
        proposal_id: bytes,
    ) -> Moved:
        def attempt(snapshot: Snapshot, standing: Standing, now: int) -> Moved:
            row = self._found(proposal_id)
            check(row, actor, now, standing)
            return self._moved(Move(row, (event,), actor, snapshot.epoch, now))

        return self._asked(actor, proposal_id, attempt)

    def _asked(
        self, actor: str, proposal_id: bytes, attempt: Callable[[Snapshot, Standing, int], Moved]
    ) -> Moved:
        """What a person wants of a proposal; a refused move is recorded (I7)."""
        act = Act.PROPOSAL_MOVE_REFUSED
        with self._refused.recorded(actor, act, proposal_id.hex()):
            return self._decided(attempt)

    def _decided(self, attempt: Callable[[Snapshot, Standing, int], Result]) -> Result:
        """Decide under the epoch now, and anew whenever it moved before that was written."""
        for _ in range(TRIES):
            snapshot = self._snapshots.refresh()
            try:
                return attempt(snapshot, Standing(snapshot.policy, snapshot.revoked), self._now())
            except EpochMovedError:
                continue
        raise FailureError(
            failures_pb2.REASON_OVERLOADED, "The epoch keeps moving.", retry_after_ms=1000
        )

    def _moved(self, move: Move) -> Moved:
        def entry(row: ProposalRow, event: ProposalEvent | None, epoch: int) -> bytes:
            assert event is not None, "a move has an event"
            return self._entry(_ACTS[event], row, move.by, move.now_ms, epoch)

        return self._store.move_proposal(move, self._executors, entry)

    def _done(self, moved: Moved) -> Moved:
        """What follows once it is durable: in force everywhere, if it was done."""
        if moved.row.executed_ms:
            self._epochs.enforce(moved.epoch)
            self._executors.of(moved.row.act).executed(moved.row)
        return moved

    def _entry(self, act: Act, row: ProposalRow, actor: str, now: int, epoch: int) -> bytes:
        what = leaf.Proposed(row.id, ProposedAct(row.act), row.target, row.digest)
        reason = GlassReason(row.glass)
        # Of the snapshot that was decided under: were it another by now, so would be the epoch.
        digest = self._snapshots.policy().digest
        return leaf.proposal(now, digest, act, actor, what, reason, epoch)

    def _found(self, proposal_id: bytes) -> ProposalRow:
        row = self._store.proposal(proposal_id)
        if row is None:
            raise FailureError(
                failures_pb2.REASON_NOT_FOUND, "There is no proposal of that id.", field="id"
            )
        return row

    def _demand_looking(self, actor: str) -> None:
        snapshot = self._snapshots.refresh()
        Standing(snapshot.policy, snapshot.revoked).demand(actor, rules.LOOKING)

    def _now(self) -> int:
        """Returns the time, milliseconds: by the store's clock, where it has one, since a replica's
        own may be wrong.
        """
        told = self._store.clock_ms()
        return self._clock() if told is None else told


def _passing(error: FailureError) -> bool:
    """Whether it may pass: then what was approved is tried again."""
    return error.outcome != failures_pb2.OUTCOME_REFUSED
