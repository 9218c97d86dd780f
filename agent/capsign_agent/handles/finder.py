"""Finds a socket's handles, and waits for new ones if they have ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.socket_handles import SocketHandles

T = TypeVar("T")


class Hold(Protocol):
    """Calls a look-up; if the handles have ended, has new ones fetched and calls it again, for so
    many seconds at most. See `Renewal.hold`.
    """

    def __call__(self, look: Callable[[], T], timeout_s: float, /) -> Awaitable[T]: ...


class HandleFinder:
    """For all sockets. Raises what `SocketHandles.find` and `SocketHandles.listed` raise."""

    def __init__(self, hold: Hold, skew_s: float, now: Callable[[], float] = time.time) -> None:
        """`skew_s`: seconds by which the adapter's clock may differ from `now`."""
        self._hold = hold
        self._skew_s = skew_s
        self.now = now

    def find(self, socket: SocketHandles, handle_id: str) -> HeldHandle:
        """The handle with this id. Raises NotYetError if it has ended and may be renewed."""
        return socket.find(handle_id, self.now(), self._skew_s)

    async def wait_for(self, socket: SocketHandles, handle_id: str, timeout_s: float) -> HeldHandle:
        """The handle with this id, as soon as it is valid; waits for `timeout_s` at most."""
        return await self._hold(lambda: self.find(socket, handle_id), timeout_s)

    async def wait_for_all(self, socket: SocketHandles, timeout_s: float) -> list[HeldHandle]:
        """All valid handles of a socket, as soon as there are any; waits for `timeout_s` at
        most.
        """
        return await self._hold(lambda: socket.listed(self.now(), self._skew_s), timeout_s)
