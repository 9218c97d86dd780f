"""Fair scheduling of computing time among tenants, workloads, certificates and sockets.

Python computes on one thread at a time, and the token has one thread. A caller with more threads,
or with more work on each, would get that much more of both. So work is done in chunks of about a
millisecond, each in a *turn*. The next turn goes to the tenant that has used least, within it to
the workload that has used least, then likewise to the certificate and the socket. One that comes
back from a pause starts level with those that are served now. This is start-time fair queueing
(Goyal, Vin, Cheng 1996) with the costs of `decide/cost.py`. A flow that is alone computes without
turns.

A commit needs the interpreter lock only briefly, but some twenty times, and would wait for a chunk
of somebody else's work each time. So large batches have a queue of their own, one chunk at a time,
and each chunk first waits some milliseconds for small batches to finish; longer if its owner had
more than an equal part lately.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import cost
from capsign_adapter.decide.fair_share import FairShare, Member
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy

TURN_US = 1_000
"""Longest work in one turn while there is contention, unless a single chunk is longer."""

SMALL_US = 2 * TURN_US
"""Most work of a batch that counts as small: twice that of sixteen signatures."""

SMALL_FIRST_SECONDS, LONG_SMALL_FIRST_SECONDS = 0.002, 0.008
"""Longest wait of a large batch's chunk for small batches to finish; the second figure is for an
owner that had more than an equal part lately.
"""

WAIT_SECONDS = 10.0
"""Longest wait for a turn. Only a token or store that hangs makes one wait that long."""

CONTENDED_SECONDS = 0.2
"""How long there counts as contention after several flows had work at once."""

MOST = 8_192
"""Most tenants, workloads, certificates and sockets whose use is remembered."""

Flow = tuple[str, str, bytes, str]
"""Tenant, workload, certificate key, socket of the pod as its agent names it."""

_Node = tuple[str | bytes, ...]

_Crowd = dict[str | bytes, Any]
"""Who waits: by tenant, workload, certificate and socket, and for each socket in order."""


def flow_of(policy: Policy, peer: Peer, caller: str = "") -> Flow:
    """Returns the flow of a peer's work."""
    return policy.tenant_of(peer.spiffe_id), peer.spiffe_id, peer.key_hash, caller


class FairQueue:
    """Gives `at_once` turns at a time, the next to whoever has used least. Safe for any thread."""

    def __init__(self, at_once: int, *, wait_s: float = WAIT_SECONDS) -> None:
        self._lock = threading.Lock()
        self._wait_s = wait_s
        self.free = at_once
        """How many turns are free now."""
        self._waiting: _Crowd = {}
        self._used: dict[_Node, int] = {}
        self._level: dict[_Node, int] = {}
        """For each parent (all tenants, the workloads of a tenant, and so on): the use of the child
        that was served last, before it was charged. The virtual time of the algorithm.
        """

    @property
    def contended(self) -> bool:
        """Whether anybody waits now."""
        return bool(self._waiting)

    @property
    def waiting_count(self) -> int:
        """How many wait now."""
        with self._lock:
            crowds: list[Any] = [self._waiting]
            while crowds and isinstance(crowds[0], dict):
                crowds = [each for crowd in crowds for each in crowd.values()]
            return sum(map(len, crowds))

    @property
    def remembered(self) -> int:
        """Of how many tenants, workloads, certificates and sockets the use is remembered."""
        return len(self._used)

    def take(self, flow: Flow, cost_us: int) -> None:
        """Wait for a turn and charge its cost. Raises FailureError OVERLOADED."""
        with self._lock:
            self._begin(flow)
            if self.free and not self._waiting:
                self.free -= 1
                self._charge(flow, cost_us)
                return
            mine = threading.Lock()
            mine.acquire()
            crowd = self._waiting
            for name in flow[:-1]:
                crowd = crowd.setdefault(name, {})
            crowd.setdefault(flow[-1], deque()).append(mine)
        if not mine.acquire(timeout=self._wait_s) and not self._give_up(flow, mine):
            raise FailureError(
                failures_pb2.REASON_OVERLOADED,
                f"No turn came within {self._wait_s:g} seconds.",
                retry_after_ms=1000,
            )
        with self._lock:
            self._charge(flow, cost_us)

    def give(self) -> None:
        """End a turn. The next goes to whoever has used least."""
        with self._lock:
            if not self._waiting:
                self.free += 1
                return
            crowd: Any = self._waiting
            node: _Node = ()
            while isinstance(crowd, dict):
                node = min(((*node, name) for name in crowd), key=self._used.__getitem__)
                crowd = crowd[node[-1]]
            next_one = crowd.popleft()
            self._tidy(node)
        next_one.release()

    def _begin(self, flow: Flow) -> None:
        """Start a flow level with those served now: it has no claim on what it did not use."""
        if len(self._used) > MOST and not self._waiting:
            self._used.clear()
            self._level.clear()
        for length in range(1, len(flow) + 1):
            node = flow[:length]
            self._used[node] = max(self._used.get(node, 0), self._level.get(node[:-1], 0))

    def _charge(self, flow: Flow, cost_us: int) -> None:
        for length in range(1, len(flow) + 1):
            node = flow[:length]
            used = self._used.get(node, 0)
            parent = node[:-1]
            if used > self._level.get(parent, 0):
                self._level[parent] = used
            self._used[node] = used + cost_us

    def _give_up(self, flow: Flow, mine: threading.Lock) -> bool:
        """Stop waiting. Returns True if the turn came after all."""
        with self._lock:
            line: Any = self._waiting
            for name in flow:
                line = line.get(name, {})
            if mine not in line:
                return True
            line.remove(mine)
            self._tidy(flow)
            return False

    def _tidy(self, node: _Node) -> None:
        """Remove the entries under which nobody waits any more."""
        way: list[_Crowd] = [self._waiting]
        for name in node[:-1]:
            way.append(way[-1][name])
        for crowd, name in zip(reversed(way), reversed(node), strict=True):
            if crowd[name]:
                return
            del crowd[name]


