"""Bounded HTTP/1.1 connections on one address.

HTTP itself is aiohttp's. This adds a timeout for the head of a request, a bound on connections that
includes those in their TLS handshake, closing the connection that was idle longest when there are
too many, and a drain that loses no request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from capsign_wire import logs

from capsign_injector.serve.connection import Connection, Owner
from capsign_injector.serve.listeners import listening
from capsign_injector.serve.patience import USUAL, Patience
from capsign_injector.serve.tls_transport import READ_BYTES, TlsTransport

Handler = Callable[["web.BaseRequest"], Awaitable[web.StreamResponse]]


class Connections(Owner):
    """A listener and all its connections."""

    def __init__(
        self,
        handler: Handler,
        *,
        most: int,
        broken: Callable[[], None],
        patience: Patience = USUAL,
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
        self.patience = patience
        self.changed = asyncio.Event()
        self.closing = False
        """Whether each answer closes its connection."""

    def __call__(self) -> Connection:
        return Connection(self)

    def broken(self) -> None:
        self._broken()

    @property
    def count(self) -> int:
        """How many connections there are, those in their handshake included."""
        return len(self.live) + len(self._handshakes)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listener."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def port(self) -> int:
        return self.address[1]

    def listen(self, host: str | None, port: int, context: ssl.SSLContext | None) -> None:
        """Start to listen. `host` None means every address. Raises OSError if the address cannot be
        bound.
        """
        self._socket = listening(host, port)
        self._socket.setblocking(False)
        self._context = context
        self._accepting = asyncio.create_task(self._accept())

    async def drain(self, seconds: float) -> bool:
        """Accept no more connections, answer every request that was sent, then close. Returns False
        if `seconds` were not enough.
        """
        self.closing = True
        if self._accepting is not None:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
        self._take_the_rest()
        await asyncio.sleep(min(self.patience.last_words_s, seconds))
        in_time = True
        try:
            async with asyncio.timeout(max(0.0, seconds - self.patience.last_words_s)):
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
            async with asyncio.timeout(self.patience.answer_s):
                await answer.prepare(request)
                await answer.write_eof()
            return answer
        except TimeoutError:
            connection.abort()
            raise ConnectionResetError("the caller does not take its answer") from None
        finally:
            connection.end()

    async def _accept(self) -> None:
        """Accept connections until cancelled. No accepted connection is lost then, as it may be
        with asyncio's sock_accept.
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
        """Wait until one more connection is allowed; closes the one that was idle longest."""
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
        tls = TlsTransport(self, self._context, self._read_into, close_s=self.patience.linger_s)
        try:
            async with asyncio.timeout(self.patience.handshake_s):
                await loop.connect_accepted_socket(lambda: tls, accepted)
                await tls.handshaken
        except OSError:  # no TLS, or none in time
            tls.abort()
            self.broken()

    def _take_the_rest(self) -> None:
        """Accept the connections that the kernel has completed; closing the listener would reset
        them.
        """
        if self._socket is None:
            return
        with suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                accepted.setblocking(False)
                self._take(accepted)
        self._socket.close()
