"""Who may read a message now. Pure: time is an argument, and what happens to whom is told by
callbacks.

Nobody knows how large a message is before it is there, and a message that stops half-way looks like
one that has not begun. So a message is only asked for by who has a *turn*, of which there are few,
each for the largest message there is: what an RPC that has none may hold is the window that HTTP/2
gives it. Each socket has a turn of its own, and there are some for all. A stream keeps its turn
while nobody waits for it, so that one that is alone waits for nothing.

A turn is taken back when others wait: from a stream on which nothing is asked (it is ended, and its
client opens another with its next call), and from a socket that has more of them than the one that
waits, after `GRACE_S`. Whoever reads for longer than `MOST_S`, or `MOST_IDLE_S` between the calls
of a stream, is ended in any case. Who is ended keeps its turn until it is gone: what has come of
its message is in memory until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

READ_SLOTS, SHARED_SLOTS = 8, 3
"""Slots in all, of which each socket has one of its own and the others are for all; and the fewest
that are for all.
"""

GRACE_S = 0.25
"""How long a message may take while another socket, which reads less, waits."""

QUIET_S = 0.1
"""How long nothing must have been asked on a stream before its turn is taken for another."""

MOST_S = 5.0
"""How long a message may take, or wait for a turn."""

MOST_IDLE_S = 60.0
"""How long a stream may wait for its next call before it is ended: its message may have begun."""


class Reader:
    """One RPC that reads. It has a turn while `reading`. (To be derived from: callbacks of its own
    would tie it into a knot.)
    """

    def __init__(self, socket: Hashable, quiet: Callable[[], bool] | None = None) -> None:
        """`quiet`, for one that reads many messages: whether nothing is asked on it."""
        self.socket = socket
        self.reading = False
        self.waiting = False
        self.ending = False
        """It was told to, and is not gone yet."""
        self.since = 0.0
        """When its turn, its message or its wait began."""
        self._quiet = quiet

    def go(self) -> None:
        """It has the turn that it waited for."""

    def end(self) -> None:
        """It may read no longer, or has waited too long."""

    def idle(self, now: float) -> bool:
        """Whether it is a stream on which nothing is asked."""
        return self._quiet is not None and now - self.since >= QUIET_S and self._quiet()

    @property
    def most_s(self) -> float:
        """How long it may read."""
        return MOST_S if self._quiet is None else MOST_IDLE_S


class ReadSlots:
    """For all sockets."""

    def __init__(self, sockets: int, shared: int) -> None:
        self.shared = shared
        self._free = self.shared
        self._readers: dict[Reader, None] = {}
        self._held: dict[Hashable, int] = {}
        """Slots by socket."""
        self._waiting: dict[Hashable, deque[Reader]] = {}
        self.most = sockets + self.shared

    @property
    def contended(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    @property
    def reading(self) -> int:
        """How many turns are taken."""
        return len(self._readers)

    def ask(self, reader: Reader, now: float) -> bool:
        """Whether it has a turn now; else it waits for `go`. Who was told to end does not wait: its
        read tells it.
        """
        if reader.reading and reader.ending:
            return True
        reader.since = now
        if reader.reading and not self._waiting:
            return True
        if reader.reading:
            self._release(reader)
            self._queue(reader)
            self._share(now)
            return reader.reading
        if reader.socket not in self._waiting and self._has_one(reader.socket):
            self._grant(reader, now)
            return True
        self._queue(reader)
        return False

    def done(self, reader: Reader, now: float) -> None:
        """It reads no more, or waits no more."""
        if reader.waiting:
            queue = self._waiting[reader.socket]
            queue.remove(reader)
            reader.waiting = False
            if not queue:
                del self._waiting[reader.socket]
        if reader.reading:
            self._release(reader)
            self._share(now)

    def look(self, now: float) -> None:
        """End what takes too long, and take turns back for those who wait. Called often."""
        for reader in [one for one in self._readers if now - one.since > one.most_s]:
            self._end(reader, now)
        for queue in list(self._waiting.values()):
            while queue and now - queue[0].since > MOST_S:
                self._end(queue[0], now)
        wanted = sum(map(len, self._waiting.values())) - sum(one.ending for one in self._readers)
        while wanted > 0 and (found := self._to_take_back(self._next(), now)) is not None:
            self._end(found, now)
            wanted -= 1

    def _end(self, reader: Reader, now: float) -> None:
        if reader.ending:
            return
        reader.ending = True
        reader.end()
        if reader.waiting:
            self.done(reader, now)

    def _to_take_back(self, wanting: Hashable, now: float) -> Reader | None:
        has = self._held.get(wanting, 0)
        others = [one for one in self._readers if not one.ending]
        idle = [
            one
            for one in others
            if (one.socket == wanting or self._held[one.socket] > has) and one.idle(now)
        ]
        if idle:
            return max(idle, key=lambda one: (self._held[one.socket], -one.since))
        slow = [
            one for one in others if self._held[one.socket] > has + 1 and now - one.since > GRACE_S
        ]
        return max(slow, key=lambda one: (self._held[one.socket], -one.since)) if slow else None

    def _has_one(self, socket: Hashable) -> bool:
        return not self._held.get(socket, 0) or self._free > 0

    def _next(self) -> Hashable:
        """The socket whose turn it is: the one that has the fewest."""
        return min(self._waiting, key=lambda one: self._held.get(one, 0))

    def _share(self, now: float) -> None:
        while self._waiting:
            socket = self._next()
            if not self._has_one(socket):
                return
            reader = self._waiting[socket].popleft()
            if not self._waiting[socket]:
                del self._waiting[socket]
            reader.waiting = False
            self._grant(reader, now)
            reader.go()

    def _queue(self, reader: Reader) -> None:
        reader.waiting = True
        self._waiting.setdefault(reader.socket, deque()).append(reader)

    def _grant(self, reader: Reader, now: float) -> None:
        held = self._held.get(reader.socket, 0)
        if held:  # its own is taken
            self._free -= 1
        self._held[reader.socket] = held + 1
        self._readers[reader] = None
        reader.reading = True
        reader.since = now

    def _release(self, reader: Reader) -> None:
        del self._readers[reader]
        reader.reading = False
        held = self._held[reader.socket] - 1
        if held:
            self._free += 1
            self._held[reader.socket] = held
        else:
            del self._held[reader.socket]