class FairScheduler:
    """The two queues, and how many small batches and calls are under way. Safe for any thread."""

    def __init__(
        self,
        at_once: int,
        *,
        small_first_s: tuple[float, float] = (SMALL_FIRST_SECONDS, LONG_SMALL_FIRST_SECONDS),
    ) -> None:
        """`small_first_s`: the longest time, seconds, that a large chunk waits for small work to
        finish; the second figure is for an owner that had more than an equal part lately.
        """
        self.small, self.large = FairQueue(at_once), FairQueue(1)
        self._small_first_s, self._long_small_first_s = small_first_s
        # Used directly by those that do not wait: the condition costs three times as much.
        self._lock = threading.Lock()
        self._no_small = threading.Condition(self._lock)
        now_ms = _now_ms()
        self._usage = tuple(FairShare(now_ms) for _ in range(4))
        self._active: dict[Flow, int] = {}
        self.small_active = 0
        """How many small batches and calls are under way."""
        self.waiting = 0
        """How many chunks of large ones wait for those."""
        self._contended_until_s = 0.0

    @property
    def contended(self) -> bool:
        """Whether several flows have work, or had within CONTENDED_SECONDS."""
        if len(self._active) > 1:
            return True
        until_s = self._contended_until_s
        return until_s > 0.0 and time.monotonic() < until_s

    @property
    def active_flows(self) -> int:
        """How many flows have work."""
        return len(self._active)

    def enter(self, flow: Flow) -> None:
        """A batch or call begins. It counts as small at first."""
        with self._lock:
            self._active[flow] = self._active.get(flow, 0) + 1
            self.small_active += 1

    def leave(self, flow: Flow, small: bool, spent_us: int = 0) -> None:
        """A batch or call has ended; `small` to its end, having cost `spent_us`."""
        with self._lock:
            if small:
                self._one_less()
            if len(self._active) > 1:
                self._contended_until_s = time.monotonic() + CONTENDED_SECONDS
            if small and spent_us and self.contended:
                self._count(flow, spent_us, _now_ms())
            left = self._active[flow] - 1
            if left:
                self._active[flow] = left
            else:
                del self._active[flow]

    def became_small(self) -> None:
        """A batch that had yielded goes on, and is still small."""
        with self._lock:
            self.small_active += 1

    def became_large(self) -> None:
        """A batch is large from now on, or has yielded: nobody waits for it to finish."""
        with self._lock:
            self._one_less()

    def _one_less(self) -> None:
        self.small_active -= 1
        if not self.small_active and self.waiting:
            self._no_small.notify_all()

    def wait_for_small(self, flow: Flow, cost_us: int) -> None:
        """Wait until all small ones have finished, for some milliseconds at most."""
        now_ms = _now_ms()
        with self._lock:
            above = self._count(flow, cost_us, now_ms)
            self.waiting += 1
            self._no_small.wait_for(
                lambda: not self.small_active,
                self._long_small_first_s if above else self._small_first_s,
            )
            self.waiting -= 1

    def _count(self, flow: Flow, cost_us: int, now_ms: int) -> bool:
        """Whether tenant, workload, certificate or socket has had more than its part before
        this.
        """
        above = False
        members: tuple[Member, ...] = (*flow[:3], flow[2] + flow[3].encode())
        for usage, member in zip(self._usage, members, strict=True):
            above |= usage.asks(member, now_ms)
            usage.uses(member, cost_us)
        return above


