"""From one generation of connections to the next: each certificate makes a generation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from capsign_wire import logs
from capsign_wire.failures import FailureError

from capsign_agent.config import Upstream as UpstreamConfig
from capsign_agent.handles.renewal import Renewal
from capsign_agent.identity.source import IdentitySource
from capsign_agent.tasks import Tasks, cancel
from capsign_agent.timing import Timing
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_agent.upstream.connections import Connections
from capsign_agent.upstream.streams import SignStream, StreamSetup, streams_of


class CertificateChangeover:
    """For one event loop."""

    def __init__(
        self,
        config: UpstreamConfig,
        connections: Connections,
        renewal: Renewal,
        setup: StreamSetup,
        failed: Callable[[], None],
        timing: Timing,
    ) -> None:
        """`failed` is called when a stream or a change ends by an exception."""
        self._config = config
        self._timeout_s = config.timeout_ms / 1000
        self._connections = connections
        self._renewal = renewal
        self._setup = setup
        self._timing = timing
        self._streams: list[SignStream] = []
        self._stream_tasks = Tasks(failed)
        self._changes = Tasks(failed)

    async def follow(self, source: IdentitySource) -> None:
        """Change with every certificate. The source retries by itself; this ends when cancelled."""
        change: asyncio.Task[None] | None = None
        async with contextlib.aclosing(source.changes()) as changes:
            async for credentials in changes:
                # one that no adapter has accepted yet must not keep out the one that follows it
                if change is not None:
                    await cancel({change})
                fresh = ConnectionGeneration(
                    self._config,
                    credentials,
                    self._connections.metrics,
                    clock=self._timing.certificate_clock,
                )
                if self._connections.current.targets:
                    change = self._changes.spawn(self._change(fresh))
                # the first: at once, before anything asks over connections that are not there and
                # then waits to ask again
                else:
                    await self._change(fresh)

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The streams, and the changes that are under way."""
        return self._stream_tasks.running | self._changes.running

    async def retire(self) -> None:
        """Take no more batches; those in flight have half a second to be answered."""
        self._retire_streams()
        if self._stream_tasks.running:
            await asyncio.wait(self._stream_tasks.running, timeout=0.5)

    async def _change(self, fresh: ConnectionGeneration) -> None:
        """New connections, handles bound to the new key, then the old streams end. No call is lost
        on the way.

        A handle that is sent over the connections of another key looks stolen. So the handles held
        and the streams change in one turn of the loop, and until then everything goes on over the
        old connections. May be cancelled at any point.
        """
        try:
            if self._connections.current.targets:
                await self._first_handles(fresh)
            else:
                self._renewal.fetch_soon()
        except BaseException:
            if self._connections.current is not fresh:
                await fresh.close()
            raise
        # From here to the end nothing is awaited.
        self._leave_for(fresh)
        self._start_streams()

    async def _first_handles(self, fresh: ConnectionGeneration) -> None:
        """Handles over the new connections, asked for until an adapter gives them: the store may be
        down just now.

        If the old certificate ends meanwhile, its connections do too, and with them all signing:
        callers hear that they may try again. Evidence and the rest go over the new ones from then
        on.
        """
        calls = AdapterCalls(lambda: fresh, self._timeout_s)
        failures = 0
        while True:
            try:
                await self._renewal.fetch(calls)
            except FailureError as error:
                failures += 1
                logs.warning("credentials.not_accepted_yet", reason=error.row.name)
            else:
                return
            if not self._connections.current.remaining_s(self._timing.certificate_clock()):
                self._leave_for(fresh)
            await asyncio.sleep(self._timing.retry_delay_s(failures))

    def _leave_for(self, fresh: ConnectionGeneration) -> None:
        """The old streams take no more work, and end; unary calls go over the new connections."""
        old = self._connections.current
        if old is fresh:
            return
        self._connections.current = fresh
        self._retire_streams()
        if old.targets:
            self._changes.spawn(self._close(old, self._stream_tasks.running))

    async def _close(
        self, old: ConnectionGeneration, old_streams: frozenset[asyncio.Task[None]]
    ) -> None:
        """What is in flight is answered, then the old connections are closed."""
        if old_streams:
            await asyncio.wait(old_streams, timeout=self._timeout_s)
        await old.close()
        logs.event("credentials.changed")

    def _start_streams(self) -> None:
        self._streams = streams_of(self._connections.current.targets, self._setup)
        for stream in self._streams:
            self._stream_tasks.spawn(stream.run())

    def _retire_streams(self) -> None:
        for stream in self._streams:
            stream.retire()
