"""Keeps committed signatures from being released after a revocation has answered (I6;
docs/decisions/0010-*).

A commit under epoch E shows that nothing was revoked since E when it began. From there a batch may
be released for one lease. Whoever revokes waits until every replica has drained the older epochs,
or until all leases that began before have ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from capsign_wire import logs

from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError

_TICK_S = 0.05
"""Longest wait of a drain before it reads the clock again, seconds."""


def boot_ms() -> int:
    """The clock of leases: milliseconds since the machine started, including those in which it was
    suspended.
    """
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class ReleaseTicket:
    """What one stream or call needs before a batch may be released to its peer.

    It holds one batch at a time: `enter` before the commit, `authorize_release` before the answer
    goes to gRPC, `leave` when the answer is on the wire or never will be. One thread calls these;
    the barrier's threads read the fields, under its lock.
    """

    __slots__ = ("_barrier", "_cancel", "authorized", "cancelled", "closed", "deadline", "epoch")

    def __init__(self, barrier: RevocationBarrier, cancel: Callable[[], object]) -> None:
        self._barrier = barrier
        self._cancel = cancel
        self.epoch = 0
        """The revocation epoch under which the batch was decided; 0 while it holds none."""
        self.deadline = 0
        """End of the lease by the barrier's clock, milliseconds: release must be authorized before
        it, and what was authorized must be on the wire by then.
        """
        self.authorized = False
        self.cancelled = False
        self.closed = False

    def enter(self, epoch: int) -> bool:
        """Take in a batch decided under `epoch` and begin its lease. Call before the commit, or
        before the read that shows that `epoch` is the current one. Returns False if a later epoch
        is known, or the call is over.
        """
        return self._barrier.enter(self, epoch)

    def authorize_release(self) -> bool:
        """Whether the batch may go to gRPC now; call it last. A ticket that never entered holds
        nothing of the ledger: True.
        """
        return not self.epoch or self._barrier.authorize_release(self)

    def leave(self) -> None:
        """The batch is on the wire, or never will be. Wakes a revocation that waits for it."""
        if self.epoch:
            self._barrier.leave(self)

    def close(self) -> None:
        """The call is over, maybe before its thread has noticed: its batch leaves, and no other
        enters.
        """
        self._barrier.close(self)

    def cancel(self) -> None:
        """End the stream: its peer did not read the answer within the lease."""
        self._cancel()


class RevocationBarrier:
    """All release tickets of a replica: a revocation waits here until no older batch can leave.

    Any thread may call any method. `epoch_now` reads the store's revocation epoch; `clock` counts
    milliseconds and never goes back. A lease lasts `lease_ms`; half of `margin_ms` is granted to
    streams that were ended at its end.
    """

    def __init__(
        self,
        lease_ms: int,
        margin_ms: int,
        epoch_now: Callable[[], int],
        clock: Callable[[], int] = boot_ms,
    ) -> None:
        self._lease_ms = lease_ms
        self._grace_ms = margin_ms // 2  # the other half is for clocks that run at different rates
        self._epoch_now = epoch_now
        self._clock = clock
        # Used directly by those that do not wait: the condition costs three times as much.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._floor = 0
        self._active: set[ReleaseTicket] = set()

    def ticket(self, cancel: Callable[[], object]) -> ReleaseTicket:
        """A ticket for one stream or call; `cancel` ends that stream."""
        return ReleaseTicket(self, cancel)

    def enter(self, ticket: ReleaseTicket, epoch: int) -> bool:
        """See ReleaseTicket. The lease begins here, before the store is asked, so that it can only
        be shorter than it might be.
        """
        deadline = self._clock() + self._lease_ms
        with self._lock:
            if epoch < self._floor or ticket.closed:
                return False
            ticket.epoch, ticket.deadline, ticket.authorized = epoch, deadline, False
            self._active.add(ticket)
            return True

    def authorize_release(self, ticket: ReleaseTicket) -> bool:
        """See ReleaseTicket. A batch whose lease ran out in a slow commit gets another lease if the
        store says that its epoch is still the current one.
        """
        return self._authorize_release(ticket) or (
            self._renew(ticket) and self._authorize_release(ticket)
        )

    def _authorize_release(self, ticket: ReleaseTicket) -> bool:
        with self._lock:
            if self._clock() >= ticket.deadline or ticket.cancelled:
                return False
            ticket.authorized = True
            return True

    def _renew(self, ticket: ReleaseTicket) -> bool:
        deadline = self._clock() + self._lease_ms
        try:
            if self._epoch_now() != ticket.epoch:
                return False
        except (StoreUnavailableError, CommitUnknownError):
            return False
        with self._lock:
            if ticket.epoch < self._floor:
                return False
            ticket.deadline = deadline
            return True

    def leave(self, ticket: ReleaseTicket) -> None:
        """See ReleaseTicket."""
        with self._lock:
            self._leave(ticket)

    def close(self, ticket: ReleaseTicket) -> None:
        """See ReleaseTicket."""
        with self._lock:
            ticket.closed = True
            self._leave(ticket)

    def _leave(self, ticket: ReleaseTicket) -> None:
        self._active.discard(ticket)
        waited_for = ticket.epoch < self._floor
        ticket.epoch = 0
        if waited_for:
            self._changed.notify_all()

    @property
    def is_open(self) -> bool:
        """Whether a batch has a lease now."""
        return bool(self._active)

    def expire(self) -> int:
        """End the streams whose peer did not read a batch within its lease; returns how many. Call
        this often: nobody else ends them.
        """
        with self._lock:
            now = self._clock()
            overdue = [
                each
                for each in self._active
                if each.authorized and not each.cancelled and now >= each.deadline
            ]
            for ticket in overdue:
                ticket.cancelled = True
        for ticket in overdue:
            ticket.cancel()
        if overdue:
            logs.warning("stream.stalled", streams=len(overdue), lease_ms=self._lease_ms)
        return len(overdue)

    def drain(self, epoch: int) -> None:
        """Refuse batches decided under an epoch below this one, and return once none is left that
        could still be released.

        The wait ends: a batch that was not authorized by its deadline never will be, and a stream
        that was ended then has had its grace.
        """
        while True:
            with self._changed:
                self._floor = max(self._floor, epoch)
                now = self._clock()
                if not any(
                    each.epoch < epoch and now < self._over_at(each) for each in self._active
                ):
                    return
                self._changed.wait(_TICK_S)
            self.expire()

    def _over_at(self, ticket: ReleaseTicket) -> int:
        return ticket.deadline + self._grace_ms if ticket.authorized else ticket.deadline
