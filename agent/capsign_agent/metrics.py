"""What the agent counts. Plain integers, kept by hand: exporters read them, the signing path only adds (facts.md: 0.3 µs)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

LATENCY_BOUNDS_US = (250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts by bucket; `bounds` are inclusive upper ends, the last bucket is everything above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def record(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """One for the process. Labels are reasons by number, so they are bounded by the enumeration."""

    def __init__(self) -> None:
        self.signed = 0
        """Items that got a signature."""
        self.failed: Counter[int] = Counter()
        """Items that did not, by reason."""
        self.latency_us = Histogram(LATENCY_BOUNDS_US)
        """From the arrival of a group to its answer, microseconds."""
        self.batch_items = Histogram(BATCH_BOUNDS)
        """Items in a batch sent upstream."""
        self.resent = 0
        """Batches sent a second time after their answer was lost."""
        self.late_answers = 0
        """Items whose answer came after their caller was told "unknown"."""
        self.connects = 0
        """Streams opened to adapters."""
        self.connect_failures = 0
        """Streams that could not be opened or broke without an answer."""
        self.handle_fetches = 0
        self.handle_failures = 0
        self.audit_batches = 0
        """Audit batches that the adapter has."""
        self.audit_failures = 0
        self.invariant_violations = 0
        """Answers that break what the adapter promises."""
