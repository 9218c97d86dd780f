"""The part of a relational store that is about control state: the epoch, revocations, replicas."""

from __future__ import annotations

from collections.abc import Callable

from capsign_adapter.model.control import Control, Laggard, Revocation
from capsign_adapter.store import registry
from capsign_adapter.store.engine import Connection, Engine
from capsign_adapter.store.interfaces.control import MAX_REVOCATIONS
from capsign_adapter.store.transaction import READ_HEAD, Reader


class RelationalControl(Engine[Connection]):
    """Implements `interfaces.control.ControlState` and `interfaces.replicas.Replicas`."""

    def control(self) -> Control:
        row = self.read(lambda tx: tx.one(READ_HEAD))
        assert row is not None
        return Control(row[0], row[1], row[2])

    def revoke(
        self,
        kind: int,
        target: str,
        leaf: Callable[[int], bytes],
        now_ms: int,
        by: str = "",
    ) -> tuple[int, int]:
        return self.write(
            lambda tx, head: registry.revoke(tx, head, kind, target, leaf, now_ms, by)
        )

    def revocation_history(
        self, before_epoch: int = 0, limit: int = MAX_REVOCATIONS
    ) -> list[Revocation]:
        return self.read(lambda tx: registry.revocation_history(tx, before_epoch, limit))

    def announce(self, replica_id: bytes, working: int, drained: int, lease_ms: int) -> None:
        self.write(lambda tx, _: registry.announce(tx, replica_id, working, drained, lease_ms))

    def withdraw(self, replica_id: bytes) -> None:
        self.write(lambda tx, _: tx.send("DELETE FROM replicas WHERE replica_id = ?", replica_id))

    def laggards(self, epoch: int) -> list[Laggard]:
        return self.read(lambda tx: registry.laggards(tx, epoch))

    def forget_replicas(self, epoch: int) -> int:
        return self.write(
            lambda tx, _: tx.run("DELETE FROM replicas WHERE working_epoch < ?", epoch)
        )

    def revocations(self) -> tuple[int, list[Revocation]]:
        def read(tx: Reader) -> tuple[int, list[Revocation]]:
            row = tx.one(READ_HEAD)
            assert row is not None
            return row[0], registry.revocations(tx)

        return self.read(read, snapshot=True)
