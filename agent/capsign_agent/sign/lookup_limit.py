"""Questions of several sockets: how many of one are under way, and who waits before the adapter is
asked.

Public keys, verifications and intents to resolve cost the loop that serves all sockets, and most of
them the adapter, which has patience for the pod as a whole. A socket that is alone has eight of
them under way. Beside others it has one, and if it has cost the adapter more than its part lately
each of its questions waits a little before it goes there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable

AT_ONCE, AT_ONCE_BESIDE_OTHERS = 8, 1
"""Questions of one socket that are under way; more wait."""

LATER_S = 0.02
"""How long a question to the adapter waits whose socket had more than an equal part lately."""

LATELY_S = 1.0
"""How long a socket counts after its last call."""

HALF_LIFE_S = 5.0
"""After this long what a socket has cost the adapter counts half."""

KEYS_US, RESOLVE_US, TAG_US = 1_400, 600, 700
"""What a question costs the adapter: its prices (`decide/cost.py` there)."""


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
        """When each socket's last call came."""
        self._under_way: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._cost: Counter[str] = Counter()
        self._halved = clock()

    def calls(self, socket: str) -> None:
        """A call of this socket has come, whatever it asks for."""
        self._seen[socket] = self._clock()

    @property
    def crowded(self) -> bool:
        """Whether more than one socket has had calls lately."""
        lately = self._clock() - LATELY_S
        return len(self._seen) > 1 and sum(when > lately for when in self._seen.values()) > 1

    async def begin(self, socket: str) -> None:
        """Wait until one more question of this socket may be under way; `end` must follow."""
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
        """It is answered, or given up."""
        self._under_way[socket] -= 1
        while (line := self._waiting.get(socket)) and self._under_way[socket] < self._most:
            turn = line[0]
            self._forget(socket, turn)
            if not turn.done():
                turn.set_result(None)
                self._under_way[socket] += 1

    async def ask_adapter(self, socket: str, cost_us: int) -> None:
        """Before a question goes to the adapter. Who had more than its part lately waits."""
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
