"""Follows the epoch of the store: how a replica learns of a new one, because something was revoked,
or the policy, a key version or a rollout was changed (I6).

Every such change raises the epoch in its transaction. `look` is called by a ticker and after each
change that this replica made; `enforce` waits for the others as well, with `replica_drains`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from capsign_adapter.sign import uncertain_commits
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.replica_drains import Membership
from capsign_adapter.sign.revocation_barrier import RevocationBarrier, boot_ms
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError


class EpochFollower:
    """Follows the store's epoch: reads a new snapshot, notifies watchers, drains the barrier, then
    writes that this replica has drained.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        barrier: RevocationBarrier,
        membership: Membership,
        changes: ChangeNotifier,
        clock: Callable[[], int] = boot_ms,
    ) -> None:
        self._snapshots = snapshots
        self._barrier = barrier
        self._membership = membership
        self._changes = changes
        self._clock = clock
        self._looking = threading.Lock()
        self._announced = snapshots.current.epoch

    def join(self) -> None:
        """Enter this replica into the store. Call before the first call is served."""
        self._membership.works_under(self._snapshots.current.epoch)
        self.look()

    def look(self) -> None:
        """Catch up with the store's epoch. Returns at once if there is nothing to catch up with.
        Raises what the store raises.
        """
        with self._looking:
            epoch = self._snapshots.refresh().epoch
            if epoch != self._announced:
                self._announced = epoch
                self._changes.announce()
            if epoch != self._membership.drained_epoch:
                self._barrier.drain(epoch)
                self._membership.has_drained(epoch)

    def enforce(self, epoch: int) -> None:
        """Return once no replica can release anything that was decided under an epoch below this
        one. Call when `epoch` is durable.

        Raises FailureError COMMIT_UNKNOWN if the store fails meanwhile: what was decided is
        recorded, but may not be in force everywhere.
        """
        since_ms = self._clock()
        try:
            self.look()
            self._membership.outlast(epoch, since_ms)
        except (StoreUnavailableError, CommitUnknownError):
            raise uncertain_commits.not_in_force_everywhere(epoch) from None
