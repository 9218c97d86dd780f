"""The parts of one replica that follow the epoch, with a clock that is told, on a store object of
its own.
"""

from __future__ import annotations

from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.sign.replica_drains import Membership
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.interfaces.whole import Store
from support.adapter_rig import RULES
from support.drafts import NOW

LEASE, MARGIN = 3000, 1000
"""Milliseconds."""


class Member:
    """See the module. `now` is its clock, milliseconds; give `clock` for a real one."""

    def __init__(
        self, store: Store, lease_ms: int = LEASE, margin_ms: int = MARGIN, clock=None
    ) -> None:
        self.now = 1_000_000
        self.store = store
        clock = clock or (lambda: self.now)
        self.membership = Membership(store, lease_ms, margin_ms, clock)
        self.barrier = RevocationBarrier(
            lease_ms, margin_ms, lambda: store.control().revocation_epoch, clock
        )
        self.snapshots = Snapshots(
            self.store,
            lambda snapshot: self.membership.works_under(snapshot.epoch),
            known=InForce(0, RULES),
        )
        self.changes = ChangeNotifier()
        self.epochs = EpochFollower(
            self.snapshots, self.barrier, self.membership, self.changes, clock
        )

    def revoke(self) -> int:
        return self.store.revoke(6, "*", lambda _: b"leaf", NOW)[0]

    def lags(self, epoch: int) -> bool:
        return self.membership.replica_id in {
            each.replica_id for each in self.store.laggards(epoch)
        }

    def pass_time_at_each_look(self, ms: int) -> list[int]:
        """From now on each look at those who lag takes so long; how many lagged at each."""
        seen: list[int] = []
        laggards = self.store.laggards

        def look(epoch: int):
            found = laggards(epoch)
            seen.append(len(found))
            self.now += ms
            return found

        self.store.laggards = look
        return seen
