"""Metrics with little overhead: plain counters and buckets, which are read when metrics are
collected.

`metric_catalogue` says which there are. `capsign_wire.otel` exports what is kept here, and only
where the standard OTEL_* variables ask for it.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from capsign_wire import logs
from capsign_wire.failures import REASONS
from capsign_wire.instruments import Instrument, Kind, Labels
from capsign_wire.metric_catalogue import CATALOGUE, NO_REASON, OUTCOME_NAMES
from capsign_wire.types.v1 import failures_pb2 as pb


class Counter:
    """Counts up. Exact from any number of threads.

    Every series is there from the start, at 0: an alert compares two values, and one that only
    appears when it moves would hide its first event.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.cells: dict[Labels, int] = dict.fromkeys(instrument.series(), 0)
        self._lock = threading.Lock()

    def add(self, *values: str, by: int = 1) -> None:
        """Count `by` more under these label values, given in the catalogue's order."""
        if values not in self.cells:
            self.instrument.refuse_strangers(values)
        with self._lock:
            self.cells[values] += by


@dataclass(slots=True)
class Buckets:
    """One series of a histogram. `counts` has one more item than the instrument has bounds: what
    lies above the last.
    """

    counts: list[int]
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")


class Histogram:
    """Sorts values into buckets. Exact from any number of threads."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.cells: dict[Labels, Buckets] = {}
        self._lock = threading.Lock()

    def record(self, value: float, *values: str, times: int = 1) -> None:
        """Record `value`, `times` over, under these label values, given in the catalogue's
        order.
        """
        cell = self.cells.get(values)
        if cell is None:
            self.instrument.refuse_strangers(values)
            fresh = Buckets([0] * (len(self.instrument.buckets) + 1))
            cell = self.cells.setdefault(values, fresh)
        index = bisect.bisect_left(self.instrument.buckets, value)
        with self._lock:
            cell.counts[index] += times
            cell.total += value * times
            if value < cell.least:
                cell.least = value
            if value > cell.most:
                cell.most = value


class Metrics:
    """The instruments of one process. Asking for a name twice gives the same instrument."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter] = {}
        self.histograms: dict[str, Histogram] = {}
        self.gauges: dict[str, dict[Labels, Callable[[], float]]] = {}
        for name, row in CATALOGUE.items():
            if row.kind is Kind.COUNTER:
                self.counters[name] = Counter(row)
            elif row.kind is Kind.HISTOGRAM:
                self.histograms[name] = Histogram(row)
            else:
                self.gauges[name] = {}

    def counter(self, name: str) -> Counter:
        """The counter of that name. Raises KeyError if the catalogue has none."""
        return self.counters[name]

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name. Raises KeyError if the catalogue has none."""
        return self.histograms[name]

    def gauge(self, name: str, callback: Callable[[], float], *values: str) -> None:
        """Read `callback` whenever the gauge is collected, on the collector's thread: it must not
        block. The last one counts.
        """
        CATALOGUE[name].refuse_strangers(values)
        self.gauges[name][values] = callback

    def observe_calls(self, failure: pb.Reason.ValueType | None, *, items: int = 1) -> None:
        """Count `items` that ended alike: done (None) or with this reason; keeps the counters of
        calls and reasons in step.
        """
        if failure is None:
            self.counters["capsign.calls"].add("done", NO_REASON, by=items)
            return
        row = REASONS[failure]
        self.counters["capsign.calls"].add(OUTCOME_NAMES[row.outcome], row.name, by=items)
        if row.outcome == pb.OUTCOME_REFUSED:
            self.counters["capsign.refusals"].add(row.name, by=items)
        elif row.outcome == pb.OUTCOME_UNKNOWN:
            self.counters["capsign.unknowns"].add(row.name, by=items)
        elif failure == pb.REASON_RATE_LIMITED:
            self.counters["capsign.rate_limited"].add(by=items)

    def observe_identity(self, failure: pb.Reason.ValueType | None) -> None:
        """Count a certificate that was issued (None) or was not, for this reason."""
        outcome, reason = (
            ("done", NO_REASON)
            if failure is None
            else (OUTCOME_NAMES[REASONS[failure].outcome], REASONS[failure].name)
        )
        self.counters["capsign.identities"].add(outcome, reason)

    def violated(self, invariant: str, **attributes: logs.Attribute) -> None:
        """Count and log a violation of an invariant. The attributes go into the log line."""
        self.counters["capsign.invariant.violations"].add(invariant)
        logs.error("invariant.violated", None, invariant=invariant, **attributes)

    def gauge_values(self, name: str) -> Iterator[tuple[Labels, float]]:
        """What the gauge shows now. A callback that fails is left out: telemetry never takes a
        process down.
        """
        for values, callback in list(self.gauges[name].items()):
            try:
                yield values, callback()
            except Exception as error:  # whatever a callback of ours can raise
                logs.error("telemetry.gauge_failed", error, gauge=name)

    def snapshot(self) -> dict[str, dict[Labels, float]]:
        """All values now; of a histogram, how many values it holds. For tests and status pages."""
        seen: dict[str, dict[Labels, float]] = {
            name: dict(one.cells) for name, one in self.counters.items()
        }
        for name, one in self.histograms.items():
            seen[name] = {
                values: float(sum(cell.counts)) for values, cell in list(one.cells.items())
            }
        for name in self.gauges:
            seen[name] = dict(self.gauge_values(name))
        return seen
