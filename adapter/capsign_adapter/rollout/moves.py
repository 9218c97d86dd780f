"""Writes the changes of rollouts: each with its leaf and the key version that moves with it, in one
transaction, and in force when it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.rollout_leaf import RolloutStep
from capsign_wire import logs
from capsign_wire.telemetry import Counter

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.readiness import Readiness, expected, readiness
from capsign_adapter.decide.rollout_cohort import is_counted
from capsign_adapter.decide.rollout_samples import summary
from capsign_adapter.decide.rollout_steps import JUDGED, World, verdict_now, version_event
from capsign_adapter.model.lifecycle import KeyEvent, PaceEvent, RolloutEvent, RolloutStage
from capsign_adapter.model.rollouts import RolloutMove, RolloutRow, VersionMove, moved
from capsign_adapter.rollout.counting import CountedStore
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.key_readers import KeyReaders
from capsign_adapter.store.interfaces.key_versions import KeyVersions

ACTS: Mapping[RolloutEvent | PaceEvent, Act] = MappingProxyType(
    {
        RolloutEvent.PUBLISHED: Act.ROLLOUT_PROPAGATES,
        RolloutEvent.PROPAGATED: Act.ROLLOUT_CANARY,
        RolloutEvent.WIDEN: Act.ROLLOUT_WIDENED,
        RolloutEvent.DUAL_SIGN: Act.ROLLOUT_SIGNS_TWICE,
        RolloutEvent.PROMOTE: Act.ROLLOUT_PROMOTED,
        RolloutEvent.RETIRE: Act.ROLLOUT_RETIRES,
        RolloutEvent.FINISH: Act.ROLLOUT_DONE,
        RolloutEvent.ABORT: Act.ROLLOUT_ABORTED,
        RolloutEvent.ROLL_BACK: Act.ROLLOUT_ROLLED_BACK,
        RolloutEvent.OVERTAKE: Act.ROLLOUT_OVERTAKEN,
        PaceEvent.PAUSE: Act.ROLLOUT_PAUSED,
        PaceEvent.DOUBT: Act.ROLLOUT_DOUBTED,
        PaceEvent.RESUME: Act.ROLLOUT_RESUMED,
    }
)
"""What each event is called in the log."""

_KEY_ACTS = MappingProxyType(
    {
        KeyEvent.PUBLISH: Act.KEY_PUBLISHED,
        KeyEvent.ACTIVATE: Act.KEY_ACTIVATED,
        KeyEvent.DEACTIVATE: Act.KEY_DEACTIVATED,
    }
)

_WITHDRAWS = frozenset({RolloutEvent.ABORT, RolloutEvent.ROLL_BACK, RolloutEvent.OVERTAKE})
"""After these nothing may leave any more that was signed with what is new (I6)."""


class RolloutStore(CountedStore, KeyVersions, KeyReaders, Database, Protocol):
    """What is asked of the store about rollouts."""


class Moves:
    """Of one replica; any thread."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        store: RolloutStore,
        epochs: EpochFollower,
        clock: Callable[[], int],
        ends: Counter,
    ) -> None:
        """`ends` counts the rollouts that this replica saw to their end, by which."""
        self.policy = policy
        self.store = store
        self._epochs = epochs
        self._clock = clock
        self._ends = ends

    def now_ms(self) -> int:
        """Returns the time for all replicas, milliseconds: the store's clock, where it has one."""
        told = self.store.clock_ms()
        return self._clock() if told is None else told

    def world(self, row: RolloutRow) -> World:
        """Returns what the rollout depends on now."""
        ours = [
            each
            for each in self.store.key_versions()
            if (each.tenant, each.key) == (row.tenant, row.key)
        ]
        workloads = self.workloads(row)
        inside = sum(is_counted(row, workload) for workload in workloads)
        world = World(sorted(ours, key=lambda each: -each.version), inside, len(workloads))
        if not row.plan.readiness_required or row.stage is not RolloutStage.PROPAGATE:
            return world
        return replace(world, missing=len(self.readiness(row, world).missing))

    def readiness(self, row: RolloutRow, world: World) -> Readiness:
        """Who has fetched the public keys of the version that it leads to, and who has not."""
        version = world.version(row.after.version)
        published_ms = version.published_ms if version is not None else 0
        readers = self.store.key_readers(row.tenant, row.key) if published_ms else []
        who = expected(self.policy(), row.tenant, row.key, readers)
        return readiness(row.after.version, published_ms, readers, who)

    def workloads(self, row: RolloutRow) -> frozenset[str]:
        """Returns every workload that policy lets use the key."""
        granted = (
            grant.workloads
            for grant in self.policy().grants
            if (grant.tenant, grant.key) == (row.tenant, row.key)
        )
        return frozenset().union(*granted)

    def grants(self, row: RolloutRow) -> frozenset[str]:
        """Returns the names of the grants that let use the key."""
        return frozenset(
            grant.name
            for grant in self.policy().grants
            if (grant.tenant, grant.key) == (row.tenant, row.key)
        )

    def do(self, row: RolloutRow, event: RolloutEvent | PaceEvent, actor: str = "") -> RolloutRow:
        """Move it on, and return when that is in force on every replica where it withdraws
        something. An empty `actor`: the rollout itself.

        Raises FailureError ROLLOUT_CONFLICT or ILLEGAL_TRANSITION if somebody was first.
        """
        now = self.now_ms()
        after, epoch = self.store.move_rollout(self.move_of(row, event, actor, now), now)
        name = f"{row.tenant}/{row.key}"
        logs.event("rollout.moved", key=name, number=row.number, stage=after.stage.name.lower())
        if after.is_final:
            self._ends.add(after.stage.name.lower())
        if event in _WITHDRAWS:
            self._epochs.enforce(epoch)
        else:
            self._epochs.look()
        return after

    def started(self, row: RolloutRow, overtakes: RolloutRow | None) -> RolloutRow:
        """Records a rollout that begins, and returns it. Raises FailureError ROLLOUT_CONFLICT."""
        now, over = self.now_ms(), None
        if overtakes is not None:
            over = self.move_of(overtakes, RolloutEvent.OVERTAKE, row.started_by, now)
        act = Act.ROLLOUT_STARTED
        entry = self._leaf(row, act, row.started_by, now)
        begun, epoch = self.store.start_rollout(row, act, entry, now, over)
        logs.event("rollout.started", key=f"{row.tenant}/{row.key}", number=begun.number)
        if over is None:
            self._epochs.look()
        else:
            self._ends.add(moved(over.row, over.event, now).stage.name.lower())
            self._epochs.enforce(epoch)
        return begun

    def move_of(
        self, row: RolloutRow, event: RolloutEvent | PaceEvent, actor: str, now_ms: int
    ) -> RolloutMove:
        """Returns the change, ready to be written."""
        found = version_event(row, event, self.world(row))
        version = None
        if found is not None:
            moves, happens = found
            act, digest = _KEY_ACTS[happens], self.policy().digest
            by = actor or self.itself()
            version = VersionMove(
                moves,
                happens,
                lambda epoch: leaf.admin(now_ms, digest, act, by, moves.name, epoch),
            )
        entry = self._leaf(row, ACTS[event], actor, now_ms)
        return RolloutMove(row, event, ACTS[event], actor, entry, version)

    def itself(self) -> str:
        """Returns in whose name a rollout moves a key version by itself."""
        return f"spiffe://{self.policy().trust_domain}/adapter/rollout"

    def _leaf(
        self, row: RolloutRow, act: Act, actor: str, now_ms: int
    ) -> Callable[[RolloutRow, int], bytes]:
        """Returns what makes the log's entry of a change of `row` from the row after it."""
        digest, figures = self.policy().digest, row.figures
        verdict = 0
        if row.stage in JUDGED:
            # only its figures roll it back; on whose word they do depends on the time that was left
            believed = act is Act.ROLLOUT_ROLLED_BACK
            verdict = int(verdict_now(row, believes_one=believed))

        def entry(after: RolloutRow, epoch: int) -> bytes:
            return RolloutStep(
                time_ms=now_ms,
                policy_digest=digest,
                act=act,
                rollout=after.id,
                revision=after.revision,
                actor=actor,
                tenant=after.tenant,
                key=after.key,
                before_version=after.before.version,
                before_algorithm=after.before.algorithm,
                after_version=after.after.version,
                after_algorithm=after.after.algorithm,
                stage=int(after.stage),
                step=after.step,
                pace=int(after.pace),
                verdict=verdict,
                epoch=epoch,
                first_leaf=figures.first_leaf,
                through_leaf=figures.through_leaf,
                after=summary(figures.after),
                before=summary(figures.before),
            ).encode()

        return entry
