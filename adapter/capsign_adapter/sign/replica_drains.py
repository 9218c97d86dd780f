"""Waits until every replica has drained: until none can release what it decided under an older
epoch (I6). They tell each other through the store.

Before a replica decides under a new epoch it writes that it works under it. Once nothing that it
decided under an older epoch can be released any more, it writes that it has drained. A revocation
waits until every replica has drained, or until the lease of a silent one has ended. How a replica
learns that there is a new epoch is in `epoch_follower`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from capsign_wire import logs

from capsign_adapter.model.control import Laggard
from capsign_adapter.sign.revocation_barrier import boot_ms
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
