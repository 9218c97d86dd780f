"""Metrics that cost next to nothing: counters and buckets kept by hand, read when somebody collects
them.

The catalogue below is the contract with dashboards and alerts: names, units, labels and every value
that a label can have. A label value that is not in it is a defect and raises, so the number of
series is bounded by this file. `capsign_wire.otel` exports what is kept here, and only where the
standard OTEL_* variables ask for it. `docs/operations/telemetry.md` explains each metric.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc

from capsign_wire import logs
from capsign_wire.adapter.v1 import (
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    signing_pb2,
)
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.algorithms import BY_NAME
from capsign_wire.failures import REASONS
from capsign_wire.types.v1 import failures_pb2 as pb

Labels = tuple[str, ...]
"""Values, in the order of the instrument's labels. An empty one means that the series has no such
label.
"""

_SERVED = (
    agent_pb2,
    admin_pb2,
    approvals_pb2,
    capability_pb2,
    evidence_pb2,
    identity_pb2,
    signing_pb2,
)

OUTCOME_NAMES: Mapping[int, str] = {
    pb.OUTCOME_DONE: "done",
    pb.OUTCOME_REFUSED: "refused",
    pb.OUTCOME_UNKNOWN: "unknown",
    pb.OUTCOME_UNAVAILABLE: "unavailable",
}
NO_REASON = "NONE"
"""The reason label of a call that was done."""

RPC_SYSTEM = "grpc"
"""The value of `rpc.system.name`."""

INVARIANTS = tuple(f"I{number}" for number in range(1, 11))
"""The invariants of the threat model; each has a counter and a test."""


def _names(outcome: pb.Outcome.ValueType) -> frozenset[str]:
    return frozenset(row.name for row in REASONS.values() if row.outcome == outcome)


_RESULTS: frozenset[Labels] = frozenset(
    {("done", NO_REASON), *((OUTCOME_NAMES[row.outcome], row.name) for row in REASONS.values())}
)
"""Outcome and reason, as they go together: a reason has one outcome."""
_SECONDS = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
    60.0,
)
_RPC_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""As the convention for RPC metrics advises."""
_POWERS = tuple(float(2**power) for power in range(11))


