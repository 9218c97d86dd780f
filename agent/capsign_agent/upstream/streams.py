"""One signing stream to one replica: connects, takes a batch, sends it, passes on the answer, and
repeats.

A stream carries one batch at a time. If the exchange breaks after the batch was written, the calls
are sent once more with the same intents, over whichever stream is free, before the callers'
deadlines. That is safe, because the adapter's ledger answers an intent that was done with its
stored bytes (I5), and it saves the callers a resolve. If the second attempt breaks too, the callers
hear ANSWER_LOST.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
from capsign_wire.adapter.v1 import signing_pb2
from capsign_wire.backoff import Backoff
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.timing import Timing
from capsign_agent.upstream.batch import Batch
from capsign_agent.upstream.call import Call
from capsign_agent.upstream.coalesce import Coalescer
from capsign_agent.upstream.connection_generation import Replica
from capsign_agent.upstream.replica_connection import ReplicaConnection

AFTER_BREAKS = Backoff(0.2, 5.0)
GOOD_AFTER_S = 1.0
"""Seconds after which a stream counts as good even if nothing was asked over it."""
MOST_ATTEMPTS = 2


class LeavesTold(Protocol):
    """Who remembers which leaves an adapter said signatures have; see `witness.told_leaves`."""

    def answered(self, address: str, response: signing_pb2.SignResponse) -> None:
        """An adapter answered a batch. Never raises."""


class BatchRecorder(Protocol):
    """What the signing path does around an exchange; see `sign.outcomes`."""

    def before_sending(self, batch: Batch) -> Batch:
        """Journal the intents; returns what of the batch may be sent. Never raises."""

    def answered(self, batch: Batch, response: signing_pb2.SignResponse) -> None:
        """Check, journal and give out what came back. Never raises."""

    def lost(self, call: Call, reason: failures_pb2.Reason.ValueType) -> None:
        """No answer will come: journal that, and tell the caller. Never raises."""


class Reachability:
    """How many streams are open, and since when none is (`down_since`, monotonic seconds; None
    while one is). Shared by all streams.
    """

    def __init__(self, now: float, returned: Callable[[], None] = lambda: None) -> None:
        """`returned` is called for every stream that opens."""
        self._returned = returned
        self.connected = 0
        self.returned = asyncio.Event()
        """Set while a stream is open."""
        self.down_since: float | None = now
        self._down_before = now

    def up(self) -> None:
        """A stream was opened. The adapter may still refuse it: in TLS 1.3 a client certificate is
        refused after the client's handshake.
        """
        self.connected += 1
        self.down_since = None
        self.returned.set()
        self._returned()

    def down(self, now: float, *, good: bool) -> None:
        """A stream ended. If it was not good, it does not count as having been open."""
        self.connected -= 1
        if good:
            self._down_before = now
        if self.connected == 0:
            self.returned.clear()
            self.down_since = self._down_before


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """What all signing streams have in common."""

    coalescer: Coalescer
    outcomes: BatchRecorder
    told: LeavesTold
    reach: Reachability
    metrics: Metrics
    exchange_s: float
    """Seconds that an adapter may take to answer a batch."""
    connect_s: float
    """Seconds that one attempt to connect may take."""
    timing: Timing


class SignStream:
    """Runs until `retire` is called. For one event loop."""

    def __init__(self, target: Replica, connection: ReplicaConnection, setup: StreamSetup) -> None:
        self.target = target
        self._connection = connection
        self._coalescer = setup.coalescer
        self._outcomes = setup.outcomes
        self._told = setup.told
        self._reach = setup.reach
        self._metrics = setup.metrics
        self._batch_size = setup.metrics.histogram("capsign.batch.size")
        self._exchange_s = setup.exchange_s
        self._connect_s = setup.connect_s
        self._idle_s = setup.timing.stream_idle_s
        self._second_try_s = setup.timing.second_try_s
        self._woken: asyncio.Future[None] | None = None
        self._retired = False
        self._batches = 0
        self._idle = True
        self._active_at = 0.0
        self._stale = False

    @property
    def load(self) -> int:
        return self.target.busy

    def _rest(self, idle: bool) -> None:
        """Count this stream among the busy ones of its replica (False) or not (True)."""
        if idle != self._idle:
            self._idle = idle
            self.target.busy += -1 if idle else 1

    def wake(self) -> None:
        self._rest(False)  # at once, so that two calls in one turn of the loop go to two replicas
        self._stir()

    def _stir(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def retire(self) -> None:
        """Finish the batch in flight, take no further one, and end."""
        self._retired = True
        self._stir()

    async def run(self) -> None:
        failures = 0
        while not self._retired:
            try:
                await asyncio.wait_for(self._connection.connected(), self._connect_s)
            except TimeoutError:
                # gRPC spaces its attempts by itself: another wait on top would only notice an
                # adapter's return later.
                self._metrics.counter("capsign.retries").add("upstream")
                continue
            good = await self._serve()
            if self._retired:
                return
            failures = 0 if good else failures + 1
            if failures:
                self._metrics.counter("capsign.retries").add("upstream")
                # A certificate that the adapter refuses shows as a connection that opens and breaks
                # at once: without this wait the loop would spin.
                await self._pause(AFTER_BREAKS.delay_s(failures))

    async def _pause(self, seconds: float) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken, seconds)

    async def _serve(self) -> bool:
        """Exchange batches until the stream ends; returns whether it was good."""
        call = self._connection.ask.signing.Sign()
        call.add_done_callback(lambda _: self._stir())
        self._reach.up()
        good = False
        loop = asyncio.get_running_loop()
        started = self._active_at = loop.time()
        self._stale = False
        self._age_timer = loop.call_later(
            self._idle_s * random.uniform(0.8, 1.0), self._look_at_age, loop
        )
        self._rest(False)
        try:
            while not self._retired and not call.done():
                batch = self._coalescer.take(self._outcomes.lost, self)
                if batch is None:
                    self._woken = loop.create_future()
                    self._rest(True)
                    self._coalescer.park(self)
                    try:
                        await self._woken
                    finally:
                        self._coalescer.unpark(self)
                    if self._stale:
                        break
                    continue
                self._active_at = loop.time()
                if await self._exchange(call, batch):
                    good = True
                else:
                    break
        finally:
            self._age_timer.cancel()
            self._rest(True)
            good = good or loop.time() - started > GOOD_AFTER_S
            self._reach.down(loop.time(), good=good)
            call.cancel()
            self._coalescer.gone(self)
        return good

    async def _exchange(self, call: Any, batch: Batch) -> bool:
        """Send one batch and pass on its answer; returns False if the stream cannot be used any
        more.
        """
        batch = self._outcomes.before_sending(batch)
        if not batch.calls:
            return True
        self._batches += 1
        request = batch.request(self._batches)
        for one in batch.calls:
            one.sent = True
            one.attempts += 1
        self._batch_size.record(batch.items, "upstream")
        late = asyncio.get_running_loop().call_later(self._exchange_s, self._give_up, call)
        try:
            await call.write(request)  # 8
            response = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            response = None
        except asyncio.CancelledError:
            self._lose(batch)
            if asyncio.current_task() is not None and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return False
        finally:
            late.cancel()
        if response is None or response is grpc.aio.EOF or response.batch_id != self._batches:
            self._lose(batch)
            return False
        self.target.liveness.heard()
        self._outcomes.answered(batch, response)
        self._told.answered(self.target.address, response)
        return True

    def _look_at_age(self, loop: asyncio.AbstractEventLoop) -> None:
        """End this stream if it has been idle for long; see `Timing.stream_idle_s`."""
        left = self._active_at + self._idle_s * 0.8 - loop.time()
        if left <= 0 and self._idle:
            self._stale = True
            self._stir()
        else:
            self._age_timer = loop.call_later(max(left, 1.0), self._look_at_age, loop)

    def _give_up(self, call: Any) -> None:
        """The adapter takes too long: cancel the stream, and treat its batch as that of a stream
        that broke.
        """
        self._metrics.counter("capsign.timeouts").add("upstream")
        self.target.liveness.fell_silent()
        call.cancel()

    def _lose(self, batch: Batch) -> None:
        """The answer will not come. Calls that were sent once and whose callers still wait are sent
        again; the others hear that the answer was lost, as do all in a drain.
        """
        most = 0 if self._coalescer.closed else MOST_ATTEMPTS
        again = [one for one in batch.calls if one.attempts < most and not one.answer.done()]
        for one in batch.calls:
            if one not in again:
                self._outcomes.lost(one, failures_pb2.REASON_ANSWER_LOST)
        if again:
            self._metrics.counter("capsign.retries").add("upstream")
            self._coalescer.rest(again)
            loop = asyncio.get_running_loop()
            loop.call_later(self._second_try_s, self._coalescer.again, again)


def streams_of(targets: list[Replica], setup: StreamSetup) -> list[SignStream]:
    """The streams over one generation of connections, one for each, in an order that spreads load
    over the replicas.
    """
    count = max((len(target.connections) for target in targets), default=0)
    return [
        SignStream(target, target.connections[index], setup)
        for index in range(count)
        for target in targets
    ]
