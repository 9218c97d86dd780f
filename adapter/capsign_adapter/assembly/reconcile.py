"""Reconciliation on a replica: how often it follows, and what its metrics say."""

from __future__ import annotations

from functools import partial

from capsign_evidence.incident_leaf import PASSING, IncidentKind, IncidentState
from capsign_evidence.reconcile.incidents import Change
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.reconcile.follower import Follower
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.tickers import BESIDE_SIGNERS, Ticker

FOLLOW_S = 2.0
"""Between steps once the end of the log is reached, seconds."""
LOOK_S = 10.0
"""Between looks at how far reconciliation is, whoever does it, seconds."""
STOPPED_MS = 30_000
"""Whoever reads the log has reached its end within that time, or is behind."""


def named(kind: IncidentKind) -> str:
    """The kind as metrics, logs and commands spell it."""
    return kind.name.lower().replace("_", "-")


class Reconciliation:
    """Of one replica."""

    def __init__(self, config: Config, state: State, metrics: Metrics) -> None:
        self._enabled = config.reconcile.enabled
        self._metrics = metrics
        self._store = state.store
        self.follower = Follower(
            state.store,
            config.reconcile.timing,
            state.membership.replica_id,
            lambda: state.snapshots.policy().digest,
            now_ms,
            self._changed,
        )
        self._behind = 0
        self._ended_ms = -STOPPED_MS
        """When this replica was at the end of the log, on the clock that only goes on."""
        for kind in IncidentKind:
            metrics.gauge("capsign.incidents", partial(self._count, kind), named(kind))
        metrics.gauge("capsign.incidents.untold", lambda: self.follower.untold)
        metrics.gauge("capsign.reconcile.unjudged", lambda: self.follower.unjudged)
        if self._enabled:
            metrics.gauge("capsign.reconcile.lag", self._lag)

    def tickers(self) -> list[Ticker]:
        """Follow the log; none if that is turned off. Not yet started."""
        if not self._enabled:
            return []
        return [
            Ticker("reconcile", FOLLOW_S, self._step, first_after_s=FOLLOW_S, share=BESIDE_SIGNERS),
            Ticker("reconcile-lag", LOOK_S, self.look),
        ]

    @property
    def reads_the_log(self) -> bool:
        """Whether it is for this replica to read the log: one does, or each where none follows."""
        return self.follower.leads or not self._enabled

    def _step(self) -> bool:
        more = self.follower.step()
        if not more and self.follower.leads:
            self._ended_ms = monotonic_ms()
        return more

    def look(self) -> None:
        """See how far the log was read, by this replica or by another. On a thread of its own: a
        follower that has stopped cannot say so. Raises what the store raises.
        """
        through = max(self.follower.position, self._store.reconciled_through())
        self._behind = max(0, self._store.control().tree_size - through)

    def _changed(self, change: Change) -> None:
        if change.state is not IncidentState.FOUND:
            return
        kind = change.incident.kind
        self._metrics.counter("capsign.incidents.found").add(named(kind))
        if kind not in PASSING:
            self._metrics.violated("I8", incident=named(kind), workload=change.incident.workload)

    def _count(self, kind: IncidentKind) -> float:
        return sum(one.kind is kind for one in self.follower.standing)

    def _lag(self) -> float:
        at_the_end = self.follower.leads and monotonic_ms() < self._ended_ms + STOPPED_MS
        return 0 if at_the_end else self._behind
