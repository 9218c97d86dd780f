"""Rollouts of an adapter's inside, with a clock that is told."""

from __future__ import annotations

from dataclasses import replace

from capsign_adapter.decide.rate import Buckets
from capsign_adapter.model.lifecycle import RolloutStage
from capsign_adapter.model.rollouts import RolloutRow
from capsign_adapter.rollout.acts import Rollouts
from capsign_adapter.rollout.clockwork import Clockwork
from capsign_adapter.rollout.making import maker
from capsign_adapter.rollout.moves import Moves
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.refused_moves import RefusedMoves
from capsign_adapter.sign.replica_drains import Membership
from capsign_evidence.leaf_reader import Signed, SignedTwice, decode
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2
from support.adapter_rig import OPERATOR, AdapterRig
from support.rollouts import ML_DSA, PLAN

KEY = ("demo", "orders")


class Clock:
    """Of all replicas of a test, milliseconds since 1970."""

    def __init__(self) -> None:
        self.now = now_ms()

    def __call__(self) -> int:
        return self.now


class RolloutRig:
    """One replica: its rollouts, and the clockwork that takes their steps."""

    def __init__(self, rig: AdapterRig, clock: Clock, plan=PLAN, **policy) -> None:
        self.rig, self.clock, self.metrics = rig, clock, Metrics()
        grants = tuple(
            replace(grant, algorithms=grant.algorithms | {ML_DSA}) if grant.key == KEY[1] else grant
            for grant in rig.policy.grants
        )
        self.policy = replace(rig.policy, rollouts=plan, **{"grants": grants, **policy})
        membership = Membership(rig.store, 3000, 1000)
        self.epochs = EpochFollower(rig.snapshots, rig.barrier, membership, rig.changes)
        self.epochs.join()
        moves = Moves(
            lambda: self.policy,
            rig.store,
            self.epochs,
            clock,
            self.metrics.counter("capsign.rollout.ends"),
        )
        make = maker(lambda: self.policy, rig.token, rig.store, clock)
        refused = RefusedMoves(
            rig.store, lambda: self.policy.digest, Buckets(lambda: clock.now), clock
        )
        self.rollouts = Rollouts(moves, make, refused)
        self.clockwork = Clockwork(self.rollouts, rig.snapshots)

    def start(self, algorithm: int = 0, **wish) -> RolloutRow:
        return self.rollouts.start(OPERATOR, *KEY, algorithm, **wish)

    def look(self, passed_ms: int = 0) -> RolloutRow:
        """Let time pass, look, and say where the newest rollout is."""
        self.clock.now += passed_ms
        self.epochs.look()
        while self.clockwork.look():
            pass
        return self.newest()

    def newest(self) -> RolloutRow:
        return self.rig.store.rollout(*KEY, 0)

    def until(self, stage: RolloutStage, step: int = 0) -> RolloutRow:
        """Promote until it is there; verifiers get their time."""
        row = self.look()
        while (row.stage, row.step) != (stage, step):
            if row.stage in {RolloutStage.PUBLISH, RolloutStage.PROPAGATE}:
                row = self.look(PLAN.propagation_ms)
            else:
                row = self.rollouts.promote(OPERATOR, *KEY)
        return row

    def signed_with(self, **group) -> int:
        """The key version of one signature, as its leaf has it."""
        (item,) = self.rig.sign(b"m", **group)
        assert item.signatures, item.failure
        entry = decode(self.rig.store.entries(item.leaf_index, 1)[0])
        assert isinstance(entry, Signed | SignedTwice)
        return entry.group.key_version

    def sign(self, count: int, **group) -> None:
        assert all(item.signatures for item in self.rig.sign(*[b"m"] * count, **group))


ED25519 = algorithms_pb2.ALGORITHM_ED25519
