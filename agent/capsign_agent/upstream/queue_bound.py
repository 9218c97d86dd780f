"""How much may wait to go upstream, in all and of each socket. Pure."""

from __future__ import annotations

from capsign_agent.upstream.call import Call


class QueueBound:
    """Counts items and bytes. For one event loop."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._of: dict[str, tuple[int, int]] = {}
        """Items and bytes, by socket."""
        self.items = 0
        self.bytes = 0

    def fits(self, call: Call, *, crowded: bool) -> bool:
        """Whether this call may wait too. Nobody has more than half of the queue while others sign;
        one call of a socket always fits while there is room at all.
        """
        if self.items + len(call.intents) > self._max_items:
            return False
        if self.bytes + call.cost > self._max_bytes:
            return False
        items, size = self._of.get(call.held.socket, (0, 0))
        parts = 2 if crowded else 1
        return not items or (items * parts <= self._max_items and size * parts <= self._max_bytes)

    def add(self, call: Call) -> None:
        """It waits from now on."""
        self._count(call, 1)

    def remove(self, call: Call) -> None:
        """It waits no more."""
        self._count(call, -1)

    def clear(self) -> None:
        """Nothing waits."""
        self.items = self.bytes = 0
        self._of.clear()

    def _count(self, call: Call, sign: int) -> None:
        items, size = self._of.get(call.held.socket, (0, 0))
        more_items, more_bytes = sign * len(call.intents), sign * call.cost
        self._of[call.held.socket] = (items + more_items, size + more_bytes)
        self.items += more_items
        self.bytes += more_bytes
