"""Keeps what was committed from leaving after a revocation has answered (I6;
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

from capsign_adapter.store.interface import CommitUnknownError, StoreUnavailableError

_TICK_S = 0.05
"""Longest wait of a drain before it looks at the clock again, seconds."""


def boot_ms() -> int:
    """Milliseconds since the machine started, those included in which it slept: leases are counted
    in these.
    """
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class Passage:
    """One stream's or call's way out; it has room for one batch at a time. Used by one thread,
    looked at by others.
    """

    __slots__ = ("_cancel", "_fence", "cancelled", "closed", "deadline", "epoch", "handed")

    def __init__(self, fence: Fence, cancel: Callable[[], object]) -> None:
        self._fence = fence
        self._cancel = cancel
        self.epoch = 0
        """The epoch under which the batch inside was decided; 0 if there is none."""
        self.deadline = 0
        """Until when it may be handed over, and until when what was handed over must be on the
        wire.
        """
        self.handed = False
        self.cancelled = False
        self.closed = False

    def enter(self, epoch: int) -> bool:
        """Before the commit, or before the read that shows that `epoch` is the current one. False
        if it is known not to be.
        """
        return self._fence.enter(self, epoch)

    def hand_over(self) -> bool:
        """Last thing before gRPC gets the batch: whether it may. One that never entered holds
        nothing of the ledger, and may.
        """
        return not self.epoch or self._fence.hand_over(self)

    def leave(self) -> None:
        """The batch is on the wire, or will never be."""
        if self.epoch:
            self._fence.leave(self)

    def close(self) -> None:
        """The call is over, maybe before its thread has noticed: what is inside leaves, and nothing
        enters any more.
        """
        self._fence.close(self)

    def cancel(self) -> None:
        """End the stream: its peer does not take what it was handed."""
        self._cancel()


class Fence:
    """One for a replica; any thread. `epoch_now` reads the store's epoch, `clock` counts
    milliseconds and never goes back.
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
        self._changed = threading.Condition(threading.Lock())
        self._floor = 0
        self._inside: set[Passage] = set()

    def passage(self, cancel: Callable[[], object]) -> Passage:
        """A way out for one stream; `cancel` ends that stream."""
        return Passage(self, cancel)

    def enter(self, passage: Passage, epoch: int) -> bool:
        """See Passage. The lease begins here: before the store is asked, so that it can only be
        shorter than it might be.
        """
        deadline = self._clock() + self._lease_ms
        with self._changed:
            if epoch < self._floor or passage.closed:
                return False
            passage.epoch, passage.deadline, passage.handed = epoch, deadline, False
            self._inside.add(passage)
            return True

    def hand_over(self, passage: Passage) -> bool:
        """See Passage. A batch whose lease ran out in a slow commit gets another if the store says
        that its epoch still holds.
        """
        return self._hand_over(passage) or (self._renew(passage) and self._hand_over(passage))

    def _hand_over(self, passage: Passage) -> bool:
        with self._changed:
            if self._clock() >= passage.deadline or passage.cancelled:
                return False
            passage.handed = True
            return True

    def _renew(self, passage: Passage) -> bool:
        deadline = self._clock() + self._lease_ms
        try:
            if self._epoch_now() != passage.epoch:
                return False
        except (StoreUnavailableError, CommitUnknownError):
            return False
        with self._changed:
            if passage.epoch < self._floor:
                return False
            passage.deadline = deadline
            return True

    def leave(self, passage: Passage) -> None:
        """See Passage."""
        with self._changed:
            self._leave(passage)

    def close(self, passage: Passage) -> None:
        """See Passage."""
        with self._changed:
            passage.closed = True
            self._leave(passage)

    def _leave(self, passage: Passage) -> None:
        self._inside.discard(passage)
        waited_for = passage.epoch < self._floor
        passage.epoch = 0
        if waited_for:
            self._changed.notify_all()

    def expire(self) -> int:
        """End the streams whose peer did not take a batch within its lease; how many. Call this
        often: nobody else ends them.
        """
        with self._changed:
            now = self._clock()
            overdue = [
                each
                for each in self._inside
                if each.handed and not each.cancelled and now >= each.deadline
            ]
            for passage in overdue:
                passage.cancelled = True
        for passage in overdue:
            passage.cancel()
        if overdue:
            logs.warning("stream.stalled", streams=len(overdue), lease_ms=self._lease_ms)
        return len(overdue)

    def drain(self, epoch: int) -> None:
        """Let nothing decided under an epoch below this one in, and wait until none is left that
        could still be released.

        It ends: a batch that was not handed over by its deadline never will be, and a stream that
        was ended then has had time to.
        """
        while True:
            with self._changed:
                self._floor = max(self._floor, epoch)
                now = self._clock()
                if not any(
                    each.epoch < epoch and now < self._over_at(each) for each in self._inside
                ):
                    return
                self._changed.wait(_TICK_S)
            self.expire()

    def _over_at(self, passage: Passage) -> int:
        return passage.deadline + self._grace_ms if passage.handed else passage.deadline
