"""What a replica does by itself, again and again: looks at what it stands on, sweeps, relief."""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.listeners import Listeners
from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.health import Health
from capsign_adapter.front.pressure import LOOK_SECONDS, Pressure, Relief, memory_budget
from capsign_adapter.sign import looks
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.condition import Condition
from capsign_adapter.sign.growth import EVERY_S, Growth
from capsign_adapter.sign.watch import Periods, Ticker, tickers
from capsign_adapter.store.open import disk_of


def upkeep(
    config: Config, policy: Policy, state: State, listeners: Listeners, condition: Condition
) -> list[Ticker]:
    """The tickers of the signing path, not yet started."""
    sweeps = (
        lambda: state.decisions.sweep(now_ms()),
        state.keyring.sweep,
        state.commitments.sweep,
        listeners.places.sweep,
    )
    periods = Periods(
        poll_s=config.control.poll_ms / 1000,
        checkpoint_s=config.log.checkpoint_every_ms / 1000,
        collect_s=config.control.collect_every_s,
        retention_ms=policy.limits.intent_retention_ms,
    )
    return tickers(
        state.store,
        state.catch_up,
        state.barrier,
        state.checkpoints,
        lambda: condition.beat("barrier"),
        sweeps,
        periods,
    )


def relief(config: Config, listeners: Listeners, health: Health, memory: int | None) -> Ticker:
    """Ends what only waits when the process grows beyond what it may take."""
    waiting = [listeners.places.room, health.room]
    waiting += [listeners.door.places.room] if listeners.door is not None else []
    people = [listeners.admin.places.room] if listeners.admin is not None else []
    listen = config.listen
    pressure = Pressure(memory_budget(memory, listen.streams, listen.message_bytes))
    guard = Relief(pressure, waiting, monotonic_ms, people=people)

    def look() -> None:
        guard.look()

    return Ticker("memory", LOOK_SECONDS, look)


def health_looks(
    config: Config, policy: Policy, state: State, condition: Condition, health: Health
) -> list[Ticker]:
    """Looks at token and store, by which the replica is healthy."""
    at_token = looks.at_token(state.token)
    at_store = looks.at_store(
        state.store,
        state.membership.repeat,
        disk_of(config.store.url),
        now_ms,
        policy.limits.clock_skew_ms,
    )
    return [
        Ticker("look.token", looks.EVERY_S, lambda: condition.look("token", at_token)),
        Ticker("look.store", looks.EVERY_S, lambda: condition.look("store", at_store)),
        Ticker("look.health", 1.0, health.refresh),
    ]


def growth(config: Config, state: State, metrics: Metrics) -> Ticker:
    """Looks at how large the store is, and tells it and how long its place lasts."""
    seen = Growth()
    free: Callable[[int], int] | None = looks.free_of(
        disk_of(config.store.url), config.store.capacity_bytes
    )
    metrics.gauge("capsign.store.bytes", lambda: seen.bytes)
    if free is not None:
        metrics.gauge("capsign.store.free", lambda: seen.free)
        metrics.gauge("capsign.store.time_to_full", seen.time_to_full_s)
    look = looks.at_growth(seen, state.store, free or (lambda _: 0), monotonic_ms)
    return Ticker("growth", EVERY_S, look)
