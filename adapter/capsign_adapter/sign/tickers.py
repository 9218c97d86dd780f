"""Periodic tasks of a replica: follow the epoch, expire release tickets, sign checkpoints, delete
old intents, sweep caches.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from capsign_wire import logs

from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.ledger import MAX_COLLECTED, Ledger

EXPIRE_SECONDS = 0.1
"""Time between checks for streams whose peer does not read its answer."""

NONE_OPEN_SECONDS = 0.4
"""The same while no batch has a lease, seconds: less than the shortest lease, so that whoever gets
one meanwhile is looked at in time.
"""

MORE_SECONDS = 0.05
"""Pause before a call that continues the last one, so that others get the lock that it held."""

BESIDE_SIGNERS = 0.05
"""Part of a core that work which can wait may take while it has more to do."""

STOP_SECONDS = 5.0
"""How long a call of an action may still take when its ticker is stopped."""


class Ticker:
    """Calls `action` at once and then every `every_seconds`, on a thread of its own.

    A failure is logged (the first of several in a row) and the action is called again; `overdue_s`
    tells for how long that goes on. If the action
    returns True, there is more to do, and it is called again after MORE_SECONDS, or later if it
    would take more of a core than `share` allows. A wake-up costs 0.1 ms of CPU, so that what has
    to look often while something is under way does so then only.
    """

    def __init__(
        self,
        name: str,
        every_seconds: float,
        action: Callable[[], bool | None],
        first_after_s: float = 0.0,
        share: float = 1.0,
        cpu_s: Callable[[], float] = time.thread_time,
        more_s: float = MORE_SECONDS,
    ) -> None:
        """`first_after_s`: seconds before the first call; `more_s`: before one that continues the
        last. `share`: part of a core that it may take while there is more to do; `cpu_s`: CPU
        seconds that the calling thread has used.
        """
        self.name = name
        self._more_s = more_s
        self._pause_per_work = 1 / share - 1
        self._cpu_s = cpu_s
        self._first_after = first_after_s
        self._every = every_seconds
        self._action = action
        self._done_s = math.inf
        self._running = threading.Lock()  # a bare lock is the cheapest wait that can be ended
        self._running.acquire()
        wait = partial(self._running.acquire, True)
        self._thread = threading.Thread(target=self.run, args=(wait,), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, within_s: float = STOP_SECONDS) -> None:
        """Returns once the thread has ended, after the present call of the action; if that takes
        longer than `within_s`, it hangs, and is left to end with the process.
        """
        with suppress(RuntimeError):  # it was stopped before
            self._running.release()
        self._thread.join(within_s)
        if self._thread.is_alive():
            logs.error("ticker.hangs", ticker=self.name)

    def overdue_s(self, now_s: float) -> float:
        """Returns for how many seconds of `time.monotonic` the action should have been done and was
        not, because it fails or hangs.
        """
        return max(0.0, now_s - self._done_s - self._every)

    def run(self, wait: Callable[[float], bool]) -> None:
        """Run in this thread until `wait`, which gets the seconds to wait, returns True."""
        failing = False
        if self._first_after and wait(self._first_after):
            return
        self._done_s = time.monotonic()
        while True:
            more: bool | None = False
            before = self._cpu_s()
            try:
                more = self._action()
                failing = False
                self._done_s = time.monotonic()
            except Exception as error:
                # A store that fails must not end the ticker that would see it recover.
                if not failing:
                    logs.error("ticker.failed", ticker=self.name, reason=failure_of(error).row.name)
                failing = True
            pause = max(self._more_s, (self._cpu_s() - before) * self._pause_per_work)
            if wait(min(pause, self._every) if more else self._every):
                return


class Collected(Ledger, Database, Protocol):
    """The parts of the store that deleting old intents needs."""


class Periods(NamedTuple):
    """Periods of the tickers, seconds; and how long the ledger keeps an intent by the policy in
    force, milliseconds; by which clock, milliseconds since 1970.
    """

    poll_s: float
    checkpoint_s: float
    collect_s: float
    retention_ms: Callable[[], int]
    clock: Callable[[], int] = now_ms


def tickers(
    store: Collected,
    epochs: EpochFollower,
    barrier: RevocationBarrier,
    checkpoints: Checkpoints,
    beat: Callable[[], None],
    sweeps: tuple[Callable[[], int], ...],
    periods: Periods,
) -> list[Ticker]:
    """Returns the tickers of a replica, not yet started. `beat` is called by one that waits neither
    for the store nor for the token.
    """

    def collect() -> bool:
        mine_ms, told_ms = periods.clock(), store.clock_ms()
        # The watermark never moves back: two clocks must agree that it may move.
        gone = store.collect_garbage(
            mine_ms if told_ms is None else min(mine_ms, told_ms),
            periods.retention_ms(),
            MAX_COLLECTED,
        )
        if gone:
            logs.event("intents.collected", count=gone)
        return gone == MAX_COLLECTED

    def sweep() -> None:
        for each in sweeps:
            each()

    return [
        Ticker("epoch", periods.poll_s, epochs.look),
        # On a thread of its own: it must run while the store hangs.
        Ticker(
            "barrier",
            NONE_OPEN_SECONDS,
            lambda: _expired(barrier, beat),
            more_s=EXPIRE_SECONDS,
        ),
        Ticker("checkpoint", periods.checkpoint_s, lambda: _grown(checkpoints)),
        Ticker("collect", periods.collect_s, collect),
        Ticker("sweep", 1.0, sweep),
    ]


def _expired(barrier: RevocationBarrier, beat: Callable[[], None]) -> bool:
    """Returns whether a batch has a lease that may end."""
    barrier.expire()
    beat()
    return barrier.is_open


def _grown(checkpoints: Checkpoints) -> None:
    checkpoints.signed(now_ms())
