"""Rollouts on a replica: what people ask, and the clockwork that takes their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from capsign_wire.adapter.v1 import rollouts_pb2_grpc
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.front.rollout_servicer import RolloutServicer
from capsign_adapter.model.lifecycle import RolloutPace
from capsign_adapter.rollout.acts import Rollouts
from capsign_adapter.rollout.clockwork import Clockwork
from capsign_adapter.rollout.making import maker
from capsign_adapter.rollout.moves import Moves
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.sign.tickers import Ticker

LOOK_S = 1.0
"""Between looks for steps that are due, seconds."""


def under_way(snapshots: Snapshots, pace: RolloutPace) -> Callable[[], int]:
    """How many rollouts of this pace have not ended, as the replica knows it."""
    return lambda: sum(
        row.pace is pace and not row.is_final for row in snapshots.current.rollouts.values()
    )


class RolloutParts:
    """Of one replica."""

    def __init__(self, state: State, metrics: Metrics) -> None:
        policy, snapshots = state.snapshots.policy, state.snapshots
        self._readers, self._standing = state.key_readers, state.snapshots.standing
        ends = metrics.counter("capsign.rollout.ends")
        moves = Moves(policy, state.store, state.epochs, now_ms, ends)
        make = maker(policy, state.token, state.store, moves.now_ms)
        self.rollouts = Rollouts(moves, make, state.refused_moves)
        self.clockwork = Clockwork(self.rollouts, snapshots)
        for pace in RolloutPace:
            metrics.gauge("capsign.rollouts", under_way(snapshots, pace), pace.name.lower())

    def register(self, registrar: Any) -> None:
        """Add the service to a server."""
        servicer = RolloutServicer(self.rollouts, self._standing)
        rollouts_pb2_grpc.add_RolloutServiceServicer_to_server(servicer, registrar)

    def ticker(self) -> Ticker:
        """Takes the steps that are due, and tells the store who fetched public keys, again and
        again; not yet started.
        """
        return Ticker("rollouts", LOOK_S, self._look)

    def _look(self) -> bool:
        self._readers.flush()
        return self.clockwork.look()
