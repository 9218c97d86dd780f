"""The listener for verifiers: HTTPS for anybody, read only, on a thread and an event loop of its
own.

HTTP/1.1 is aiohttp's. Around it are bounds that keep strangers from slowing what signs: few
connections, each for a short time, and so many requests a second from one address and from all.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from capsign_wire import logs
from capsign_wire.addresses import Address
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.public_routes import Answer, Question, Routes, problem
from capsign_adapter.front.public_tls import Pair, server_context
from capsign_adapter.sign.failures import failure_of

CONNECTIONS, OF_ONE_ADDRESS = 64, 16
"""Connections at once, those in their handshake included: of all, and of one address."""

HANDSHAKE_SECONDS, CONNECTION_SECONDS, IDLE_SECONDS = 5.0, 30.0, 10.0
"""Longest handshake, longest life of a connection, and longest time between its requests."""

HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE = 50, 100
"""Connections that are accepted, of all addresses together; more wait in the kernel's queue."""

PER_SECOND, AT_ONCE = 20, 100
"""Rate and burst of the requests of one address."""

OF_ALL_PER_SECOND, OF_ALL_AT_ONCE = 200, 400
"""The same of all addresses together."""

MADE_PER_SECOND, MADE_AT_ONCE = 5, 50
"""Rate and burst of answers that are not in memory, for all together: the token derives keys."""

MADE_SECONDS = 10.0
"""Longest wait for such an answer."""

CERTIFICATE_SECONDS = 60.0
"""Between looks whether there is another certificate."""

MAX_LINE = 4096
"""Longest request line, and longest field of a head, bytes."""


class PublicServer:
    """Bound when it is made (RuntimeError if it cannot be), and serves from `start` to `stop`."""

    def __init__(
        self,
        address: Address,
        pair: Callable[[], Pair],
        routes: Routes,
        rates: Buckets,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`pair` gives the certificate and key that are served now; `observe` is told each answer
        as `capsign.public.answers` names it. Raises OSError if they cannot be served.
        """
        self._observe = observe
        self._pair, self._seen = pair, pair()
        self._context = server_context(self._seen)
        self._routes, self._rates = routes, rates
        self._maker = ThreadPoolExecutor(1, "key-sets")
        self._live: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()
        self._socket = _listening(address)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="public", daemon=True)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._live)

    def fault(self) -> str:
        """What is wrong, for health checks: that nobody listens any more; empty: nothing. Before
        `start` nothing is.
        """
        ended = self._thread.ident is not None and not self._thread.is_alive()
        return "public_listener_ended" if ended else ""

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Close every connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join()
        self._socket.close()
        self._maker.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    def _end(self) -> None:
        self._main.cancel()

    async def _serve(self) -> None:
        server = web.Server(self._handle)
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                try:
                    await self._accept(server)
                except Exception as error:  # the edge: one caller must not end the listener
                    logs.error("public.failed", error)
                    await asyncio.sleep(0.1)
        finally:
            tasks = [watch, *self._live]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, server: web.Server) -> None:
        wait_ms = self._wait_ms("", "handshakes", HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1000)
            return
        try:
            accepted, peer = await asyncio.get_running_loop().sock_accept(self._socket)
        except OSError as error:  # out of files: connections that end give some back
            logs.error("public.accept_failed", error)
            await asyncio.sleep(0.1)
            return
        host = str(peer[0])
        if len(self._live) >= CONNECTIONS or self._of[host] >= OF_ONE_ADDRESS:
            accepted.close()
            self._observe("closed")
            return
        self._of[host] += 1
        task = asyncio.create_task(self._connection(server, accepted))
        self._live.add(task)
        task.add_done_callback(lambda done: self._gone(done, host))

    def _gone(self, task: asyncio.Task[None], host: str) -> None:
        self._live.discard(task)
        self._of[host] -= 1
        if not self._of[host]:
            del self._of[host]

    async def _connection(self, server: web.Server, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: _Connection(server, loop, lost),
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1.0,
            )
        except OSError:  # no TLS, or none in time
            accepted.close()
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECTION_SECONDS):
                    await lost.wait()
        finally:
            if not lost.is_set():
                transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
        except Exception as error:  # the edge: nobody hears of our insides
            answer = problem(failure_of(error))
        self._observe(_kind(answer.status))
        # To a HEAD aiohttp sends the same without the body.
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if request.can_read_body:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        host = str(request.remote or "")
        self._demand(host, "requests", PER_SECOND, AT_ONCE)
        self._demand("", "requests", OF_ALL_PER_SECOND, OF_ALL_AT_ONCE)
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, b"", {"Allow": "GET, HEAD"})
        question = Question(
            request.path,
            dict(request.query),
            request.headers.get("If-None-Match", ""),
            request.method == "HEAD",
        )
        known = self._routes.known(question)
        if known is not None:
            return known
        self._demand("", "made", MADE_PER_SECOND, MADE_AT_ONCE)
        making = asyncio.get_running_loop().run_in_executor(
            self._maker, self._routes.made, question
        )
        return await asyncio.wait_for(making, MADE_SECONDS)

    def _demand(self, host: str, what: str, per_second: int, at_once: int) -> None:
        wait_ms = self._wait_ms(host, what, per_second, at_once)
        if wait_ms:
            detail = "This is asked for too often. Keep the answer for as long as it says."
            raise FailureError(failures_pb2.REASON_RATE_LIMITED, detail, retry_after_ms=wait_ms)

    def _wait_ms(self, host: str, what: str, per_second: int, at_once: int) -> int:
        taken = self._rates.take(host, what, per_second, at_once, 1)
        return 0 if taken.granted else max(1, taken.retry_after_ms)

    async def _watch(self) -> None:
        """Serve another certificate once there is one; keep the last good one otherwise."""
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            try:
                fresh = await asyncio.to_thread(self._pair)
                if fresh != self._seen:
                    self._context, self._seen = server_context(fresh), fresh
            except OSError as error:
                logs.error("public.certificate_failed", error)


class _NoAccessLog(AbstractAccessLogger):
    """Who asks for public keys is not written down."""

    @property
    def enabled(self) -> bool:
        return False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Nothing."""


class _Connection(web.RequestHandler):
    """Tells when it is closed."""

    __slots__ = ("_lost",)

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, lost: asyncio.Event
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log_class=_NoAccessLog,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=0.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=64,
            read_bufsize=16 * 1024,
            auto_decompress=False,
        )
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._lost.set()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP: aiohttp would log and quote it."""
        answer = web.Response(status=status, text="This is no HTTP/1.1 request that can be read.\n")
        answer.force_close()
        return answer


def _kind(status: int) -> str:
    """What an answer counts as."""
    known = {200: "set", 304: "not_modified", 429: "limited"}
    return known.get(status, "failed" if status >= 500 else "refused")


def _listening(address: Address) -> socket.socket:
    """A socket that listens. Raises RuntimeError."""
    try:
        host, every = address.host, not address.host
        if every and not socket.has_dualstack_ipv6():
            host = "0.0.0.0"  # noqa: S104 - every address was asked for
        v6 = not host or ":" in host
        made = socket.create_server(
            (host or "::", address.port),
            family=socket.AF_INET6 if v6 else socket.AF_INET,
            backlog=128,
            dualstack_ipv6=v6 and every,
        )
    except OSError as error:
        raise RuntimeError(f"cannot listen at {address}") from error
    made.setblocking(False)
    return made
