"""Gathers calls into batches while a stream is busy.

A call that finds all streams idle is sent at once. While one is busy, a call waits for others for a
moment (`gathering`), and while all are, until one is free, which takes as many as fit. So a single
call does not wait, and many share one commit in the adapter. Calls under the same handle,
algorithm, context and key form one group. The queue is bounded by items and bytes, and each call
waits until its deadline at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

from capsign_wire.bounds import MAX_BATCH_ITEMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.upstream.batch import BATCH_BYTES, MAX_GROUPS, Batch
from capsign_agent.upstream.call import Call, Lost
from capsign_agent.upstream.fair_queue import FairQueue
from capsign_agent.upstream.gathering import Gathering
from capsign_agent.upstream.queue_bound import QueueBound
from capsign_agent.upstream.stream_shares import StreamShares

CROWDED_ITEMS = 32
"""Most items in a batch, and in a piece of a call, while several sockets sign, so that a single
signature does not wait for a large batch.
"""

QUANTUM = 32
"""What a socket may send in one round while others wait: items plus KiB of input."""


class Taker(Protocol):
    """A stream that takes batches."""

    @property
    def load(self) -> int:
        """How many streams to the same replica are busy."""

    def wake(self) -> None:
        """Called once after `park`, when there is something to take."""


class Timer(Protocol):
    """As much of `asyncio.TimerHandle` as is used."""

    def cancel(self) -> None:
        """Do not call what was to be called."""


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds."""