class Kind(Enum):
    """How an instrument is exported."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of the catalogue. `labels` gives each label's values, `buckets` the upper bounds of a
    histogram, inclusive.

    `only` names the combinations of labels that there are, where they are fewer than all.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    only: frozenset[Labels] = frozenset()

    def series(self) -> list[Labels]:
        """Every combination of labels that there can be, sorted."""
        return sorted(self.only or itertools.product(*self.labels.values()))

    def refuse_strangers(self, values: Labels) -> None:
        """Raises ValueError if these are not values that the catalogue gives the labels, in
        order.
        """
        strange = len(values) != len(self.labels) or any(
            v not in known for v, known in zip(values, self.labels.values(), strict=True)
        )
        if strange or (self.only and values not in self.only):
            raise ValueError(f"{self.name} takes labels {dict(self.labels)}")


def _methods(file: Any) -> Iterator[str]:
    for service in file.DESCRIPTOR.services_by_name.values():
        yield from (f"{service.full_name}/{method.name}" for method in service.methods)


def _catalogue() -> Mapping[str, Instrument]:
    hops = {"hop": frozenset({"application", "upstream", "store", "token", "audit"})}
    queues = {
        "queue": frozenset(
            {"application", "upstream", "commit", "token", "journal", "audit", "watchers"}
        )
    }
    faults = {
        "fault": frozenset(
            {"unavailable", "pin_rejected", "key_missing", "key_exists", "weak_attributes", "other"}
        )
    }
    algorithms = {"algorithm": frozenset(BY_NAME)}
    refused, unknown = (
        {"reason": _names(pb.OUTCOME_REFUSED)},
        {"reason": _names(pb.OUTCOME_UNKNOWN)},
    )
    calls = {
        "outcome": frozenset(outcome for outcome, _ in _RESULTS),
        "reason": frozenset(reason for _, reason in _RESULTS),
    }
    statuses = frozenset(one.name for one in grpc.StatusCode)
    rpcs = {
        "rpc.system.name": frozenset({RPC_SYSTEM}),
        "rpc.method": frozenset(method for file in _SERVED for method in _methods(file)),
        "rpc.response.status_code": statuses,
        "error.type": statuses | {""},
    }
    kinds = {"kind": frozenset({"signed", "refused", "never", "reported"})}
    counter, histogram, gauge = Kind.COUNTER, Kind.HISTOGRAM, Kind.GAUGE
    rows = (
        Instrument(
            "capsign.calls",
            counter,
            "{item}",
            "Items asked for, by what came of them.",
            calls,
            only=_RESULTS,
        ),
        Instrument(
            "capsign.call.duration",
            histogram,
            "s",
            "From reading a call to its answer.",
            algorithms,
            _SECONDS,
        ),
        Instrument(
            "capsign.retries", counter, "{try}", "Tries after the first, by what was tried.", hops
        ),
        Instrument(
            "capsign.timeouts", counter, "{wait}", "Waits that ended at their deadline.", hops
        ),
        Instrument(
            "capsign.unknowns",
            counter,
            "{item}",
            "Items whose outcome the caller must resolve.",
            unknown,
        ),
        Instrument("capsign.refusals", counter, "{item}", "Items refused for good.", refused),
        Instrument("capsign.rate_limited", counter, "{item}", "Items above a grant's rate.", {}),
        Instrument(
            "capsign.identities",
            counter,
            "{certificate}",
            "Certificates asked for, by what came of it.",
            calls,
            only=_RESULTS,
        ),
        Instrument("capsign.queue.depth", gauge, "{item}", "Items that wait now.", queues),
        Instrument(
            "capsign.queue.age", gauge, "s", "How long the oldest of them has waited.", queues
        ),
        Instrument(
            "capsign.journal.bytes", gauge, "By", "Audit records not yet taken upstream.", {}
        ),
        Instrument(
            "capsign.room.used",
            gauge,
            "1",
            "Share of the memory for calls that is taken, of the fullest socket.",
            {},
        ),
        Instrument(
            "capsign.upstream.streams",
            gauge,
            "{stream}",
            "Signing streams to adapters that are open.",
            {},
        ),
        Instrument(
            "capsign.handle.age", gauge, "s", "Time since the oldest handle held was issued.", {}
        ),
        Instrument(
            "capsign.certificate.remaining",
            gauge,
            "s",
            "Time until the own certificate ends; 0: there is none.",
            {},
        ),
        Instrument(
            "capsign.authority.remaining",
            gauge,
            "s",
            "Time until the authority that signs ends; 0: none can.",
            {},
        ),
        Instrument(
            "capsign.evidence.bytes", counter, "By", "Evidence written, by what it is about.", kinds
        ),
        Instrument("capsign.store.bytes", gauge, "By", "What the store takes on its disk.", {}),
        Instrument("capsign.store.free", gauge, "By", "What the store's disk has left.", {}),
        Instrument(
            "capsign.store.time_to_full",
            gauge,
            "s",
            "Until that disk is full, as fast as it fills now.",
            {},
        ),
        Instrument(
            "capsign.approvals.open",
            gauge,
            "{proposal}",
            "Proposals that wait for a second person, or for their time.",
            {},
        ),
        Instrument(
            "capsign.approvals.glass_broken",
            gauge,
            "{proposal}",
            "Acts that one person did alone, and nobody else has acknowledged.",
            {},
        ),
        Instrument(
            "capsign.batch.size",
            histogram,
            "{item}",
            "Items in a batch, by where it went.",
            hops,
            _POWERS,
        ),
        Instrument(
            "rpc.server.call.duration",
            histogram,
            "s",
            "From an RPC's start to its end.",
            rpcs,
            _RPC_SECONDS,
        ),
        Instrument(
            "rpc.client.call.duration",
            histogram,
            "s",
            "The same, by the process that began it.",
            rpcs,
            _RPC_SECONDS,
        ),
        Instrument(
            "capsign.token.errors",
            counter,
            "{error}",
            "Token calls that gave no answer or a wrong one.",
            faults,
        ),
        Instrument(
            "capsign.invariant.violations",
            counter,
            "{violation}",
            "Promises broken. Anything above 0 is an incident.",
            {"invariant": frozenset(INVARIANTS)},
        ),
    )
    return {row.name: row for row in rows}


CATALOGUE: Mapping[str, Instrument] = _catalogue()
"""Every metric that a capsign process can export, by name."""


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
        """A promise was broken: count it and say so. What is known about it goes into the log
        line.
        """
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
