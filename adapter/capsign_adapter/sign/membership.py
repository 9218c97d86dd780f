"""Replicas tell each other, through the store, under which epochs they work (I6).

Before a replica decides under a new epoch it writes that it works under it. Once nothing that it
decided under an older epoch can be released any more, it writes that it has drained. A revocation
waits until every replica has drained, or until the lease of a silent one has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.model.control import Laggard
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.revocation_barrier import RevocationBarrier, boot_ms
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.interfaces.replicas import Replicas

_LOOK_S = 0.02
"""Time between checks for replicas that have not drained, while a revocation waits, seconds."""


class Membership:
    """This replica's row in the store. Its id is new at every start of the process, which does not
    inherit what the last one wrote.
    """

    def __init__(
        self, store: Replicas, lease_ms: int, margin_ms: int, clock: Callable[[], int] = boot_ms
    ) -> None:
        self.replica_id = os.urandom(16)
        self._store = store
        self._lease_ms = lease_ms
        self._margin_ms = margin_ms
        self._clock = clock
        self._pause = threading.Event()
        self.drained_epoch = 0
        self._working_epoch = 0

    def works_under(self, epoch: int) -> None:
        """Write that this replica works under `epoch`. Call before its first decision under it: a
        revocation must know of every replica that decides.
        """
        self._store.announce(self.replica_id, epoch, self.drained_epoch, self._lease_ms)
        self._working_epoch = max(self._working_epoch, epoch)

    def has_drained(self, epoch: int) -> None:
        """Write that nothing decided under an older epoch can be released here any more."""
        self._store.announce(self.replica_id, epoch, epoch, self._lease_ms)
        self.drained_epoch = epoch

    def repeat(self) -> None:
        """Write the same row again. Health checks use it as a write that leaves nothing behind."""
        self._store.announce(
            self.replica_id, self._working_epoch, self.drained_epoch, self._lease_ms
        )

    def leave(self) -> None:
        """Delete this replica's row: it serves nobody any more. If the store cannot be written, the
        next revocation waits for the lease.
        """
        try:
            self._store.withdraw(self.replica_id)
        except (StoreUnavailableError, CommitUnknownError):
            logs.warning("replica.left_unsaid")

    def outlast(self, epoch: int, since_ms: int) -> None:
        """Wait until no replica can release anything that was decided under an older epoch.
        `since_ms` is when `epoch` was durable, by this clock. Raises what the store raises.
        """
        while True:
            lagging = self._store.laggards(epoch)
            waited_ms = self._clock() - since_ms
            if not any(self._counts(each, waited_ms) for each in lagging):
                break
            self._pause.wait(_LOOK_S)
        if lagging:
            gone = self._store.forget_replicas(epoch)
            logs.warning("replicas.silent", silent=len(lagging), forgotten=gone, epoch=epoch)

    def _counts(self, laggard: Laggard, waited_ms: int) -> bool:
        return waited_ms < laggard.lease_ms + self._margin_ms


class CatchUp:
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
        self._turn = threading.Lock()
        self._announced = snapshots.current.epoch

    def join(self) -> None:
        """Enter this replica into the store. Call before the first call is served."""
        self._membership.works_under(self._snapshots.current.epoch)
        self.look()

    def look(self) -> None:
        """Catch up with the store's epoch. Returns at once if there is nothing to catch up with.
        Raises what the store raises.
        """
        with self._turn:
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
            detail = (
                f"Recorded at epoch {epoch}, but the store fails: replicas may lag for seconds. "
                f"Look whether it is in force, or ask again: that does no harm."
            )
            raise FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail) from None
