"""HTTP for a witness (aiohttp): bounded requests, connections and times."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import ssl
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web
from capsign_evidence.witness_protocol import MAX_REQUEST_LEN
from capsign_wire import logs
from capsign_wire.addresses import Address

from capsign_witness.witness import Answer, Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What callers may hold of a witness: connections, seconds, turns. A request has
    MAX_REQUEST_LEN bytes at most, so all connections together hold some 17 MiB of them.
    """

    connections: int = 256
    """At once; more are closed."""
    of_one_address: int = 64
    """Of these, of one address, or of one network of IPv6 (/64)."""
    connection_s: float = 300.0
    """Longest life of a connection."""
    idle_s: float = 60.0
    """Longest time between the requests of a connection."""
    head_s: float = 10.0
    """From the beginning of a connection to the end of its first request's headers."""
    body_s: float = 10.0
    """For the body of a request."""
    waiting: int = 64
    """Requests that have come whole and wait for their turn; more are answered 503."""


USUAL = Bounds()
"""The bounds of a witness."""


class _Connections:
    """Those that are open."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: Counter[str] = Counter()

    def enter(self, network: str) -> bool:
        """Whether there is room for one more."""
        mine, most = self._open[network], self.bounds
        if self._open.total() >= most.connections or mine >= most.of_one_address:
            return False
        self._open[network] += 1
        return True

    def leave(self, network: str) -> None:
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]


class _Connection(web.RequestHandler):
    """One connection, which ends after a time however it is used."""

    __slots__ = ("_connections", "_ends", "_network")

    def __init__(self, server: web.Server, connections: _Connections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp takes None for "no log"
            keepalive_timeout=connections.bounds.idle_s,
            max_line_size=4096,
            max_field_size=4096,
            max_headers=64,
        )
        self._connections = connections
        self._ends: list[asyncio.TimerHandle] = []
        self._network = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        network = network_of((transport.get_extra_info("peername") or ("",))[0])
        if not self._connections.enter(network):
            transport.abort()
            return
        self._network = network
        loop, bounds = asyncio.get_running_loop(), self._connections.bounds
        self._ends = [
            loop.call_later(seconds, transport.abort)
            for seconds in (bounds.connection_s, bounds.head_s)
        ]

    def has_asked(self) -> None:
        """The headers of a request have come. Before those of the next one `idle_s` counts."""
        self._ends[1].cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        for each in self._ends:
            each.cancel()
        if self._network:
            self._connections.leave(self._network)
        super().connection_lost(exc)


class Front:
    """Turns requests into calls of the witness, one at a time on a thread of its own."""

    def __init__(self, witness: Witness, prefix: str = "", bounds: Bounds = USUAL) -> None:
        """`prefix` stands before the paths: empty, or with a slash in front."""
        self._witness = witness
        self._prefix = prefix
        self._bounds = bounds
        self._worker = ThreadPoolExecutor(1, "witness")
        self._waiting = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if isinstance(request.protocol, _Connection):
            request.protocol.has_asked()
        try:
            answer = await self._routed(request)
        except TimeoutError:
            answer = Answer(408, b"The request took too long.\n")
        except Exception as error:  # the edge: one request must not end the witness
            logs.error("witness.failed", error)
            answer = Answer(500, b"The witness failed; nothing was cosigned.\n")
        return _response(answer)

    async def _routed(self, request: web.BaseRequest) -> Answer:
        path = request.path.removeprefix(self._prefix)
        if not request.path.startswith(self._prefix):
            return _NOT_FOUND
        if path == "/add-checkpoint":
            if request.method != "POST":
                return Answer(405, b"This is for POST.\n")
            body = await self._body(request)
            if body is None:
                return Answer(413, f"A request has at most {MAX_REQUEST_LEN} bytes.\n".encode())
            return await self._work(lambda: self._witness.add_checkpoint(body))
        _, key, *rest = *path.split("/"), ""
        if rest[:1] == ["checkpoint"] and len(rest) == 2 and len(key) == 64:
            if request.method not in ("GET", "HEAD"):
                return Answer(405, b"This is for GET.\n")
            return await self._work(lambda: self._witness.checkpoint(key))
        return _NOT_FOUND

    async def _body(self, request: web.BaseRequest) -> bytes | None:
        """The body; None if it is longer than any request. Raises TimeoutError. It takes nobody's
        turn: who is slow keeps a connection, and nothing else.
        """
        data = bytearray()
        async with asyncio.timeout(self._bounds.body_s):
            async for chunk in request.content.iter_any():
                data += chunk
                if len(data) > MAX_REQUEST_LEN:
                    return None
        return bytes(data)

    async def _work(self, call: Callable[[], Answer]) -> Answer:
        if self._waiting >= self._bounds.waiting:
            return Answer(503, b"Busy: ask again.\n")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, call)
        finally:
            self._waiting -= 1


_NOT_FOUND = Answer(404, b"There is nothing here.\n")


def network_of(host: str) -> str:
    """Whose an address is: itself, or its network of IPv6, of which one host has all addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, 64), strict=False))


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store"}
    response = web.Response(status=answer.status, body=answer.body, headers=headers)
    if answer.status in (408, 413):
        response.force_close()  # the rest of the body is not read
    return response


async def listen(
    front: Front, address: Address, context: ssl.SSLContext | None, bounds: Bounds = USUAL
) -> tuple[asyncio.Server, web.Server]:
    """Listen, and serve; the second ends what is under way. Raises OSError if the address cannot be
    listened on.
    """
    handler, connections = web.Server(front.handle), _Connections(bounds)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(handler, connections),
        address.host or None,
        address.port,
        ssl=context,
        ssl_handshake_timeout=5.0 if context is not None else None,
    )
    return server, handler


async def run(
    front: Front, address: Address, context: ssl.SSLContext | None, bounds: Bounds
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError if the address cannot be listened on."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server, handler = await listen(front, address, context, bounds)
    logs.event("witness.serving", port=server.sockets[0].getsockname()[1])
    async with server:
        await ended.wait()
    await handler.shutdown(bounds.body_s)
    logs.event("witness.stopped")