def on_the_loop(seconds: float, act: Callable[[], None]) -> Timer:
    """`Later` on the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, act)


class Coalescer:
    """The queue between callers and streams. For one event loop."""

    def __init__(
        self,
        max_items: int,
        max_bytes: int,
        refusing: Callable[[], FailureError | None],
        later: Later | None = None,
    ) -> None:
        """`refusing` returns the error with which new calls are refused while no adapter can be
        reached, or None. Without `later` no call waits for company while a stream is idle.
        """
        self._later = later
        self._gathering = Gathering()
        self._timer: Timer | None = None
        self._waiting: FairQueue[Call] = FairQueue(QUANTUM, lambda call: call.held.socket, _dues)
        self._bound = QueueBound(max_items, max_bytes)
        self._shares = StreamShares()
        self._resting: set[Call] = set()
        self._closed: FailureError | None = None
        self._parked: list[Taker] = []
        self._refusing = refusing

    @property
    def items(self) -> int:
        """How many items wait."""
        return self._bound.items

    @property
    def bytes(self) -> int:
        """How many bytes wait."""
        return self._bound.bytes

    def age(self) -> float:
        """How long the oldest call has waited, seconds. Called from the telemetry thread."""
        try:
            return time.monotonic() - min(call.queued_at for call in self._waiting.firsts())
        except (IndexError, ValueError, RuntimeError):  # it is empty, or changed under our eyes
            return 0.0

    @property
    def crowded(self) -> bool:
        """Whether more than one socket has had calls in the last second, or has calls that wait.
        Pieces of calls and batches are small then.
        """
        if not self._shares.several:  # as in most pods, where it is asked for each call
            return False
        return len(self._waiting.owners) > 1 or self._shares.crowded(time.monotonic())

    @property
    def piece_items(self) -> int:
        """Most items in a piece of a call now."""
        return CROWDED_ITEMS if self.crowded else MAX_BATCH_ITEMS

    def submit(self, call: Call) -> None:
        """Queue a call. Raises FailureError OVERLOADED, UPSTREAM_UNREACHABLE, or the error that
        `fail_all` was given; then it is not queued.
        """
        self._shares.called(call.held.socket, call.queued_at)
        crowded = self.crowded
        if not self._bound.fits(call, crowded=crowded):
            raise FailureError(
                failures_pb2.REASON_OVERLOADED, "The agent's queue is full.", retry_after_ms=50
            )
        refusal = self._closed or self._refusing()
        if refusal is not None:
            raise refusal
        self._waiting.append(call)
        self._bound.add(call)
        self._call_a_stream(crowded=crowded)

    @property
    def closed(self) -> bool:
        """Whether `fail_all` was called: nothing is sent any more."""
        return self._closed is not None

    def rest(self, calls: list[Call]) -> None:
        """Set calls aside whose answer was lost, until `again` queues them. Must not be called
        after `fail_all`.
        """
        self._resting.update(calls)

    def again(self, calls: list[Call]) -> None:
        """Queue those that are still set aside, before all others. They may exceed the bound: they
        were counted when they first came.
        """
        for call in reversed(calls):
            if call not in self._resting:
                continue
            self._resting.remove(call)
            self._waiting.append_first(call)
            self._bound.add(call)
        self._wake_one()

    def withdraw(self, call: Call) -> bool:
        """Remove a call whose caller has given up; returns False if it does not wait any more."""
        if call in self._resting:
            self._resting.remove(call)
            return True
        if self._waiting.remove(call):
            self._bound.remove(call)
            return True
        return False

    def _call_a_stream(self, *, crowded: bool) -> None:
        """Wake an idle stream, at once or after a moment in which others may come. While several
        sockets sign nobody waits for company: the batch under way may be another socket's.
        """
        if self._later is None or crowded:
            self._wake_one()
        elif not self._gathering.coming:
            wait_s = self._gathering.wait_s(self._bound.items)
            if not wait_s:
                self._wake_one()
            elif self._timer is None:
                self._timer = self._later(wait_s, self._gathered)

    def _gathered(self) -> None:
        self._timer = None
        if self._waiting:
            self._wake_one()

    def _wake_one(self) -> None:
        """Wake an idle stream to the least busy replica; of several, the one that was busy last,
        because its caches are warm.
        """
        if self._parked:
            taker = self._least_busy()
            self._parked.remove(taker)
            self._gathering.woken(taker)
            taker.wake()

    def _least_busy(self) -> Taker:
        best, least = self._parked[-1], self._parked[-1].load
        for one in reversed(self._parked):
            if not least:
                break
            if one.load < least:
                best, least = one, one.load
        return best

    def park(self, taker: Taker) -> None:
        """This stream is idle; it is woken when a call comes."""
        self._parked.append(taker)

    @property
    def idle_streams(self) -> int:
        """How many streams are idle."""
        return len(self._parked)

    def unpark(self, taker: Taker) -> None:
        """This stream is not idle any more, or has ended."""
        if taker in self._parked:
            self._parked.remove(taker)

    def take(self, lost: Lost, taker: Taker | None = None) -> Batch | None:
        """The next batch, oldest calls first; None if nothing waits. A call whose caller has given
        up is left out, and recorded as lost if the journal needs that.

        While several sockets sign, a batch holds calls of one socket, chosen in turn, and no socket
        has all streams. So a single signature waits neither for many of another socket nor for a
        free stream.
        """
        now = time.monotonic()
        if taker is not None:
            self._shares.has(taker, "")
            self._gathering.back(taker, now)
        crowded = self.crowded
        calls = self._crowded_calls(lost) if crowded else self._next_calls(lost)
        if not calls:
            return None
        if taker is not None:
            self._shares.has(taker, calls[0].held.socket)
            self._gathering.took(taker, now)
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
        elif self._waiting and self._later is not None:
            self._call_a_stream(crowded=crowded)
        return Batch(calls)

    def gone(self, taker: Taker) -> None:
        """This stream has ended; another one is woken in its place."""
        self._shares.gone(taker)
        self._gathering.gone(taker)
        if self._waiting:
            self._wake_one()

    def fail_all(self, error: FailureError, lost: Lost) -> None:
        """Close the queue: fail everything that waits, and refuse what comes later, with this
        error. What may have been signed is recorded as unknown.
        """
        self._closed = error
        left = [*self._waiting, *self._resting]
        self._waiting.clear()
        self._resting.clear()
        self._bound.clear()
        for call in left:
            if call.journalled:
                lost(call, failures_pb2.REASON_ANSWER_LOST)
            else:
                call.fail(error)

    def _crowded_calls(self, lost: Lost) -> list[Call]:
        """A small batch of one socket, in turn."""
        return self._next_calls(lost, CROWDED_ITEMS, self._shares.with_enough_streams(), alone=True)

    def _next_calls(
        self,
        lost: Lost,
        most: int = MAX_BATCH_ITEMS,
        skip: Collection[object] = (),
        *,
        alone: bool = False,
    ) -> list[Call]:
        """Calls that fit into one batch. `alone`: only calls of one socket."""
        calls: list[Call] = []
        items = size = 0
        groups: set[object] = set()
        while (call := self._waiting.peek(skip)) is not None:
            cost = call.cost + (0 if call.key in groups else call.group_cost)
            over = items + len(call.intents) > most or size + cost > BATCH_BYTES
            if calls and (over or (len(groups) == MAX_GROUPS and call.key not in groups)):
                break
            self._waiting.pop()
            self._bound.remove(call)
            if call.answer.done():
                if call.owed:
                    lost(call, failures_pb2.REASON_ANSWER_LOST)
                continue
            calls.append(call)
            groups.add(call.key)
            items += len(call.intents)
            size += cost
            if alone:
                skip = {owner for owner in self._waiting.owners if owner != call.held.socket}
        return calls


def _dues(call: Call) -> int:
    """The cost of a call in its socket's turn: items plus KiB of input."""
    return len(call.intents) + call.cost // 1024
