"""Which sockets sign now, and for which of them each stream works. Pure: time is an argument."""

from __future__ import annotations

CROWDED_S = 1.0
"""Seconds after its last call during which a socket counts as signing."""


class StreamShares:
    """Keeps one socket from having all streams while others sign. For one event loop."""

    def __init__(self) -> None:
        self._last_call: dict[str, float] = {}
        self._has: dict[object, str] = {}
        """The socket whose batch each stream has; empty for none."""
        self.several = False
        """Whether more than one socket has ever had a call."""

    def called(self, socket: str, now: float) -> None:
        """A call came on this socket."""
        self._last_call[socket] = now
        if not self.several and len(self._last_call) > 1:
            self.several = True

    def crowded(self, now: float) -> bool:
        """Whether more than one socket has had a call within CROWDED_S."""
        return sum(when > now - CROWDED_S for when in self._last_call.values()) > 1

    def has(self, stream: object, socket: str) -> None:
        """This stream has a batch of this socket now; empty: of none."""
        self._has[stream] = socket

    def gone(self, stream: object) -> None:
        """This stream has ended."""
        self._has.pop(stream, None)

    def with_enough_streams(self) -> set[object]:
        """The sockets that have half of the streams, or more."""
        if len(self._has) < 2:
            return set()
        most = len(self._has) // 2
        owners = [owner for owner in self._has.values() if owner]
        return {owner for owner in owners if owners.count(owner) >= most}
