"""What keeps this replica from signing now, as names of faults from an enumeration.

Checks that can be slow (token, store) run on threads of their own and their results are kept; a
check that does not return is a fault too. Checks that are instant run whenever somebody asks.
Nothing here repairs anything: a fault ends when its check passes again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from capsign_wire import logs

LATE_MS = 15_000
"""A check that has run for this long is a fault: longer than one call of the token may take."""

STUCK_MS = 30_000
"""The process counts as stuck if a ticker that waits for nothing has not run for this long."""

HealthCheck = Callable[[], str]
"""Returns the name of a fault, or an empty text. May raise: `ReplicaHealth.run` names errors."""


class ReplicaHealth:
    """Safe for any thread."""

    def __init__(self, clock_ms: Callable[[], int], fault_of: Callable[[Exception], str]) -> None:
        """`fault_of` names the fault for an exception that a check raised."""
        self._clock_ms = clock_ms
        self._fault_of = fault_of
        self._lock = threading.Lock()
        self._instant: dict[str, HealthCheck] = {}
        self._results: dict[str, str] = {}
        self._running_ms: dict[str, int] = {}
        self._beats: dict[str, int] = {}
        self._told: tuple[str, ...] = ()

    def add_instant(self, checks: Mapping[str, HealthCheck]) -> None:
        """Add checks that are run by `faults`. They must never block or raise."""
        self._instant.update(checks)

    def run(self, name: str, check: HealthCheck) -> None:
        """Run a check now, on this thread, and keep its result."""
        with self._lock:
            self._running_ms[name] = self._clock_ms()
        try:
            fault = check()
        except Exception as error:  # whatever it is, it keeps us from signing
            fault = self._fault_of(error)
        with self._lock:
            self._results[name] = fault
            del self._running_ms[name]

    def beat(self, name: str) -> None:
        """Note that a ticker that waits for nothing has run."""
        self._beats[name] = self._clock_ms()

    @property
    def alive(self) -> bool:
        """Whether the process itself works: its tickers run. Says nothing about token and store."""
        now_ms = self._clock_ms()
        return all(now_ms - at_ms < STUCK_MS for at_ms in list(self._beats.values()))

    def faults(self) -> tuple[str, ...]:
        """Returns the faults that keep the replica from signing, sorted; empty: it can sign. Logs
        each change once.
        """
        now_ms = self._clock_ms()
        with self._lock:
            found = {fault for fault in self._results.values() if fault}
            found |= {
                f"{name}_silent"
                for name, at_ms in self._running_ms.items()
                if now_ms - at_ms >= LATE_MS
            }
        found |= {fault for check in self._instant.values() if (fault := check())}
        faults = tuple(sorted(found))
        with self._lock:
            before, self._told = self._told, faults
        if before != faults:
            (logs.warning if faults else logs.event)("health.changed", faults=" ".join(faults))
        return faults
