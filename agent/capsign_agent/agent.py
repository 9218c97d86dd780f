"""The agent: its parts, how it starts, how it drains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time

from capsign_wire import logs, otel, runtime
from capsign_wire.failures import FailureError
from capsign_wire.memory_limit import memory_limit
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent import __version__
from capsign_agent.config import Config, Socket
from capsign_agent.front import memory_shares
from capsign_agent.front.calls_in_flight import CallsInFlight
from capsign_agent.front.health import Health
from capsign_agent.front.read_slots import ReadSlots
from capsign_agent.front.servers import Servers
from capsign_agent.front.servicer import Service
from capsign_agent.front.sockets import SocketClaim
from capsign_agent.front.status import status
from capsign_agent.handles.contact import Contact
from capsign_agent.handles.events import HandleEvents
from capsign_agent.handles.finder import HandleFinder
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.handles.renewal import Renewal
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.handles.watch import Watch
from capsign_agent.identity.configured_source import source_of
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.journal import records
from capsign_agent.journal.directory import JournalGoneError
from capsign_agent.journal.journal import Journal
from capsign_agent.journal.reporter import Reporter
from capsign_agent.sign.exchange import Exchange
from capsign_agent.sign.inputs import Inputs
from capsign_agent.sign.key_sets import KeySets
from capsign_agent.sign.lookup_limit import LookupLimit
from capsign_agent.sign.lookups import Lookups
from capsign_agent.sign.outcomes import OutcomeRecorder
from capsign_agent.sign.public_keys import PublicKeys
from capsign_agent.sign.refusals import Refusals
from capsign_agent.sign.signing_path import SigningPath
from capsign_agent.tasks import Tasks, cancel
from capsign_agent.timing import USUAL, Timing
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.certificate_changeover import CertificateChangeover
from capsign_agent.upstream.coalesce import Coalescer, on_the_loop
from capsign_agent.upstream.connections import Connections
from capsign_agent.upstream.streams import Reachability, StreamSetup
from capsign_agent.witness.memory import WitnessMemory
from capsign_agent.witness.told_leaves import ToldLeaves
from capsign_agent.witness.witness import Witness


class Agent:
    """One agent. `run` starts it and returns when it has drained."""

    def __init__(self, config: Config, timing: Timing = USUAL) -> None:
        """Make the parts; takes the journal and the sockets' paths. Raises SettingsError,
        SocketError or JournalError.
        """
        self._config = config
        self._timing = timing
        self.metrics = Metrics()
        self._tasks = Tasks(self._part_failed)
        self._stopping = asyncio.Event()
        self._failed = False
        self._telemetry: otel.Telemetry | None = None
        self.reach = Reachability(time.monotonic(), lambda: self.renewal.reconnected())
        self.connections = Connections(
            config.upstream,
            self.reach,
            self._tasks.spawn,
            self.metrics,
            lambda: self.identity_events.advice,
        )
        calls = AdapterCalls(
            lambda: self.connections.current,
            config.upstream.timeout_ms / 1000,
            lambda: self.renewal.fetch_soon(),
        )
        self.identity_events = IdentityEvents(lambda piece: self.journal.append(piece))
        self.source = source_of(config, calls, self.identity_events, timing)
        claims = [_claim(one) for one in config.sockets]
        self.journal = _begun_journal(config)
        self.handles = HandleRegistry(
            (_socket_handles(one) for one in config.sockets),
            Contact(config.limits.revocations_heard_s),
        )
        keys = PublicKeys(calls.public_keys, config.limits.public_keys, time.monotonic)
        sets = KeySets(calls.jwks, time.monotonic)
        self.coalescer = Coalescer(
            config.limits.queue_items,
            config.limits.queue_bytes,
            self.connections.refusing,
            on_the_loop,
        )
        changes = HandleEvents(self.handles, self.journal)
        self.renewal = Renewal(
            self.handles,
            calls,
            changes,
            self.metrics,
            connected=lambda: self.reach.connected > 0,
            timing=timing,
        )
        self.watch = Watch(
            calls,
            changes,
            self.renewal,
            lambda: _clear(keys, sets),
            self.source.authorities_changed,
            timing,
        )
        self.outcomes = OutcomeRecorder(self.journal, self.metrics, self.renewal.refused)
        self._told = ToldLeaves(timing.covered_after_s(config.log.look_every_s))
        self._changeover = CertificateChangeover(
            config.upstream,
            self.connections,
            self.renewal,
            self._stream_setup(),
            self._part_failed,
            timing,
        )
        self.witness = Witness(
            WitnessMemory(config.journal.dir, config.log.key, config.upstream.targets),
            lambda: list(self.connections.current.targets),
            self._changeover.leave,
            self.journal,
            config.log.look_every_s,
            self._told,
        )
        self._changeover.leave(*self.witness.left)
        self._reporter = Reporter(self.journal, calls, self.metrics, config.journal.flush_ms / 1000)
        self.health = Health(
            config.health.path, config.probe_path, self.faults, lambda: self.identity_events.advice
        )
        self.calls_in_flight = CallsInFlight()
        shares = _memory_shares(config)
        self.service = self._service(
            calls, keys, sets, ReadSlots(len(claims), shares.shared_read_slots)
        )
        self.servers = Servers(claims, self.service, shares, self.metrics, config.front)

    async def run(self) -> bool:
        """Serve until `stop`, then drain. Returns whether it was asked to stop; False if a part of
        it failed.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        for work in (
            self._changeover.follow(self.source),
            self.renewal.keep(),
            self.watch.listen(),
            self._reporter.run(),
            self.servers.keep_read_slots(),
            self.witness.watch(self.reach.returned),
        ):
            self._tasks.spawn(work)
        await self.servers.start(self.handles.sockets)
        await self.health.start()
        self._start_telemetry()
        runtime.freeze_heap()
        sockets, targets = len(self._config.sockets), len(self._config.upstream.targets)
        logs.event("agent.serving", sockets=sockets, targets=targets)
        await self._stopping.wait()
        await self._drain()
        return not self._failed

    def stop(self) -> None:
        """Begin to drain: new calls are refused as DRAINING from now on."""
        self.calls_in_flight.close()
        self._stopping.set()

    def faults(self) -> list[str]:
        """What keeps the agent from signing, for health, as words of an enumeration. Without an
        identity the word after `no_identity` says why.
        """
        now, upstream = time.time(), self.connections.current
        by_certificate = self._timing.certificate_clock()
        nobody = not upstream.remaining_s(by_certificate)
        checks = {
            "draining": self._stopping.is_set(),
            "no_identity": nobody,
            self.identity_events.last_error: nobody and bool(self.identity_events.last_error),
            upstream.fault(by_certificate): bool(upstream.fault(by_certificate)),
            "no_handles": not self.handles.usable(now),
            "split_view": bool(upstream.left) and not upstream.targets,
            "no_upstream": self.reach.connected == 0,
            "upstream_silent": upstream.silent,
            "journal_full": self.journal.full,
            "socket_replaced": not (self.servers.intact and self.health.intact),
        }
        return [word for word, wrong in checks.items() if wrong]

    @property
    def last_word(self) -> str:
        """Why the agent has no identity, and what to do about it; empty if it has one."""
        if self._remaining_s() or not self.identity_events.last_error:
            return ""
        return f"{self.identity_events.last_error} {self.identity_events.advice}".strip()

    def _remaining_s(self) -> float:
        """Seconds until the certificate in use ends; 0 if it has ended or there is none."""
        return self.connections.current.remaining_s(self._timing.certificate_clock())

    def _stream_setup(self) -> StreamSetup:
        config = self._config.upstream
        return StreamSetup(
            self.coalescer,
            self.outcomes,
            self._told,
            self.reach,
            self.metrics,
            # half leaves a caller with the default deadline time for the second try
            exchange_s=config.timeout_ms / 1000 / 2,
            connect_s=config.connect_timeout_ms / 1000,
            timing=self._timing,
        )

    def _service(
        self, calls: AdapterCalls, keys: PublicKeys, sets: KeySets, slots: ReadSlots
    ) -> Service:
        limits = self._config.limits
        finder = HandleFinder(self.renewal.hold, float(limits.clock_skew_s))
        inputs = Inputs(keys, lambda: self.coalescer.crowded)
        lookup_limit = LookupLimit()
        exchange = Exchange(self.coalescer, self.outcomes, inputs)
        return Service(
            SigningPath(
                finder, inputs, Refusals(self.journal, self._timing), exchange, self.metrics
            ),
            Lookups(calls, keys, sets, self.journal, finder, lookup_limit, self._timing),
            lookup_limit,
            finder,
            self.calls_in_flight,
            self.connections,
            slots,
            self._config.upstream.timeout_ms / 1000,
            limits.stream_calls,
            lambda socket: status(socket, self.faults(), self.witness, self.journal),
        )

    def _start_telemetry(self) -> None:
        """Register the gauges, and start the exporters that the environment asks for. After serving
        began, because they take time to load.
        """
        gauge, clock = self.metrics.gauge, time.time
        gauge("capsign.queue.depth", lambda: self.coalescer.items, "upstream")
        gauge("capsign.queue.age", self.coalescer.age, "upstream")
        gauge("capsign.queue.depth", lambda: self.journal.unsealed, "journal")
        gauge("capsign.queue.depth", lambda: len(self.journal.sealed()), "audit")
        gauge("capsign.journal.bytes", lambda: self.journal.size_bytes)
        gauge("capsign.journal.share", lambda: self.journal.fullest_share)
        gauge("capsign.room.used", lambda: self.servers.used)
        gauge("capsign.upstream.streams", lambda: self.reach.connected)
        gauge("capsign.handle.age", lambda: self.handles.age(clock()))
        gauge("capsign.certificate.remaining", self._remaining_s)
        gauge("capsign.agent.split_view", lambda: len(self.witness.left))
        gauge("capsign.agent.checkpoint.age", lambda: self.witness.age_s)
        self._telemetry = otel.start("capsign-agent", __version__, self.metrics, os.environ)
        self.servers.trace_with(self._telemetry.tracer)

    async def _drain(self) -> None:
        """Wait for calls in flight, then deliver the journal with its CLOSE record, then remove the
        sockets; all within `limits.drain_ms`.
        """
        logs.event("agent.draining", in_flight=self.calls_in_flight.count)
        loop, drain_s = asyncio.get_running_loop(), self._config.limits.drain_ms / 1000
        until = loop.time() + drain_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.calls_in_flight.quiet(), drain_s * 0.7)
        stopping = FailureError(failures_pb2.REASON_DRAINING, "The agent is stopping.")
        self.coalescer.fail_all(stopping, self.outcomes.lost)
        await self.servers.stop()
        await self._changeover.retire()
        await cancel(self._changeover.running | self._tasks.running)
        with contextlib.suppress(FailureError):
            self.journal.append(records.closed())
        flushed = False
        with contextlib.suppress(TimeoutError, JournalGoneError):
            flushed = await asyncio.wait_for(self._reporter.flush(), max(0.1, until - loop.time()))
        self.journal.close()
        await self.connections.current.close()
        await self.health.close()
        self.servers.release()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)
        logs.event("agent.stopped", journal_delivered=flushed)

    def _part_failed(self) -> None:
        """A part of the agent has ended by an exception: stop, so that the kubelet restarts the
        container.
        """
        self._failed = True
        self.stop()


