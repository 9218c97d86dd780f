"""Moves the agent to a new certificate: new connections are made, and the old ones end without
losing a call.
"""

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
from capsign_agent.upstream.connection_generation import ConnectionGeneration, Replica
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
        self._running: dict[SignStream, asyncio.Task[None]] = {}
        self._stream_tasks = Tasks(failed)
        self._changes = Tasks(failed)
        self._left: set[str] = set()

    async def follow(self, source: IdentitySource) -> None:
        """Change over to each certificate that the source yields, until cancelled. The source
        itself repeats what fails.
        """
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
                fresh.leave(self._left)
                if self._connections.current.targets:
                    change = self._changes.spawn(self._change(fresh))
                # the first: at once, before anything asks over connections that are not there and
                # then waits to ask again
                else:
                    await self._change(fresh)

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The tasks of streams, and of changes that are under way."""
        return self._stream_tasks.running | self._changes.running

    async def retire(self) -> None:
        """Take no more batches, and wait for those in flight, half a second at most."""
        self._retire_streams()
        if self._stream_tasks.running:
            await asyncio.wait(self._stream_tasks.running, timeout=0.5)

    def leave(self, *addresses: str) -> None:
        """Use the replicas with these addresses no more, under this certificate and those that
        follow. Batches in flight over them are finished.
        """
        self._left.update(addresses)
        leaving = self._connections.current.leave(addresses)
        ending = [stream for stream in self._running if stream.target in leaving]
        for stream in ending:
            stream.retire()
        if leaving:
            tasks = frozenset(self._running[stream] for stream in ending)
            self._changes.spawn(self._close_left(leaving, tasks))

    async def _close_left(
        self, leaving: list[Replica], streams: frozenset[asyncio.Task[None]]
    ) -> None:
        """Close the connections to replicas that are not used any more, once what is in flight over
        them is answered. A Watch stream over them ends by that.
        """
        if streams:
            await asyncio.wait(streams, timeout=self._timeout_s)
        for replica in leaving:
            await replica.close()

    async def _change(self, fresh: ConnectionGeneration) -> None:
        """Open new connections, fetch handles bound to the new key, then end the old streams. No
        call is lost.

        A handle that is sent over a connection of another key is refused as stolen. So handles and
        streams are replaced together, without an await between, and until then everything uses the
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
        """Fetch handles over the new connections, repeated until an adapter gives them: its store
        may be down.

        If the old certificate ends meanwhile, signing stops with its connections, and callers hear
        that they may try again. All other calls then use the new connections.
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
        """Stop the old streams, and use the new connections for unary calls."""
        old = self._connections.current
        if old is fresh:
            return
        fresh.leave(self._left)  # one may have been left since it was made
        self._connections.current = fresh
        self._retire_streams()
        if old.targets or old.left:
            self._changes.spawn(self._close(old, self._stream_tasks.running))

    async def _close(
        self, old: ConnectionGeneration, old_streams: frozenset[asyncio.Task[None]]
    ) -> None:
        """Close the old connections once what is in flight over them is answered."""
        if old_streams:
            await asyncio.wait(old_streams, timeout=self._timeout_s)
        await old.close()
        logs.event("credentials.changed")

    def _start_streams(self) -> None:
        self._running = {
            stream: self._stream_tasks.spawn(stream.run())
            for stream in streams_of(self._connections.current.targets, self._setup)
        }

    def _retire_streams(self) -> None:
        for stream in self._running:
            stream.retire()
