"""What people ask of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from capsign_evidence.leaf_kinds import Act
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import rollout_start
from capsign_adapter.decide.rollout_steps import (
    BOTH_NEEDED,
    following,
    is_open_to_people,
    is_overtaken,
)
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import PaceEvent, RolloutEvent, RolloutStage
from capsign_adapter.model.rollouts import RolloutRow, RolloutStep, SignsWith
from capsign_adapter.rollout.moves import Moves
from capsign_adapter.sign.refused_moves import RefusedMoves

Maker = Callable[[str, str, str, int], KeyVersionRow]
"""Makes the next version of a key, which does not sign yet: actor, tenant, key, and the newest
version that there was.
"""


class Rollouts:
    """Of one replica; any thread. Who may ask is decided before."""

    def __init__(self, moves: Moves, make: Maker, refused: RefusedMoves) -> None:
        self.moves = moves
        self._store = moves.store
        self._make = make
        self._refused = refused

    def start(
        self,
        actor: str,
        tenant: str,
        key: str,
        algorithm: int = 0,
        *,
        new_version: bool = False,
        overtake: bool = False,
    ) -> RolloutRow:
        """Begins a rollout to a new version, or to another algorithm, or to both.

        What was made for it and could not be used waits for the next one. Raises FailureError
        ROLLOUT_CONFLICT if one is under way and is not to be overtaken, KEY_NOT_ACTIVE, NOT_FOUND,
        ALGORITHM_NOT_ALLOWED, and what the maker raises.
        """
        running = self._running(tenant, key)
        if running is not None and not overtake:
            detail = f"Rollout {running.number} of {tenant}/{key} is under way."
            raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
        rows = self._versions(tenant, key)
        before = rollout_start.before_of(rows, running, f"{tenant}/{key}")
        now = self._open_algorithm(tenant, key, before) if algorithm else 0
        if algorithm:
            policy = self.moves.policy()
            rollout_start.demand_algorithm(policy, tenant, key, algorithm, now)
            new_version = new_version or algorithm not in before.algorithms
        after = before
        if new_version or not algorithm:
            after = self._next_version(actor, rows, before)
        goal = SignsWith(after.version, algorithm)
        return self._begin(actor, before, SignsWith(before.version, now), goal, running)

    def undo(self, actor: str, tenant: str, key: str, to: int) -> RolloutRow:
        """Begin one back to what rollout number `to` led to, or with 0 to what was before the last
        one that is done. A version that was deactivated does not come back: a new one is made.
        """
        name = f"{tenant}/{key}"
        goal, undone = rollout_start.goal_of(self._store.rollouts(tenant, key), to, name)
        rows = self._versions(tenant, key)
        before = rollout_start.before_of(rows, None, name)
        now = self._open_algorithm(tenant, key, before) if goal.algorithm else 0
        same = goal.algorithm and goal.algorithm != now and goal.algorithm in before.algorithms
        after = before
        if not same or undone.is_version_change:
            after = self._next_version(actor, rows, before)
        back = SignsWith(after.version, goal.algorithm)
        return self._begin(actor, before, SignsWith(before.version, now), back, None, undone.id)

    def pause(self, actor: str, tenant: str, key: str) -> RolloutRow:
        """Pauses the rollout: it takes no further step by itself."""
        return self._moved(actor, tenant, key, PaceEvent.PAUSE)

    def resume(self, actor: str, tenant: str, key: str) -> RolloutRow:
        """Resumes the rollout: it takes its steps by itself."""
        return self._moved(actor, tenant, key, PaceEvent.RESUME)

    def abort(self, actor: str, tenant: str, key: str) -> RolloutRow:
        """Rolls back: all sign as before when this returns."""
        return self._moved(actor, tenant, key, RolloutEvent.ABORT)

    def promote(
        self, actor: str, tenant: str, key: str, *, full: bool = False, revision: int = 0
    ) -> RolloutRow:
        """Go to the next step now, or with `full` let all sign with what is new. Raises
        FailureError ROLLOUT_CONFLICT while verifiers have time to fetch the public keys, and if it
        has not this `revision` any more.
        """
        with self.recorded(actor, tenant, key):
            row = self._under_way(tenant, key)
            if revision and row.revision != revision:
                detail = f"Rollout {row.number} of {tenant}/{key} has moved on: look at it again."
                raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
            if not is_open_to_people(row, self.moves.world(row), self.moves.now_ms()):
                detail = (
                    f"Verifiers are fetching the new public keys of {tenant}/{key}: nobody signs "
                    "with them before they had the time for it that the policy states."
                )
                raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
            if full and row.stage is RolloutStage.PROPAGATE:
                row = self.moves.do(row, following(row), actor)
            all_at_once = full and row.stage in BOTH_NEEDED
            event = RolloutEvent.PROMOTE if all_at_once else following(row)
            return self.moves.do(row, event, actor)

    def listed(self, tenant: str, key: str) -> list[RolloutRow]:
        """Returns the rollouts of a key, newest first."""
        return self._store.rollouts(tenant, key)

    def shown(self, tenant: str, key: str, number: int) -> tuple[RolloutRow, list[RolloutStep]]:
        """Returns a rollout with its steps. Raises FailureError NOT_FOUND."""
        row = self._store.rollout(tenant, key, number)
        if row is None:
            which = f"rollout {number}" if number else "rollout"
            detail = f"{tenant}/{key} has no {which}."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
        return row, self._store.rollout_steps(row.id)

    def _begin(
        self,
        actor: str,
        version: KeyVersionRow,
        before: SignsWith,
        after: SignsWith,
        overtakes: RolloutRow | None,
        previous: bytes = b"",
    ) -> RolloutRow:
        row = RolloutRow(
            id=new_intent_id(self.moves.now_ms()),
            tenant=version.tenant,
            key=version.key,
            before=before,
            after=after,
            plan=self.moves.policy().rollouts,
            started_by=actor,
            started_ms=self.moves.now_ms(),
            previous=previous,
        )
        return self.moves.started(row, overtakes)

    def _next_version(
        self, actor: str, rows: Sequence[KeyVersionRow], before: KeyVersionRow
    ) -> KeyVersionRow:
        """Returns a version that waits to be used, or one that is made now."""
        waiting = rollout_start.waiting_of(rows, before)
        if waiting is not None:
            return waiting
        return self._make(actor, before.tenant, before.key, rows[0].version)

    def _moved(
        self, actor: str, tenant: str, key: str, event: PaceEvent | RolloutEvent
    ) -> RolloutRow:
        with self.recorded(actor, tenant, key):
            return self.moves.do(self._under_way(tenant, key), event, actor)

    def recorded(self, actor: str, tenant: str, key: str) -> AbstractContextManager[None]:
        """Around what a person wants of a rollout: what is refused is recorded (I7)."""
        return self._refused.recorded_of_key(actor, Act.ROLLOUT_MOVE_REFUSED, tenant, key)

    def _under_way(self, tenant: str, key: str) -> RolloutRow:
        """Returns the rollout under way. Raises FailureError NOT_FOUND, ROLLOUT_OVERTAKEN, or
        ROLLOUT_CONFLICT if it has ended.
        """
        row, _ = self.shown(tenant, key, 0)
        name = f"Rollout {row.number} of {tenant}/{key}"
        if not row.is_final and is_overtaken(row, self.moves.world(row)):
            row = self.moves.do(row, RolloutEvent.OVERTAKE)
        if row.stage is RolloutStage.OVERTAKEN:
            raise FailureError(
                failures_pb2.REASON_ROLLOUT_OVERTAKEN, f"{name} was overtaken and goes no further."
            )
        if row.is_final:
            ended = row.stage.name.lower().replace("_", " ")
            detail = f"{name} is {ended}. To go back behind one that is done, undo it."
            raise FailureError(failures_pb2.REASON_ROLLOUT_CONFLICT, detail)
        return row

    def _running(self, tenant: str, key: str) -> RolloutRow | None:
        row = self._store.rollout(tenant, key, 0)
        return row if row is not None and not row.is_final else None

    def _versions(self, tenant: str, key: str) -> Sequence[KeyVersionRow]:
        """Returns the versions of a key, newest first."""
        ours = [row for row in self._store.key_versions() if (row.tenant, row.key) == (tenant, key)]
        return sorted(ours, key=lambda row: -row.version)

    def _open_algorithm(self, tenant: str, key: str, version: KeyVersionRow) -> int:
        """Returns the algorithm of calls that leave it open, now."""
        for row in reversed(self._store.rollouts_in_force()):
            if (row.tenant, row.key) == (tenant, key) and row.is_done:
                return row.after.algorithm
        return version.algorithms[0]