def _claim(one: Socket) -> SocketClaim:
    return SocketClaim(one.path, int(one.mode, 8), int(one.directory_mode, 8))


def _begun_journal(config: Config) -> Journal:
    """The journal, with the first record of this life written. Raises JournalError."""
    now_ms = time.time_ns() // 1_000_000
    journal = Journal(
        config.journal.dir,
        config.journal.max_bytes,
        secrets.token_bytes(16),
        now_ms,
        [one.name for one in config.sockets],
        config.journal.reserved_percent,
    )
    if journal.torn_bytes:
        logs.warning("journal.torn_tail", bytes=journal.torn_bytes)
    journal.open(records.opened(journal.left()))
    if journal.full:
        logs.warning("journal.full")
    return journal


def _memory_shares(config: Config) -> memory_shares.MemoryShares:
    sockets, limit = len(config.sockets), memory_limit()
    shares = memory_shares.share(limit, sockets, config.limits.call_bytes, config.journal.max_bytes)
    if limit is not None and shares.needed > limit:
        logs.warning("memory.tight", limit_bytes=limit, needed_bytes=shares.needed, sockets=sockets)
    return shares


def _socket_handles(one: Socket) -> SocketHandles:
    narrow = one.narrow
    return SocketHandles(
        one.name, one.grants, Narrowing(narrow.algorithms, narrow.role, narrow.ttl_s)
    )


def _clear(*caches: PublicKeys | KeySets) -> None:
    """Forget what was fetched under another policy."""
    for each in caches:
        each.clear()
