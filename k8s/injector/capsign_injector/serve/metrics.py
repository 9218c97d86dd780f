"""The injector's metrics in Prometheus' text format, for the health listener. It uses no gRPC, and
so exports no OTLP.

`docs/operations/telemetry.md` explains each metric. Every label value is in this file, so the
number of series is bounded.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

OUTCOMES = (
    "injected",
    "unchanged",
    "refused",
    "malformed",
    "too_large",
    "slow",
    "overloaded",
    "no_trust_bundle",
    "failed",
)
"""Outcomes of a request: three of a review; not a review; above a bound; the trust bundle is
missing; a defect here.
"""

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and gauges. For one thread."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.broken_connections = 0
        """Connections that were ended here: no TLS, no HTTP, too slow, too many."""
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Help text and function by name; the function is called when the metrics are read."""
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._total = 0.0

    def count(self, outcome: str, seconds: float) -> None:
        """Count an answered request. Raises KeyError for an `outcome` that is not in OUTCOMES."""
        self.requests[outcome] += 1
        self._buckets[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self._total += seconds

    def text(self) -> str:
        """All values now, as text."""
        name = "capsign_injector_requests_total"
        lines = [
            f"# HELP {name} Requests answered, by what came of them.",
            f"# TYPE {name} counter",
        ]
        lines += [
            f'{name}{{outcome="{outcome}"}} {count}' for outcome, count in self.requests.items()
        ]
        name = "capsign_injector_request_duration_seconds"
        lines += [f"# HELP {name} From a request's head to its answer.", f"# TYPE {name} histogram"]
        held = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets, strict=True):
            held += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {held}')
        lines += [f"{name}_sum {self._total:.6f}", f"{name}_count {held}"]
        name = "capsign_injector_connections_broken_total"
        lines += [
            f"# HELP {name} Connections that the injector ended.",
            f"# TYPE {name} counter",
            f"{name} {self.broken_connections}",
        ]
        for name, (help_text, read) in sorted(self.gauges.items()):
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", f"{name} {read():g}"]
        return "\n".join(lines) + "\n"
