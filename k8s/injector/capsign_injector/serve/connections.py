"""Bounded HTTP/1.1 connections on one address: how many, how long a head may take, which one goes
when there are too many.

HTTP itself is aiohttp's. What it lacks is added around it: a time for the head of a request, a
bound on connections that counts those still in their TLS handshake, room for a new one by closing
the one that is idle longest, and an end that loses no request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from capsign_wire import logs

from capsign_injector.serve.connection import LINGER_S, Connection, Owner
from capsign_injector.serve.listening import listening
from capsign_injector.serve.tls_transport import READ_BYTES, TlsTransport

HANDSHAKE_S = 5.0
"""Longest TLS handshake."""

KEEP_ALIVE_S = 120.0
"""Longest idle time. Above the 90 s of Go's client: the API server closes first, and never sends
into what we have closed.
"""

ANSWER_S = 10.0
"""Longest time for a caller to take its answer."""

LAST_WORDS_S = 1.0
"""After the listener closed: how long a connection that was just made may take to send its
request.
"""

Handler = Callable[["web.BaseRequest"], Awaitable[web.StreamResponse]]


class Connections(Owner):
    """All connections of one listener, and the listener."""

    def __init__(
        self,
        handler: Handler,
        *,
        most: int,
        broken: Callable[[], None],
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(self._handle)
        self._handler = handler
        self._most = most
        self._handshakes: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self._read_into = bytearray(READ_BYTES)
        self._broken = broken
        self.live = set()
        self.keep_alive_s = keep_alive_s
        self.changed = asyncio.Event()
        self.closing = False
        """Whether each answer ends its connection."""

    def __call__(self) -> Connection:
        return Connection(self)

    def broken(self) -> None:
        self._broken()

    @property
    def count(self) -> int:
        """Connections, those in their handshake included."""
        return len(self.live) + len(self._handshakes)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def listen(self, host: str | None, port: int, context: ssl.SSLContext | None) -> None:
        """Start. `host` None: every address. Raises OSError if the address cannot be had."""
        self._socket = listening(host, port)
        self._socket.setblocking(False)
        self._context = context
        self._accepting = asyncio.create_task(self._accept())

    async def drain(self, seconds: float) -> bool:
        """Take no more connections, answer every request that is on its way, close. False if
        `seconds` were not enough.
        """
        self.closing = True
        if self._accepting is not None:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        self._take_the_rest()
        await asyncio.sleep(min(LAST_WORDS_S, seconds))
        in_time = True
        try:
            async with asyncio.timeout(max(0.0, seconds - LAST_WORDS_S)):
                while self._handshakes or any(one.idle_since is None for one in self.live):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            in_time = False
        await self.shutdown(0.1)
        return in_time

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        try:
            answer = await self._handler(request)
            if self.closing:
                answer.force_close()
            # Sent here and not by aiohttp afterwards, so that "busy" lasts until the answer is out.
            async with asyncio.timeout(ANSWER_S):
                await answer.prepare(request)
                await answer.write_eof()
            return answer
        except TimeoutError:
            connection.abort()
            raise ConnectionResetError("the caller does not take its answer") from None
        finally:
            connection.end()

    async def _accept(self) -> None:
        """Ends when cancelled, and then has taken all that it accepted: asyncio's own sock_accept
        may lose one.
        """
        assert self._socket is not None
        while True:
            await self._somebody_waits(self._socket)
            await self._room()
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:  # it went again
                continue
            except OSError as error:
                logs.error("listener.accept_failed", error)
                await asyncio.sleep(0.1)  # out of files: closing connections gives some back
                continue
            accepted.setblocking(False)
            self._take(accepted)

    async def _somebody_waits(self, listener: socket.socket) -> None:
        loop, waits = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(listener, waits.set)
        try:
            await waits.wait()
        finally:
            loop.remove_reader(listener)

    async def _room(self) -> None:
        """Wait until one more is allowed; end the one that is idle longest to get there."""
        while self.count >= self._most:
            idle = [(one.idle_since, one) for one in self.live if one.idle_since is not None]
            if idle:
                min(idle, key=lambda each: each[0])[1].abort()
            self.changed.clear()
            await self.changed.wait()

    def _take(self, accepted: socket.socket) -> None:
        task = asyncio.create_task(self._connect(accepted))
        self._handshakes.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self.changed.set()

    async def _connect(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._context is None:
            await loop.connect_accepted_socket(self, accepted)
            return
        tls = TlsTransport(self, self._context, self._read_into, close_s=LINGER_S)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await loop.connect_accepted_socket(lambda: tls, accepted)
                await tls.handshaken
        except OSError:  # no TLS, or none in time
            tls.abort()
            self.broken()

    def _take_the_rest(self) -> None:
        """The kernel has completed these connections; closing the listener would reset them."""
        if self._socket is None:
            return
        with suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                accepted.setblocking(False)
                self._take(accepted)
        self._socket.close()
