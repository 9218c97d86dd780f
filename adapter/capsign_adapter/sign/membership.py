"""This replica among the others: what it says of its epochs, and how it waits for theirs (I6).

Before decisions are made under a new epoch, the store says that this replica works under it. Once
nothing decided under an older epoch can leave any more, the store says that too. A revocation waits
for the second word of every replica, or for its lease.
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
"""Between looks at those who lag, while a revocation waits, seconds."""


class Membership:
    """This replica's row. Its name is of this life of the process: a dead one's promise is not the
    next one's.
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
        """Call before the first decision under an epoch: whoever revokes must know of a replica
        that decides.
        """
        self._store.announce(self.replica_id, epoch, self.drained_epoch, self._lease_ms)
        self._working_epoch = max(self._working_epoch, epoch)

    def has_drained(self, epoch: int) -> None:
        """Nothing of an older epoch can leave this replica any more."""
        self._store.announce(self.replica_id, epoch, epoch, self._lease_ms)
        self.drained_epoch = epoch

    def repeat(self) -> None:
        """Say again what was said: a write like any other, and the store keeps nothing new."""
        self._store.announce(
            self.replica_id, self._working_epoch, self.drained_epoch, self._lease_ms
        )

    def leave(self) -> None:
        """This replica serves nobody any more. If the store cannot be told, the next revocation
        waits for a lease.
        """
        try:
            self._store.withdraw(self.replica_id)
        except (StoreUnavailableError, CommitUnknownError):
            logs.warning("replica.left_unsaid")

    def outlast(self, epoch: int, since_ms: int) -> None:
        """Wait until no replica can release anything of an older epoch. `since_ms`: when, by this
        clock, `epoch` was durable.
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
    """Follows the epoch: a fresh snapshot, news for those who watch, the drain, then this replica's
    word that it is done.
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
        """Before the first call is served."""
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
        """Return once nothing decided under an epoch below this one can leave any replica. Call
        when `epoch` is durable.

        Raises FailureError COMMIT_UNKNOWN if the store fails meanwhile: the revocation stands, and
        may not hold everywhere.
        """
        since_ms = self._clock()
        try:
            self.look()
            self._membership.outlast(epoch, since_ms)
        except (StoreUnavailableError, CommitUnknownError):
            detail = (
                f"Revoked at epoch {epoch}, but the store fails: replicas may lag for "
                f"seconds. Revoke again."
            )
            raise FailureError(failures_pb2.REASON_COMMIT_UNKNOWN, detail) from None
