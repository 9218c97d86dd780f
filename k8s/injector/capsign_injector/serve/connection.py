"""One HTTP/1.1 connection: aiohttp's, with a timeout for the head of a request and a record of when
it is idle.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from aiohttp import web

from capsign_injector.serve.patience import Patience

MAX_LINE_BYTES = 4_096
"""Most bytes of a request line, and of a header field."""


class Owner(web.Server, ABC):
    """What owns connections and is told of them: `connections.Connections`."""

    patience: Patience
    live: set[Connection]
    """Connections after their handshake that are not closed."""
    changed: asyncio.Event
    """Set when a connection was closed or became idle."""

    def clock(self) -> float:
        """Seconds, monotonic."""
        return asyncio.get_running_loop().time()

    @abstractmethod
    def broken(self) -> None:
        """A connection was ended here because of what its peer did."""


class Connection(web.RequestHandler):
    """One connection. It is busy from the complete head of a request until its answer is sent, and
    idle otherwise.
    """

    __slots__ = ("_head_timer", "_owner", "_wire", "idle_since")

    def __init__(self, owner: Owner) -> None:
        super().__init__(
            owner,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp takes None for "no log"
            keepalive_timeout=owner.patience.keep_alive_s,
            lingering_time=owner.patience.linger_s,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=64,
            read_bufsize=16 * 1024,
            auto_decompress=False,
        )
        self._owner = owner
        self._head_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self.idle_since: float | None = self._owner.clock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self._owner.live.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and self.idle_since is not None:
            head_s = self._owner.patience.head_s
            self._head_timer = asyncio.get_running_loop().call_later(head_s, self.abort)
        super().data_received(data)

    def begin(self) -> None:
        """The head of a request is complete: the connection is busy."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = None
        self.idle_since = None

    def end(self) -> None:
        """The answer was sent: the connection is idle."""
        self.idle_since = self._owner.clock()
        self._owner.changed.set()

    def abort(self) -> None:
        """Close it at once, without an answer."""
        self._owner.broken()
        if self._wire is not None:
            self._wire.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._owner.live.discard(self)
        self._owner.changed.set()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP with a fixed sentence, and count it. aiohttp would log and quote
        it.
        """
        self.begin()
        self._owner.broken()
        answer = web.Response(status=status, text="This is no HTTP/1.1 request that can be read.\n")
        answer.force_close()
        return answer
