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
from capsign_wire import logs
from capsign_wire.addresses import Address
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.identity import peer_of_certificate
from capsign_adapter.front.log_routes import LogRoutes
from capsign_adapter.front.public_answers import Answer, Question, problem
from capsign_adapter.front.public_connection import PublicConnection, listening
from capsign_adapter.front.public_routes import Routes
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

FILES_PER_SECOND, FILES_AT_ONCE = 50, 200
"""Rate and burst of files of the log for strangers, of all addresses together: they read the
store.
"""

OF_READER_PER_SECOND, OF_READER_AT_ONCE = 200, 400
"""Rate and burst of the requests of one auditor, responder or operator with a certificate."""

CERTIFICATE_SECONDS = 5.0
"""Between looks whether there is another certificate: one from our authority is renewed at half of
its life, and what was served after its end nobody would trust.
"""


class PublicServer:
    """Bound when it is made (RuntimeError if it cannot be), and serves from `start` to `stop`."""

    def __init__(
        self,
        address: Address,
        pair: Callable[[], Pair],
        routes: Routes,
        rates: Buckets,
        observe: Callable[[str], None] = lambda _: None,
        log: LogRoutes | None = None,
    ) -> None:
        """`pair` gives the certificate and key that are served now; `observe` is told each answer
        as `capsign.public.answers` names it. Raises OSError if they cannot be served.
        """
        self._observe = observe
        self._pair, self._seen = pair, pair()
        self._context = server_context(self._seen)
        self._routes, self._rates = routes, rates
        self._log = log
        self._maker = ThreadPoolExecutor(1, "key-sets")
        self._reader = ThreadPoolExecutor(1, "log-files")
        self._live: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()
        self._socket = listening(address)
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
        self._reader.shutdown(wait=False, cancel_futures=True)

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
                lambda: PublicConnection(server, loop, lost, IDLE_SECONDS),
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
        self._observe(_kind(answer))
        # To a HEAD aiohttp sends the same without the body.
        response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if request.can_read_body:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        host = str(request.remote or "")
        question = Question(
            request.path,
            dict(request.query),
            request.headers.get("If-None-Match", ""),
            request.method == "HEAD",
            "gzip" in request.headers.get("Accept-Encoding", ""),
            _peer(request),
        )
        if self._log is not None and self._log.reader(question.peer):
            assert question.peer is not None
            name = question.peer.spiffe_id
            self._demand(name, "reader", OF_READER_PER_SECOND, OF_READER_AT_ONCE)
        else:
            self._demand(host, "requests", PER_SECOND, AT_ONCE)
            self._demand("", "requests", OF_ALL_PER_SECOND, OF_ALL_AT_ONCE)
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, b"", {"Allow": "GET, HEAD"})
        if self._log is not None and self._log.serves(question.path):
            return await self._of_log(self._log, question)
        known = self._routes.known(question)
        if known is not None:
            return known
        self._demand("", "made", MADE_PER_SECOND, MADE_AT_ONCE)
        making = asyncio.get_running_loop().run_in_executor(
            self._maker, self._routes.made, question
        )
        return await asyncio.wait_for(making, MADE_SECONDS)

    async def _of_log(self, log: LogRoutes, question: Question) -> Answer:
        """A file of the log, read on a thread of its own: key sets do not wait for it."""
        if not log.reader(question.peer):
            self._demand("", "files", FILES_PER_SECOND, FILES_AT_ONCE)
        reading = asyncio.get_running_loop().run_in_executor(self._reader, log.answer, question)
        return await asyncio.wait_for(reading, MADE_SECONDS)

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


def _peer(request: web.BaseRequest) -> Peer | None:
    """Who asks, if the connection has a certificate."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return peer_of_certificate(der) if der else None


def _kind(answer: Answer) -> str:
    """What an answer counts as."""
    if answer.status == 200:
        return "set" if "jwk-set" in answer.headers.get("Content-Type", "") else "file"
    known = {304: "not_modified", 429: "limited"}
    return known.get(answer.status, "failed" if answer.status >= 500 else "refused")
