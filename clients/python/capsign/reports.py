"""How signatures verified, counted until the agent is told: a report waits for company, and never
makes its caller wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from capsign.errors import CapsignError, Refused
from capsign.handle_selector import HandleSelector

AGE_S = 1.0
"""Longest time that a report waits for company, seconds; also the wait before one that could not be
told is told again.
"""

COUNT = 1_000
"""Verifications that are told at once."""

MOST_KEYS = 256
"""Most keys and contexts of which counts wait; what comes above that is dropped."""

TIMEOUT_S = 5.0
"""Longest time that the agent is asked to take one, seconds."""

CLOSING_S = 1.0
"""Longest time that closing waits for what is left, seconds."""

MOST = 2**32 - 1
"""What the field of a report takes."""


class Report(NamedTuple):
    """How many signatures of one key verified, and how many did not."""

    selector: HandleSelector
    kid: str
    verified: int
    failed: int


class Reports:
    """Counts that wait. Safe for any thread; no I/O."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[HandleSelector, str], list[int]] = {}
        self._waiting = 0
        self.dropped = 0
        """Verifications of which the agent will not be told: too many keys, or an unknown one."""

    def add(self, report: Report) -> bool:
        """Count it; whether so much waits that it is to be told at once."""
        name = (report.selector, report.kid)
        more = report.verified + report.failed
        with self._lock:
            if name not in self._counts and len(self._counts) >= MOST_KEYS:
                self.dropped += more
                return True
            kept = self._counts.setdefault(name, [0, 0])
            kept[0] = min(MOST, kept[0] + report.verified)
            kept[1] = min(MOST, kept[1] + report.failed)
            self._waiting += more
            return self._waiting >= COUNT

    def take(self) -> list[Report]:
        """All that waits; it waits no more."""
        with self._lock:
            taken, self._counts, self._waiting = self._counts, {}, 0
        return [Report(*name, *counts) for name, counts in taken.items()]

    def failed(self, report: Report, error: CapsignError) -> None:
        """It could not be told: it waits again, unless it never can be."""
        if isinstance(error, Refused):
            with self._lock:
                self.dropped += report.verified + report.failed
        else:
            self.add(report)

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._counts


class Reporter:
    """Tells reports on a thread of its own, which lives while something waits."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        """`tell` raises CapsignError."""
        self._tell = tell
        self._begin()

    def _begin(self) -> None:
        self.reports = Reports()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, report: Report) -> None:
        """Returns at once."""
        if self._pid != os.getpid():
            self._begin()  # what waited at a fork is the parent's, and so are its locks
        if self.reports.add(report):
            self._due.set()
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="capsign-reports", daemon=True
                )
                self._thread.start()

    def flush(self) -> None:
        """Tell what waits, on this thread."""
        for report in self.reports.take():
            try:
                self._tell(report)
            except CapsignError as error:
                self.reports.failed(report, error)

    def close(self) -> None:
        """Tell what is left, for at most CLOSING_S. Whoever is interrupted by this may hold what
        telling needs, so it is done by the other thread.
        """
        self._closed = True
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            self._due.set()
            thread.join(CLOSING_S)

    def _run(self) -> None:
        while True:
            self._due.wait(AGE_S)
            self._due.clear()
            self.flush()
            with self._lock:
                if self._closed or self.reports.is_empty():
                    self._thread = None
                    return
