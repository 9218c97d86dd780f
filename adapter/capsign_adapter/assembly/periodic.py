"""The periodic tasks of a replica: health checks, sweeps, load shedding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.listeners import Listeners
from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.front.health import Health
from capsign_adapter.front.memory_pressure import (
    EASY_SECONDS,
    LOOK_SECONDS,
    LoadShedder,
    MemoryPressure,
    memory_budget,
)
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.sign import health_checks
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.replica_health import ReplicaHealth
from capsign_adapter.sign.storage_forecast import EVERY_S, StorageForecast
from capsign_adapter.sign.tickers import Periods, Ticker, tickers
from capsign_adapter.store.open import disk_of


def signing_path_tickers(
    config: Config,
    state: State,
    listeners: Listeners,
    replica_health: ReplicaHealth,
) -> list[Ticker]:
    """Returns the tickers of the signing path, not yet started."""
    sweeps = (
        lambda: state.decisions.sweep(now_ms()),
        state.keyring.sweep,
        state.commitments.sweep,
        listeners.peer_quota.sweep,
    )
    periods = Periods(
        poll_s=config.control.poll_ms / 1000,
        checkpoint_s=config.log.checkpoint_every_ms / 1000,
        collect_s=config.control.collect_every_s,
        retention_ms=lambda: state.snapshots.policy().limits.intent_retention_ms,
    )
    return tickers(
        state.store,
        state.epochs,
        state.barrier,
        state.checkpoints,
        lambda: replica_health.beat("barrier"),
        sweeps,
        periods,
    )


APPROVALS_S = 1.0
"""Between looks for proposals that are due, seconds."""


def due_proposals(listeners: Listeners, metrics: Metrics) -> Ticker:
    """Does what was approved once its waiting period is over, and tells how many wait and what was
    done alone.
    """
    waiting: list[ProposalRow] = []

    def look() -> None:
        waiting[:] = listeners.approvals.look()

    metrics.gauge("capsign.approvals.open", lambda: sum(row.is_open for row in waiting))
    metrics.gauge(
        "capsign.approvals.glass_broken", lambda: sum(row.unacknowledged for row in waiting)
    )
    return Ticker("approvals", APPROVALS_S, look)


def load_shedding(
    config: Config, listeners: Listeners, health: Health, memory: int | None
) -> Ticker:
    """Returns the ticker that cancels waiting calls when memory runs short."""
    waiting = [listeners.peer_quota.deadlines, health.deadlines]
    waiting += [listeners.enrolment.quota.deadlines] if listeners.enrolment is not None else []
    people = [listeners.admin.quota.deadlines] if listeners.admin is not None else []
    listen = config.listen
    pressure = MemoryPressure(memory_budget(memory, listen.streams, listen.message_bytes))
    shedder = LoadShedder(pressure, waiting, monotonic_ms, people=people)

    def look() -> bool:
        shedder.look()
        return not shedder.at_ease

    return Ticker("memory", EASY_SECONDS, look, more_s=LOOK_SECONDS)


def health_check_tickers(
    config: Config, state: State, replica_health: ReplicaHealth, health: Health
) -> list[Ticker]:
    """Returns the tickers that run the health checks."""
    token_check = health_checks.token_check(state.token)
    store_check = health_checks.store_check(
        state.store,
        state.membership.repeat,
        disk_of(config.store.url),
        now_ms,
        lambda: state.snapshots.policy().limits.clock_skew_ms,
    )
    return [
        Ticker(
            "look.token", health_checks.EVERY_S, lambda: replica_health.run("token", token_check)
        ),
        Ticker(
            "look.store", health_checks.EVERY_S, lambda: replica_health.run("store", store_check)
        ),
        Ticker("look.health", 1.0, health.refresh),
    ]


def tell_overdue(all_tickers: Sequence[Ticker], metrics: Metrics) -> None:
    """Registers the metric of tasks that are not done. What a witness answers has its own."""
    for each in all_tickers:
        if not each.name.startswith("witness."):
            metrics.gauge("capsign.ticker.overdue", _overdue(each), each.name)


def _overdue(ticker: Ticker) -> Callable[[], float]:
    return lambda: ticker.overdue_s(time.monotonic())


def store_growth(config: Config, state: State, metrics: Metrics) -> Ticker:
    """Returns the ticker that samples the size of the store, and registers its metrics."""
    seen = StorageForecast()
    free: Callable[[int], int] | None = health_checks.free_of(
        disk_of(config.store.url), config.store.capacity_bytes
    )
    metrics.gauge("capsign.store.bytes", lambda: seen.bytes)
    if free is not None:
        metrics.gauge("capsign.store.free", lambda: seen.free)
        metrics.gauge("capsign.store.time_to_full", seen.time_to_full_s)
    look = health_checks.storage_sampler(seen, state.store, free or (lambda _: 0), monotonic_ms)
    return Ticker("growth", EVERY_S, look)
