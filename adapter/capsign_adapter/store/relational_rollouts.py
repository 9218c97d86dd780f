"""Rollouts over any relational engine."""

from __future__ import annotations

from capsign_adapter.model.rollouts import Figures, RolloutMove, RolloutRow, RolloutStep
from capsign_adapter.store import rollout_history, rollouts
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.rollouts import Leaf


class RelationalRollouts(Engine[Connection]):
    """Implements `interfaces.rollouts.Rollouts`."""

    def rollouts(self, tenant: str = "", key: str = "") -> list[RolloutRow]:
        return self.read(lambda tx: rollouts.listed(tx, tenant, key))

    def rollout(self, tenant: str, key: str, number: int) -> RolloutRow | None:
        return self.read(lambda tx: rollouts.one(tx, tenant, key, number))

    def rollouts_in_force(self) -> list[RolloutRow]:
        return self.read(rollouts.in_force)

    def rollout_steps(self, rollout_id: bytes) -> list[RolloutStep]:
        return self.read(lambda tx: rollout_history.steps(tx, rollout_id))

    def start_rollout(
        self,
        row: RolloutRow,
        act: int,
        leaf: Leaf,
        now_ms: int,
        overtakes: RolloutMove | None = None,
    ) -> tuple[RolloutRow, int]:
        return self.write(
            lambda tx, head: rollouts.start(tx, head, row, act, leaf, now_ms, overtakes)
        )

    def move_rollout(self, move: RolloutMove, now_ms: int) -> tuple[RolloutRow, int]:
        return self.write(lambda tx, head: rollouts.move(tx, head, move, now_ms))

    def tally_rollout(self, row: RolloutRow, figures: Figures) -> bool:
        return self.write(lambda tx, _: rollouts.tally(tx, row, figures))
