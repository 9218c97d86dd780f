"""The replicas: what a revocation waits for (docs/decisions/0010-*)."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.model.control import Laggard


class Replicas(Protocol):
    """A row for each replica that decides. No clock is stored: leases are counted by who waits."""

    def announce(self, replica_id: bytes, working: int, drained: int, lease_ms: int) -> None:
        """This replica decides under epoch `working`, and holds nothing unreleased of an epoch
        below `drained`.

        Both only rise, whatever the order in which threads announce. A batch that it committed it
        releases within `lease_ms`.
        """

    def withdraw(self, replica_id: bytes) -> None:
        """This replica has ended and will release nothing more."""

    def laggards(self, epoch: int) -> list[Laggard]:
        """Replicas that may still hold something of an epoch below this one."""

    def forget_replicas(self, epoch: int) -> int:
        """Forget those that still work under an epoch below this one, once their leases have ended;
        how many.

        One that is alive after all announces itself anew before it works under a later epoch.
        """
