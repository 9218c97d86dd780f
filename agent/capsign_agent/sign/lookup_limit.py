"""Limits the lookups of each socket (public keys, verifications, intents to resolve), so that one
socket does not slow down the others.

A lookup takes time of the event loop that serves all sockets, and most cost the adapter, which
limits the pod as a whole. While only one socket is in use, it may have eight lookups under way;
otherwise each may have one. A socket that has cost the adapter more than an equal share lately also
waits a little before each further question to it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

AT_ONCE, AT_ONCE_BESIDE_OTHERS = 8, 1
"""Lookups of one socket that are under way: while it is alone, and while others are in use. Further
ones wait.
"""

LATER_S = 0.02
"""Seconds that a question to the adapter waits if its socket had more than an equal share
lately.
"""

LATELY_S = 1.0
"""Seconds after its last call during which a socket counts as in use."""

HALF_LIFE_S = 5.0
"""Seconds after which past cost counts half."""

KEYS_US, JWKS_US, RESOLVE_US, TAG_US, RECEIPT_US = 1_400, 2_200, 750, 700, 1_900
"""What each question costs the adapter, microseconds: its prices in `decide/cost.py`."""


class LookupLimit:
    """Of all sockets. For one event loop."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._seen: dict[str, float] = {}
        """Time of each socket's last call, seconds."""
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._cost: Counter[str] = Counter()
        self._halved = clock()

    def calls(self, socket: str) -> None:
        """A call of any kind has come on this socket."""
        self._seen[socket] = self._clock()

    @property
    def crowded(self) -> bool:
        """Whether more than one socket is in use."""
        lately = self._clock() - LATELY_S
        return len(self._seen) > 1 and sum(when > lately for when in self._seen.values()) > 1

    async def begin(self, socket: str) -> None:
        """Wait until this socket may have one more lookup under way. `end` must follow."""
        if socket not in self._waiting and self._under_way[socket] < self._most:
            self._under_way[socket] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(socket, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(socket, turn)
            else:
                self.end(socket)
            raise

    def end(self, socket: str) -> None:
        """The lookup was answered or given up."""
        self._under_way[socket] -= 1
        while (line := self._waiting.get(socket)) and self._under_way[socket] < self._most:
            turn = line[0]
            self._forget(socket, turn)
            if not turn.done():
                turn.set_result(None)
                self._under_way[socket] += 1

    async def ask_adapter(self, socket: str, cost_us: int) -> None:
        """To be awaited before a question goes to the adapter: counts its cost, and delays a socket
        that had more than its share.
        """
        now = self._clock()
        while now - self._halved >= HALF_LIFE_S:
            self._halved += HALF_LIFE_S
            self._cost = Counter({name: cost // 2 for name, cost in self._cost.items() if cost > 1})
        above = self._cost[socket] * len(self._seen) > self._cost.total()
        self._cost[socket] += cost_us
        if above and self.crowded:
            await self._sleep(LATER_S)

    @property
    def _most(self) -> int:
        return AT_ONCE_BESIDE_OTHERS if self.crowded else AT_ONCE

    def _forget(self, socket: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting[socket]
        line.remove(turn)
        if not line:
            del self._waiting[socket]
