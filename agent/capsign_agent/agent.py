"""The agent put together: what it is made of, how it starts, how it drains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Coroutine
from typing import Any

import grpc.aio
from capsign_wire import logs, otel, runtime
from capsign_wire.agent.v1 import agent_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.lenient import LenientRegistrar
from capsign_wire.memory_limit import memory_limit, resident
from capsign_wire.rpc_metrics import MeasuredRegistrar
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent import __version__, process
from capsign_agent.backoff import backoff_s
from capsign_agent.config import Config, Socket
from capsign_agent.front import memory_shares
from capsign_agent.front.admission import Front, Leaving, server_options
from capsign_agent.front.health import Health
from capsign_agent.front.memory_budget import Heavy, Room
from capsign_agent.front.reading import GRACE_S, QUIET_S, Turns
from capsign_agent.front.servicer import SigningServicer
from capsign_agent.front.sockets import SocketClaim, SocketError
from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.registry import HandleBook, SocketHandles
from capsign_agent.handles.renewal import Renewal
from capsign_agent.identity.choose import source_of
from capsign_agent.identity.events import Account
from capsign_agent.journal import records
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.reporter import Reporter
from capsign_agent.sign.exchange import Exchange
from capsign_agent.sign.inputs import Inputs
from capsign_agent.sign.lookups import Lookups
from capsign_agent.sign.outcomes import OutcomeRecorder
from capsign_agent.sign.path import SigningPath
from capsign_agent.sign.public_keys import PublicKeys
from capsign_agent.sign.refusals import Refusals
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.coalesce import Coalescer
from capsign_agent.upstream.generation import Target, Upstream
from capsign_agent.upstream.line import Line
from capsign_agent.upstream.redial import Redial
from capsign_agent.upstream.streams import Reachability, SignStream, streams_of


class Agent:
    """One agent. `run` is its life."""

    def __init__(self, config: Config) -> None:
        """Takes the journal and the sockets' paths. Raises SettingsError, SocketError or
        JournalError.
        """
        self._config = config
        self.metrics = Metrics()
        self._upstream = Upstream(config.upstream, None, lambda: self._account.advice)
        timeout_s = config.upstream.timeout_ms / 1000
        calls = AdapterCalls(lambda: self._upstream, timeout_s, lambda: self._renewal.fetch_soon())
        self._account = Account(lambda piece: self.journal.append(piece))
        self._source = source_of(config, calls, self._account)
        self._sockets = [
            SocketClaim(one.path, int(one.mode, 8), int(one.directory_mode, 8))
            for one in config.sockets
        ]
        now_ms = time.time_ns() // 1_000_000
        boot_id, sockets = secrets.token_bytes(16), len(config.sockets)
        self.journal = Journal(
            config.journal.dir, config.journal.max_bytes, boot_id, now_ms, sockets
        )
        if self.journal.torn_bytes:
            logs.warning("journal.torn_tail", bytes=self.journal.torn_bytes)
        self.journal.open(records.opened())
        if self.journal.full:
            logs.warning("journal.full")
        self._book = HandleBook(_socket_handles(one) for one in config.sockets)
        self._keys = PublicKeys(calls.public_keys, config.limits.public_keys, time.monotonic)
        self._reach = Reachability(time.monotonic(), lambda: self._renewal.reconnected())
        self._redial = Redial(
            lambda: self._upstream, self._reach, lambda work: self._spawn(work, self._tasks)
        )
        self._coalescer = Coalescer(
            config.limits.queue_items, config.limits.queue_bytes, self._refusing
        )
        self._renewal = Renewal(
            self._book,
            calls,
            self.journal,
            self.metrics,
            self._keys.clear,
            authorities_changed=self._source.authorities_changed,
            connected=lambda: self._reach.connected > 0,
        )
        self._outcomes = OutcomeRecorder(self.journal, self.metrics, self._renewal.refused)
        self._finder = HandleFinder(self._renewal.hold, float(config.limits.clock_skew_s))
        inputs = Inputs(self._keys, lambda: self._coalescer.crowded)
        exchange = Exchange(self._coalescer, self._outcomes, inputs)
        self._path = SigningPath(
            self._finder, inputs, Refusals(self.journal), exchange, self.metrics
        )
        self._reporter = Reporter(self.journal, calls, self.metrics, config.journal.flush_ms / 1000)
        self._lookups = Lookups(calls, self._keys, self.journal, self._finder)
        self._health = Health(
            config.health.path, config.probe_path, self.faults, lambda: self._account.advice
        )
        self._budget = memory_shares.share(
            limit := memory_limit(), sockets, config.limits.call_bytes, config.journal.max_bytes
        )
        if limit is not None and self._budget.needed > limit:
            logs.warning(
                "memory.tight", limit_bytes=limit, needed_bytes=self._budget.needed, sockets=sockets
            )
        self._turns = Turns(sockets, self._budget.turns_for_all)
        self._heavy = Heavy()
        self._rooms: list[Room] = []
        self._leaving = Leaving()
        self._servers: list[grpc.aio.Server] = []
        self._servicers: list[SigningServicer] = []
        self._telemetry: otel.Telemetry | None = None
        self._streams: list[SignStream] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stream_tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._failed = False
        self._in_flight = 0
        self._quiet = asyncio.Event()

    async def run(self) -> bool:
        """Serve until `stop`, then drain. Returns whether it was asked to stop; False if a part of
        it failed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        renewal = self._renewal
        for work in (
            self._follow_identity(),
            renewal.keep(),
            renewal.listen(),
            self._reporter.run(),
            self._keep_turns(),
        ):
            self._spawn(work, self._tasks)
        for claim, handles in zip(self._sockets, self._book.sockets, strict=True):
            self._servers.append(await self._serve(claim, handles))
        await self._health.start()
        self._start_telemetry()
        runtime.settle()
        logs.event(
            "agent.serving", sockets=len(self._servers), targets=len(self._config.upstream.targets)
        )
        await self._stopping.wait()
        await self._drain()
        return not self._failed

    def _start_telemetry(self) -> None:
        """Gauges, and whatever exporters the environment asks for; after serving began, because
        they take time to load.
        """
        metrics, clock = self.metrics, time.time
        metrics.gauge("capsign.queue.depth", lambda: self._coalescer.items, "upstream")
        metrics.gauge("capsign.queue.age", self._coalescer.age, "upstream")
        metrics.gauge("capsign.queue.depth", lambda: self.journal.unsealed, "journal")
        metrics.gauge("capsign.queue.depth", lambda: len(self.journal.sealed()), "audit")
        metrics.gauge("capsign.journal.bytes", lambda: self.journal.size_bytes)
        metrics.gauge("capsign.room.used", lambda: max(room.used for room in self._rooms))
        metrics.gauge("capsign.upstream.streams", lambda: self._reach.connected)
        metrics.gauge("capsign.handle.age", lambda: self._book.age(clock()))
        metrics.gauge("capsign.certificate.remaining", lambda: self._upstream.remaining_s(clock()))
        self._telemetry = otel.start("capsign-agent", __version__, metrics, os.environ)
        for servicer in self._servicers:
            servicer.tracer = self._telemetry.tracer

    def stop(self) -> None:
        """Begin to drain: new calls are refused as DRAINING from now on."""
        self._stopping.set()

    def faults(self) -> list[str]:
        """What keeps the agent from signing, for health. Without an identity the word after
        `no_identity` says why.
        """
        nobody = not self._upstream.remaining_s(time.time())
        checks = {
            "draining": self._stopping.is_set(),
            "no_identity": nobody,
            self._account.hindrance: nobody and bool(self._account.hindrance),
            self._upstream.fault(time.time()): bool(self._upstream.fault(time.time())),
            "no_handles": not self._book.usable(time.time()),
            "no_upstream": self._reach.connected == 0,
            "upstream_silent": self._upstream.silent,
            "journal_full": self.journal.full,
            "socket_replaced": not all(claim.intact for claim in self._sockets)
            or not self._health.intact,
        }
        return [word for word, wrong in checks.items() if wrong]

    @property
    def last_word(self) -> str:
        """Why it never had, or lost, its identity, and what to do about it; empty if it has one."""
        if self._upstream.remaining_s(time.time()) or not self._account.hindrance:
            return ""
        return f"{self._account.hindrance} {self._account.advice}".strip()

    def enter(self) -> None:
        """A call begins. Raises FailureError DRAINING."""
        if self._stopping.is_set():
            raise FailureError(
                failures_pb2.REASON_DRAINING, "The agent is stopping.", retry_after_ms=500
            )
        self._in_flight += 1

    @property
    def away(self) -> bool:
        """Whether no adapter is connected."""
        return self._reach.down_since is not None

    async def seek(self, timeout_s: float) -> None:
        """One more attempt to reach an adapter, before this call is refused for want of one: it may
        be there again, while gRPC waits before its next attempt. Takes half of the time at most.
        """
        if self._upstream.targets:
            await self._redial.attempt(timeout_s / 2)

    def leave(self) -> None:
        """A call has ended."""
        self._in_flight -= 1
        if self._in_flight == 0 and self._stopping.is_set():
            self._quiet.set()

    async def _serve(self, claim: SocketClaim, handles: SocketHandles) -> grpc.aio.Server:
        most = process.connections_for(len(self._sockets), self._budget.connections)
        server = grpc.aio.server(options=server_options(self._budget, most))
        room = Room(self._budget.call_bytes // len(self._sockets), self.metrics, self._heavy)
        self._rooms.append(room)
        servicer = SigningServicer(
            handles,
            self._path,
            self._lookups,
            self,
            room,
            self._turns,
            timeout_s=self._config.upstream.timeout_ms / 1000,
            stream_calls=self._config.limits.stream_calls,
            finder=self._finder,
        )
        self._servicers.append(servicer)
        front = Front(
            MeasuredRegistrar(server, self.metrics), room, self._turns, self._leaving, handles.name
        )
        registrar: Any = LenientRegistrar(front)
        agent_pb2_grpc.add_SigningServiceServicer_to_server(servicer, registrar)
        try:
            server.add_insecure_port(claim.address)
        except RuntimeError:
            raise SocketError(
                f"The socket {claim.path} cannot be bound. See that its directory exists "
                f"and has room."
            ) from None
        await server.start()
        claim.bound()
        return server

    async def _keep_turns(self) -> None:
        """Take turns back from who reads too long, and give memory back to the kernel after much
        was held.
        """
        loop = asyncio.get_running_loop()
        giving = process.GivingBack()
        while True:
            await asyncio.sleep(QUIET_S if self._turns.contended else GRACE_S)
            now = loop.time()
            self._turns.look(now)
            if giving.due(now, before := resident()):
                process.give_back()
                giving.given(now, before, resident())

    async def _drain(self) -> None:
        """In flight first, then the journal with its CLOSE record, then the sockets; each within
        what is left of the time.
        """
        logs.event("agent.draining", in_flight=self._in_flight)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._config.limits.drain_ms / 1000
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._quiet.wait(), self._config.limits.drain_ms / 1000 * 0.7
                )
        self._coalescer.fail_all(
            FailureError(failures_pb2.REASON_DRAINING, "The agent is stopping."),
            self._outcomes.lost,
        )
        await asyncio.gather(*(server.stop(0.2) for server in self._servers))
        for stream in self._streams:
            stream.retire()
        if self._stream_tasks:
            await asyncio.wait(self._stream_tasks, timeout=0.5)
        await _cancel(self._stream_tasks | self._tasks)
        with contextlib.suppress(FailureError):
            self.journal.append(records.closed())
        flushed = False
        with contextlib.suppress(TimeoutError):
            flushed = await asyncio.wait_for(self._reporter.flush(), max(0.1, until - loop.time()))
        self.journal.close()
        await self._upstream.close()
        await self._health.close()
        for claim in self._sockets:
            claim.release()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)
        logs.event("agent.stopped", journal_delivered=flushed)

    def _refusing(self) -> FailureError | None:
        """While nothing has been connected for a while, waiting is of no use to a caller."""
        since = self._reach.down_since
        if since is None:
            return None
        waited_s = asyncio.get_running_loop().time() - since
        return (
            self._upstream.unreachable()
            if waited_s * 1000 >= self._config.upstream.unreachable_after_ms
            else None
        )

    def _start_streams(self) -> None:
        config = self._config.upstream

        def make(target: Target, line: Line) -> SignStream:
            return SignStream(
                target,
                line,
                self._coalescer,
                self._outcomes,
                self._reach,
                self.metrics,
                exchange_s=config.timeout_ms
                / 1000
                / 2,  # leaves a caller with the default deadline time for the second try
                connect_s=config.connect_timeout_ms / 1000,
            )

        self._streams = streams_of(make, self._upstream.targets)
        for stream in self._streams:
            self._spawn(stream.run(), self._stream_tasks)

    async def _follow_identity(self) -> None:
        """Each certificate makes a generation of connections. The source retries by itself; this
        ends when cancelled.
        """
        change: asyncio.Task[None] | None = None
        async with contextlib.aclosing(self._source.changes()) as changes:
            async for fresh in changes:
                # one that no adapter has accepted yet must not keep out the one that follows it
                if change is not None:
                    await _cancel({change})
                generation = Upstream(self._config.upstream, fresh)
                if self._upstream.targets:
                    change = self._spawn(self._change_generation(generation), self._tasks)
                # the first: at once, before anything asks over connections that are not there and
                # then waits to ask again
                else:
                    await self._change_generation(generation)

    async def _change_generation(self, fresh: Upstream) -> None:
        """New connections, handles bound to the new key, then the old streams end. No call is lost
        on the way.

        A handle that is sent over the connections of another key looks stolen. So the handles held
        and the streams change in one turn of the loop, and until then everything goes on over the
        old connections. May be cancelled at any point.
        """
        try:
            if self._upstream.targets:
                await self._first_handles(fresh)
            else:
                self._renewal.fetch_soon()
        except BaseException:
            if self._upstream is not fresh:
                await fresh.close()
            raise
        # From here to the end nothing is awaited.
        self._leave_for(fresh)
        self._start_streams()

    async def _first_handles(self, fresh: Upstream) -> None:
        """Handles over the new connections, asked for until an adapter gives them: the store may be
        down just now.

        If the old certificate ends meanwhile, its connections do too, and with them all signing:
        callers hear that they may try again. Evidence and the rest go over the new ones from then
        on.
        """
        calls = AdapterCalls(lambda: fresh, self._config.upstream.timeout_ms / 1000)
        failures = 0
        while True:
            try:
                await self._renewal.fetch(calls)
            except FailureError as error:
                failures += 1
                logs.warning("credentials.not_accepted_yet", reason=error.row.name)
            else:
                return
            if not self._upstream.remaining_s(time.time()):
                self._leave_for(fresh)
            await asyncio.sleep(backoff_s(failures))

    def _leave_for(self, fresh: Upstream) -> None:
        """The old streams take no more work, and end; unary calls go over the new connections."""
        if self._upstream is fresh:
            return
        old, self._upstream = self._upstream, fresh
        for stream in self._streams:
            stream.retire()
        if old.targets:
            self._spawn(self._end(old, set(self._stream_tasks)), self._tasks)

    async def _end(self, old: Upstream, old_tasks: set[asyncio.Task[None]]) -> None:
        """What is in flight is answered, then the old connections are closed."""
        if old_tasks:
            await asyncio.wait(old_tasks, timeout=self._config.upstream.timeout_ms / 1000)
        await old.close()
        logs.event("credentials.changed")

    def _spawn(
        self, work: Coroutine[Any, Any, None], into: set[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        into.add(task)
        task.add_done_callback(lambda done: self._ended(done, into))
        return task

    def _ended(self, task: asyncio.Task[None], of: set[asyncio.Task[None]]) -> None:
        of.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logs.error("agent.task_failed", task.exception())
            self._failed = True
            self.stop()  # a part is gone: a restart is honest, limping on is not


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=1.0)


def _socket_handles(one: Socket) -> SocketHandles:
    narrow = one.narrow
    return SocketHandles(
        one.name, one.grants, Narrowing(narrow.algorithms, narrow.role, narrow.ttl_s)
    )