class Turn:
    """The turns of one batch or call, from `with` to its end. Used by one thread."""

    __slots__ = ("_flow", "_left", "_queue", "_scheduler", "_small", "_spent")

    def __init__(self, scheduler: FairScheduler, flow: Flow) -> None:
        self._scheduler = scheduler
        self._flow = flow
        self._queue: FairQueue | None = None
        self._left = 0
        self._spent = 0
        self._small = True

    def __enter__(self) -> Self:
        self._scheduler.enter(self._flow)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._scheduler.leave(self._flow, self._small, self._spent)

    @property
    def contended(self) -> bool:
        """Whether other flows have work, so that chunks should be small."""
        return self._scheduler.contended

    def spend(self, cost_us: int) -> None:
        """Call before each chunk of work. Charges it, and waits for another turn if this one is
        used up. Raises FailureError OVERLOADED.
        """
        self._spent += cost_us
        if self._queue is not None and self._left >= cost_us:
            self._left -= cost_us
            return
        scheduler = self._scheduler
        if not scheduler.contended:
            return  # one that is alone needs no turn
        if self._spent <= SMALL_US:
            if self._queue is not scheduler.small or scheduler.small.contended:
                self._change(scheduler.small, cost_us)
        else:
            self._became_large()
            self._change(scheduler.large, cost_us)
            scheduler.wait_for_small(self._flow, cost_us)
        self._left = TURN_US - cost_us

    def before_commit(self, drafts: int) -> None:
        """Call before a commit: a large batch lets small ones commit first."""
        self.release()
        if not self._small:
            self._scheduler.wait_for_small(self._flow, drafts * cost.RECORD)

    def release(self) -> None:
        """End the turn, before a wait for something else and at the end."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            queue.give()

    @contextmanager
    def yielded(self) -> Iterator[None]:
        """Yield around a wait that may be long (token, store, another thread): no turn is held
        meanwhile, and nobody waits for this batch to finish.
        """
        self.release()
        small = self._small
        self._became_large()
        try:
            yield
        finally:
            if small:
                self._small = True
                self._scheduler.became_small()

    def _became_large(self) -> None:
        if self._small:
            self._small = False
            self._scheduler.became_large()

    def _change(self, queue: FairQueue, cost_us: int) -> None:
        self.release()
        queue.take(self._flow, max(cost_us, TURN_US))
        self._queue = queue


class CallTurn:
    """The turn of a unary call among those of its tenant, of which one computes at a time. It lasts
    from `begin` to the end of `with`. Used by one thread.

    Each thread that wants the interpreter lock slows all others, and a call has too little work for
    turns of its own: three calls of one workload at a time halved the signatures of the others.
    """

    __slots__ = ("_cost_us", "_flow", "_has_it", "_queue", "_scheduler")

    def __init__(
        self, scheduler: FairScheduler, queue: FairQueue, flow: Flow, cost_us: int
    ) -> None:
        self._scheduler = scheduler
        self._queue = queue
        self._flow = flow
        self._cost_us = cost_us
        self._has_it = False

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Wait for the turn, then some milliseconds for small batches to finish. Raises
        FailureError OVERLOADED.
        """
        self._take(self._cost_us)
        self._scheduler.wait_for_small(self._flow, self._cost_us)

    def __exit__(self, *_: object) -> None:
        self._give()

    @contextmanager
    def yielded(self) -> Iterator[None]:
        """Yield around a wait for the token, the store or another thread: no turn is held then."""
        had_it = self._has_it
        self._give()
        try:
            yield
        finally:
            if had_it:
                self._take(0)

    def _take(self, cost_us: int) -> None:
        self._queue.take(self._flow, cost_us)
        self._has_it = True

    def _give(self) -> None:
        if self._has_it:
            self._has_it = False
            self._queue.give()


@contextmanager
def turn_for(queue: FairQueue, flow: Flow, cost_us: int) -> Iterator[None]:
    """A turn for one chunk of work, until the block ends. Raises FailureError OVERLOADED."""
    queue.take(flow, cost_us)
    try:
        yield
    finally:
        queue.give()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
