"""The table of replicas, for which a revocation waits (docs/decisions/0010-*)."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.model.control import Laggard


class Replicas(Protocol):
    """A row for each replica that decides. It holds no time: whoever waits counts the leases."""

    def announce(self, replica_id: bytes, working: int, drained: int, lease_ms: int) -> None:
        """This replica decides under epoch `working`, and holds nothing unreleased of an epoch
        below `drained`.

        Both only rise, in whatever order threads announce. It releases a batch within `lease_ms` of
        its commit.
        """

    def withdraw(self, replica_id: bytes) -> None:
        """This replica has ended and will release nothing more."""

    def laggards(self, epoch: int) -> list[Laggard]:
        """Replicas that may still hold something of an epoch below this one."""

    def forget_replicas(self, epoch: int) -> int:
        """Delete the replicas that still work under an epoch below this one; call it when their
        leases have ended. Returns how many.

        One that is alive after all announces itself again before it works under a later epoch.
        """
