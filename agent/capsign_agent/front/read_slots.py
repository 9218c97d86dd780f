"""Which RPCs may receive a message now. Pure: time is an argument, and the outcome is told by
callbacks.

The size of a message is unknown until it is there, and a message that stops half-way cannot be told
from one that has not begun. So an RPC receives only while it has one of a few *read slots*, each
worth the largest possible message. An RPC without a slot can hold no more than the window that
HTTP/2 gives it. Each socket has a slot of its own, and some are shared. A stream keeps its slot
while no other RPC waits for one.

While others wait, a slot is taken back from a stream without calls (it is ended; its client opens
another with its next call), and, after `GRACE_S`, from a socket that has more slots than the one
that waits. An RPC that reads for longer than `MOST_S`, or a stream that waits longer than
`MOST_IDLE_S` for its next call, is ended in any case. An RPC that was told to end keeps its slot
until it is gone, because the part of the message that came is in memory until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

READ_SLOTS, SHARED_SLOTS = 8, 3
"""Slots in all (one for each socket, the others shared), and how many are shared at least."""

GRACE_S = 0.25
"""Seconds that a message may take while a socket with fewer slots waits."""

QUIET_S = 0.1
"""Seconds that a stream must have been without calls before its slot is taken for another."""

MOST_S = 5.0
"""Seconds that a message may take, and that an RPC waits for a slot."""

MOST_IDLE_S = 60.0
"""Seconds that a stream may wait for its next call before it is ended: half of a message may have
come.
"""


class Reader:
    """One RPC that receives messages. It has a slot while `reading` is true. Derive from it:
    callback attributes would make reference cycles.
    """

    def __init__(self, socket: Hashable, quiet: Callable[[], bool] | None = None) -> None:
        """`quiet` is given for a stream: whether it has no calls under way."""
        self.socket = socket
        self.reading = False
        self.waiting = False
        self.ending = False
        """Whether it was told to end and is not gone yet."""
        self.since = 0.0
        """When its slot, its message or its wait began, seconds."""
        self._quiet = quiet

    def go(self) -> None:
        """Called when it gets the slot that it waited for."""

    def end(self) -> None:
        """Called when it must not read any more, or has waited for too long."""

    def idle(self, now: float) -> bool:
        """Whether it is a stream without calls."""
        return self._quiet is not None and now - self.since >= QUIET_S and self._quiet()

    @property
    def most_s(self) -> float:
        """Seconds that it may read."""
        return MOST_S if self._quiet is None else MOST_IDLE_S


class ReadSlots:
    """The slots of all sockets."""

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
        """Whether an RPC waits for a slot."""
        return bool(self._waiting)

    @property
    def reading(self) -> int:
        """How many slots are taken."""
        return len(self._readers)

    def ask(self, reader: Reader, now: float) -> bool:
        """Whether the reader has a slot now; if not, it waits for `go`. A reader that was told to
        end gets True: its read raises.
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
        """The reader gives back its slot, or stops waiting for one."""
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
        """End readers that take too long, and take slots back for those that wait. To be called
        several times a second.
        """
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
        """Of the sockets that wait, the one with the fewest slots."""
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
