"""What rollouts do by themselves, on every replica: whoever comes first takes a step."""

from __future__ import annotations

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.key_states import SIGNS
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import Key
from capsign_adapter.decide.rollout_steps import JUDGED, due
from capsign_adapter.decide.rotation import is_rotation_due
from capsign_adapter.model.lifecycle import RolloutEvent
from capsign_adapter.model.rollouts import RolloutRow
from capsign_adapter.rollout.acts import Rollouts
from capsign_adapter.rollout.counting import counted
from capsign_adapter.sign.snapshot import Snapshot, Snapshots

_SOMEBODY_WAS_FIRST = frozenset(
    {
        failures_pb2.REASON_ROLLOUT_CONFLICT,
        failures_pb2.REASON_ILLEGAL_TRANSITION,
    }
)


class Clockwork:
    """For one thread of a replica. While no rollout is under way and no rotation is due it asks the
    store nothing.
    """

    def __init__(self, rollouts: Rollouts, snapshots: Snapshots) -> None:
        self._rollouts = rollouts
        self._moves = rollouts.moves
        self._snapshots = snapshots

    def look(self) -> bool:
        """Count, take the steps that are due, and begin the rotations that are; whether there is
        more to count. Raises what the store raises.
        """
        snapshot = self._snapshots.current
        more = False
        for seen in snapshot.rollouts.values():
            more = self._guarded(seen) or more
        for key in self._moves.policy().keys:
            if key.rotation is not None and (key.tenant, key.name) not in snapshot.rollouts:
                self._rotate(key, snapshot)
        return more

    def _guarded(self, seen: RolloutRow) -> bool:
        try:
            return self._step(seen)
        except FailureError as error:
            if error.reason not in _SOMEBODY_WAS_FIRST:
                raise
            return False

    def _step(self, seen: RolloutRow) -> bool:
        """Whether there is more to count of it."""
        store = self._moves.store
        row = store.rollout(seen.tenant, seen.key, seen.number)
        if row is None or row.is_final:
            return False
        more = False
        if row.stage in JUDGED:
            row, more = counted(store, row, self._moves.grants(row))
        event = due(row, self._moves.world(row), self._moves.now_ms())
        # What is not counted yet may still roll it back: it goes on when all is counted.
        if event is not None and (not more or event is RolloutEvent.ROLL_BACK):
            self._moves.do(row, event)
        return more

    def _rotate(self, key: Key, snapshot: Snapshot) -> None:
        """Begin the rollout to the next version, if it is time for it."""
        rows = snapshot.versions.get((key.tenant, key.name), ())
        newest = next((row for row in rows if row.state in SIGNS), None)
        rotation = key.rotation
        if newest is None or rotation is None:
            return
        if not is_rotation_due(newest, rotation, self._moves.now_ms()):
            return
        last = self._moves.store.rollout(key.tenant, key.name, 0)
        if last is not None and not last.is_done and last.started_ms >= newest.activated_ms:
            return  # the one from this version failed, or was ended: a person decides what follows
        try:
            self._rollouts.start(self._moves.itself(), key.tenant, key.name)
        except FailureError as error:
            if error.reason not in _SOMEBODY_WAS_FIRST:
                raise
        else:
            logs.event("rollout.rotation", key=f"{key.tenant}/{key.name}")
