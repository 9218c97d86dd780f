"""The bound of the queue to the adapter, in all and for each socket. Pure."""

from __future__ import annotations

from capsign_agent.upstream.call import Call


class QueueBound:
    """Counts the items and bytes that wait. For one event loop."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._of: dict[str, tuple[int, int]] = {}
        """Items and bytes of each socket."""
        self.items = 0
        self.bytes = 0

    def fits(self, call: Call, *, crowded: bool) -> bool:
        """Whether this call may wait too. `crowded`: other sockets sign, and none may have more
        than half of the queue; the first call of a socket fits as long as there is room at all.
        """
        if self.items + len(call.intents) > self._max_items:
            return False
        if self.bytes + call.cost > self._max_bytes:
            return False
        items, size = self._of.get(call.held.socket, (0, 0))
        parts = 2 if crowded else 1
        return not items or (items * parts <= self._max_items and size * parts <= self._max_bytes)

    def add(self, call: Call) -> None:
        """Count a call that waits from now on."""
        count, cost, socket = len(call.intents), call.cost, call.held.socket
        items, size = self._of.get(socket, (0, 0))
        self._of[socket] = (items + count, size + cost)
        self.items += count
        self.bytes += cost

    def remove(self, call: Call) -> None:
        """A call does not wait any more."""
        count, cost, socket = len(call.intents), call.cost, call.held.socket
        items, size = self._of.get(socket, (0, 0))
        self._of[socket] = (items - count, size - cost)
        self.items -= count
        self.bytes -= cost

    def clear(self) -> None:
        """Nothing waits any more."""
        self.items = self.bytes = 0
        self._of.clear()
