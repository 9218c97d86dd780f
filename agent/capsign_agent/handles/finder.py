"""Finds a socket's handles as they are now, or waits for new ones where they have ended."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from capsign_agent.handles.held_handle import HeldHandle
from capsign_agent.handles.socket_handles import SocketHandles

T = TypeVar("T")


class Hold(Protocol):
    """Looks for handles, and where they have ended, looks again once new ones were asked for,
    within so many seconds. See `Renewal.hold`.
    """

    def __call__(self, look: Callable[[], T], timeout_s: float, /) -> Awaitable[T]: ...


class HandleFinder:
    """For all sockets. Raises as `SocketHandles.find` and `listed` do, which say when."""

    def __init__(self, hold: Hold, skew_s: float, now: Callable[[], float] = time.time) -> None:
        """`skew_s`: how far the adapter's clock may be from `now`."""
        self._hold = hold
        self._skew_s = skew_s
        self.now = now

    def find(self, socket: SocketHandles, handle_id: str) -> HeldHandle:
        """The handle, if it may be used now."""
        return socket.find(handle_id, self.now(), self._skew_s)

    async def wait_for(self, socket: SocketHandles, handle_id: str, timeout_s: float) -> HeldHandle:
        """The handle, as soon as it may be used."""
        return await self._hold(lambda: self.find(socket, handle_id), timeout_s)

    async def wait_for_all(self, socket: SocketHandles, timeout_s: float) -> list[HeldHandle]:
        """All handles of a socket, as soon as there are good ones."""
        return await self._hold(lambda: socket.listed(self.now(), self._skew_s), timeout_s)
