"""HTTP for a witness (aiohttp): bounded requests, connections and times."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web
from capsign_evidence.witness_protocol import MAX_REQUEST_LEN
from capsign_wire import logs
from capsign_wire.addresses import Address

from capsign_witness.witness import Answer, Witness

CONNECTIONS = 256
"""Most connections at once; more are closed."""

CONNECTION_SECONDS, IDLE_SECONDS, REQUEST_SECONDS = 300.0, 60.0, 10.0
"""Longest life of a connection, longest time between its requests, and for one request's body."""

WAITING = 64
"""Most requests that are read or decided at once; more are answered 503."""


class _Connection(web.RequestHandler):
    """One connection, which ends after a time however it is used."""

    __slots__ = ("_end", "_live")

    def __init__(self, server: web.Server, live: set[_Connection]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp takes None for "no log"
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=4096,
            max_field_size=4096,
            max_headers=64,
        )
        self._live = live
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        if len(self._live) >= CONNECTIONS:
            transport.abort()
            return
        self._live.add(self)
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(CONNECTION_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._live.discard(self)
        super().connection_lost(exc)


class Front:
    """Turns requests into calls of the witness, one at a time on a thread of its own."""

    def __init__(self, witness: Witness, prefix: str = "") -> None:
        """`prefix` stands before the paths: empty, or with a slash in front."""
        self._witness = witness
        self._prefix = prefix
        self._worker = ThreadPoolExecutor(1, "witness")
        self._waiting = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if self._waiting >= WAITING:
            return _response(Answer(503, b"Busy: ask again.\n"))
        self._waiting += 1
        try:
            answer = await self._routed(request)
        except TimeoutError:
            answer = Answer(408, b"The request took too long.\n")
        except Exception as error:  # the edge: one request must not end the witness
            logs.error("witness.failed", error)
            answer = Answer(500, b"The witness failed; nothing was cosigned.\n")
        finally:
            self._waiting -= 1
        return _response(answer)

    async def _routed(self, request: web.BaseRequest) -> Answer:
        path = request.path.removeprefix(self._prefix)
        if not request.path.startswith(self._prefix):
            return _NOT_FOUND
        if path == "/add-checkpoint":
            if request.method != "POST":
                return Answer(405, b"This is for POST.\n")
            body = await _body(request)
            if body is None:
                return Answer(413, f"A request has at most {MAX_REQUEST_LEN} bytes.\n".encode())
            return await self._work(lambda: self._witness.add_checkpoint(body))
        _, key, *rest = *path.split("/"), ""
        if rest[:1] == ["checkpoint"] and len(rest) == 2 and len(key) == 64:
            if request.method not in ("GET", "HEAD"):
                return Answer(405, b"This is for GET.\n")
            return await self._work(lambda: self._witness.checkpoint(key))
        return _NOT_FOUND

    async def _work(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)


_NOT_FOUND = Answer(404, b"There is nothing here.\n")


async def _body(request: web.BaseRequest) -> bytes | None:
    """The body; None if it is longer than any request. Raises TimeoutError."""
    data = bytearray()
    async with asyncio.timeout(REQUEST_SECONDS):
        async for chunk in request.content.iter_any():
            data += chunk
            if len(data) > MAX_REQUEST_LEN:
                return None
    return bytes(data)


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store"}
    response = web.Response(status=answer.status, body=answer.body, headers=headers)
    if answer.status in (408, 413):
        response.force_close()  # the rest of the body is not read
    return response


async def run(
    witness: Witness, address: Address, prefix: str, context: ssl.SSLContext | None
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError if the address cannot be listened on."""
    front = Front(witness, prefix)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    live: set[_Connection] = set()
    handler = web.Server(front.handle)
    server = await loop.create_server(
        lambda: _Connection(handler, live),
        address.host or None,
        address.port,
        ssl=context,
        ssl_handshake_timeout=5.0 if context is not None else None,
    )
    logs.event("witness.serving", port=server.sockets[0].getsockname()[1])
    async with server:
        await ended.wait()
    await handler.shutdown(REQUEST_SECONDS)
    logs.event("witness.stopped")
