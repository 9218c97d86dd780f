"""When the process's memory runs short, calls that only wait are ended: whatever shape what they
hold may have.

A message is bounded by its bytes, and what it takes is not: a peer that sends it in frames of a few
bytes, with much between them that nobody keeps, pins a buffer with each. That is inside gRPC and
cannot be seen from here, but it shows in the process's size. Whoever waits for the rest of a
message, or for an answer to be taken, can be ended at no loss: an agent opens its idle streams
again at once.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from capsign_wire import logs

from capsign_adapter.front.call_deadlines import CallDeadlines
from capsign_adapter.front.capacity import MIB, OWN_MEMORY

LOOK_SECONDS = 0.05
"""Between looks at the process's size."""

SHORT, VERY_SHORT = 0.6, 0.75
"""Parts of the memory that may be taken before calls are ended that have waited for
YOUNG_SECONDS, and all that wait."""

YOUNG_SECONDS = 0.5
"""Whoever works waits less for its next batch."""

NO_USE_MS, LONGEST_NO_USE_MS = 10_000, 600_000
"""How long the size that is left counts as normal where ending calls did not help: then it is not
theirs. The first time, and twice as long each time until it helps again, unless memory is very
short: an adapter whose token library takes much would end honest streams for ever."""

TRIM_MS = 10_000
"""Between looks whether what was freed should go back to the system, milliseconds."""

UNTOLD = 256 * MIB
"""What is added to the known needs where the control group has no limit."""


def memory_budget(limit: int | None, places: int, message_bytes: int) -> int:
    """How much memory there is: what the control group says, or else what an adapter of this
    size may need."""
    return limit if limit is not None else OWN_MEMORY + 2 * places * message_bytes + UNTOLD


class MemoryPressure:
    """Says how patient to be. Pure but for what it remembers; for one thread."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._normal = 0
        self._normal_until_ms = 0
        self._no_use_ms = NO_USE_MS

    def patience(self, size: int, now_ms: int) -> float | None:
        """At this size: how long a call may have waited and be left alone, seconds; None: as
        long as it likes."""
        normal = self._normal if now_ms < self._normal_until_ms else 0
        if size <= max(self._budget * SHORT, normal):
            return None
        return 0.0 if size > self._budget * VERY_SHORT else YOUNG_SECONDS

    def relieved(self, before: int, after: int, now_ms: int) -> None:
        """Calls were ended; the size before and after."""
        helped = after <= before - before // 20
        if helped or after > self._budget * VERY_SHORT:
            self._no_use_ms = NO_USE_MS
        if helped:
            return
        self._normal, self._normal_until_ms = after + after // 20, now_ms + self._no_use_ms
        self._no_use_ms = min(2 * self._no_use_ms, LONGEST_NO_USE_MS)


def resident(file: Path = Path("/proc/self/statm")) -> int:
    """How much of the process is in memory, bytes."""
    return int(file.read_bytes().split()[1]) * resource.getpagesize()


class LoadShedder:
    """Looks, and ends what waits in these rooms. For one thread."""

    def __init__(
        self,
        pressure: MemoryPressure,
        rooms: Sequence[CallDeadlines],
        clock_ms: Callable[[], int],
        size: Callable[[], int] = resident,
        trim: Callable[[], object] | None = None,
        *,
        people: Sequence[CallDeadlines] = (),
    ) -> None:
        """In the rooms of `people` nobody else waits, and a call of theirs is never ended as it
        comes:
        what workloads hold must not keep them from revoking.
        """
        self._pressure = pressure
        self._rooms = rooms
        self._people = people
        self._clock_ms = clock_ms
        self._size = size
        self._after: int | None = None
        self._trim = trim or _trimmer()
        self._least = size()
        self._look_again_ms = clock_ms() + TRIM_MS

    def look(self) -> int:
        """How many calls were ended."""
        size, now_ms = self._size(), self._clock_ms()
        if self._after is not None:  # those that were ended at the last look have let go by now
            before, self._after = self._after, None
            self._trim()
            after = self._size()
            self._pressure.relieved(before, after, now_ms)
            size = after
        patience = self._pressure.patience(size, now_ms)
        if patience is None:
            self._give_back(size, now_ms)
            return 0
        ended = sum(room.cancel_older_than(patience) for room in self._rooms)
        ended += sum(room.cancel_older_than(max(patience, YOUNG_SECONDS)) for room in self._people)
        self._after = size
        if ended:
            logs.warning("memory.short", resident=size, ended=ended)
        return ended

    def _give_back(self, size: int, now_ms: int) -> None:
        """The C library keeps what was freed. After a crowd it goes back, if that is a quarter of
        all.
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
    """What gives freed memory back to the system, where the C library can: it keeps it
    otherwise, and nobody sees the relief."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: trim(0)) if trim is not None else (lambda: None)
