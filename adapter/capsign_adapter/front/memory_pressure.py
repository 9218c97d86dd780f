"""Cancels calls that only wait when the process's memory runs short.

The bytes of a message are bounded, the memory that it takes is not: a peer that sends it in frames
of a few bytes pins a buffer of gRPC with each. That cannot be seen from here, except by the size of
the process. A call that waits for the rest of a message, or for its answer to be taken, can be
cancelled at no loss: an agent opens its idle streams again at once.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Sequence
from functools import cache

from capsign_wire import logs

from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.capacity import MIB, OWN_MEMORY

_PAGE_BYTES = resource.getpagesize()

LOOK_SECONDS = 0.05
"""Between looks at the process's size."""

AT_EASE, EASY_SECONDS = 0.3, 0.2
"""Up to this part of the memory budget there are these seconds between looks: who would reach the
end of the budget in between sends a gigabyte a second where the budget is 300 MiB.
"""

SHORT, VERY_SHORT = 0.6, 0.75
"""Parts of the memory budget. Above the first, calls that have waited for YOUNG_SECONDS are
cancelled; above the second, all that wait.
"""

YOUNG_SECONDS = 0.5
"""A caller that works sends its next batch sooner than this, seconds."""

NO_USE_MS, LONGEST_NO_USE_MS = 10_000, 600_000
"""How long the present size counts as normal after cancelling calls did not help, milliseconds.
The memory is not theirs then (a token's library may take much), and honest streams must not be
cancelled for ever. The time doubles, up to the second figure, until cancelling helps again or
memory is very short.
"""

TRIM_MS = 10_000
"""Time between checks whether freed memory should go back to the system, milliseconds."""

UNTOLD = 256 * MIB
"""Added to the known needs where the control group has no memory limit, bytes."""


def memory_budget(limit: int | None, max_calls: int, message_bytes: int) -> int:
    """Bytes of memory that the process may use: the limit of its control group, or else what an
    adapter of this size may need.
    """
    return limit if limit is not None else OWN_MEMORY + 2 * max_calls * message_bytes + UNTOLD


class MemoryPressure:
    """Decides from the process's size which waiting calls to cancel. Asks no clock and does no
    I/O; for one thread.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._normal = 0
        self._normal_until_ms = 0
        self._no_use_ms = NO_USE_MS

    def tolerated_wait(self, size: int, now_ms: int) -> float | None:
        """Seconds that a call may have waited without being cancelled, at a size of so many
        bytes. None: any time.
        """
        normal = self._normal if now_ms < self._normal_until_ms else 0
        if size <= max(self._budget * SHORT, normal):
            return None
        return 0.0 if size > self._budget * VERY_SHORT else YOUNG_SECONDS

    def at_ease(self, size: int) -> bool:
        """Whether a process of this size needs fewer looks."""
        return size <= self._budget * AT_EASE

    def relieved(self, before: int, after: int, now_ms: int) -> None:
        """Learn what cancelling calls did to the process's size, in bytes."""
        helped = after <= before - before // 20
        if helped or after > self._budget * VERY_SHORT:
            self._no_use_ms = NO_USE_MS
        if helped:
            return
        self._normal, self._normal_until_ms = after + after // 20, now_ms + self._no_use_ms
        self._no_use_ms = min(2 * self._no_use_ms, LONGEST_NO_USE_MS)


@cache
def _statm() -> int:
    """Returns the descriptor of /proc/self/statm, which stays open: to open it twenty times a
    second was a third of what an idle adapter computed. It names this process, not a child of it.
    """
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def resident() -> int:
    """Returns the resident size of the process, bytes."""
    return int(os.pread(_statm(), 256, 0).split()[1]) * _PAGE_BYTES


class LoadShedder:
    """Watches the process's size and cancels waiting calls. For one thread."""

    def __init__(
        self,
        pressure: MemoryPressure,
        waiting: Sequence[CallDeadlines],
        clock_ms: Callable[[], int],
        size: Callable[[], int] = resident,
        trim: Callable[[], object] | None = None,
        *,
        people: Sequence[CallDeadlines] = (),
    ) -> None:
        """`waiting` are the calls that may be cancelled. `people` are those of the listener for
        people: a call there is never cancelled before it has waited for YOUNG_SECONDS, so that what
        workloads hold does not keep responders from revoking.
        """
        self._pressure = pressure
        self._waiting = waiting
        self._people = people
        self._clock_ms = clock_ms
        self._size = size
        self._after: int | None = None
        self._trim = trim or _trimmer()
        self._least = size()
        self.at_ease = False
        """Whether the process was far from short of memory at the last look."""
        self._look_again_ms = clock_ms() + TRIM_MS

    def look(self) -> int:
        """Check the size once, and cancel calls if it is too large. Returns how many."""
        size, now_ms = self._size(), self._clock_ms()
        self.at_ease = self._after is None and self._pressure.at_ease(size)
        if self._after is not None:  # those that were ended at the last look have let go by now
            before, self._after = self._after, None
            self._trim()
            after = self._size()
            self._pressure.relieved(before, after, now_ms)
            size = after
        tolerated = self._pressure.tolerated_wait(size, now_ms)
        if tolerated is None:
            self._give_back(size, now_ms)
            return 0
        ended = sum(calls.cancel_older_than(tolerated) for calls in self._waiting)
        tolerated = max(tolerated, YOUNG_SECONDS)
        ended += sum(calls.cancel_older_than(tolerated) for calls in self._people)
        self._after = size
        if ended:
            logs.warning("memory.short", resident=size, ended=ended)
        return ended

    def _give_back(self, size: int, now_ms: int) -> None:
        """Return freed memory to the system, which the C library otherwise keeps, if the size is
        more than a quarter above the least that was seen.
        """
        if now_ms < self._look_again_ms:
            return
        self._look_again_ms = now_ms + TRIM_MS
        if size > self._least + self._least // 4:
            self._trim()
            self._least = self._size()
        else:
            self._least = min(self._least, size)


def _trimmer() -> Callable[[], object]:
    """Returns a function that gives freed memory back to the system. It does nothing where the C
    library has no `malloc_trim`.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: trim(0)) if trim is not None else (lambda: None)
