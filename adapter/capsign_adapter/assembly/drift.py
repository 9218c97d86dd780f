"""Drift on a replica: what looks, how often, and what its metric says."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from capsign_evidence.drift_leaf import DriftKind
from capsign_wire import addresses, logs
from capsign_wire.telemetry import Metrics

from capsign_adapter import __version__
from capsign_adapter.assembly.listeners import Listeners
from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.drift.own_look import OwnLook, Reload
from capsign_adapter.drift.settings import settings_of, shared_of
from capsign_adapter.drift.tls_look import Listener, reached
from capsign_adapter.drift.watch import Outside, Watch
from capsign_adapter.model.drift import Difference, ReplicaReport
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.key_uses import KeyUseCounter
from capsign_adapter.sign.tickers import Ticker
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError

LOOK_S = 20.0
"""Between looks, seconds: an object that nobody knows is named within a minute."""

MAKING_S = 1.0
"""How long a key may be in the token before the store says so, seconds."""


class DriftWatch:
    """Of one replica."""

    def __init__(
        self,
        config: Config,
        state: State,
        uses: KeyUseCounter,
        metrics: Metrics,
    ) -> None:
        def told(one: Difference) -> None:
            if one.kind is DriftKind.UNKNOWN_OBJECT:
                metrics.violated("I8", unknown_object=one.subject)

        identity = ReplicaReport(
            state.membership.replica_id,
            now_ms(),
            0,
            __version__,
            "",
            shared_of(settings_of(config)),
        )
        self._own = OwnLook(
            config,
            state.snapshots.policy,
            state.store,
        )
        outside = Outside(now_ms, partial(time.sleep, MAKING_S), told)
        self.watch = Watch(
            state.token, state.store, state.snapshots, identity, self._own, uses, outside
        )
        for kind in DriftKind:
            name = kind.name.lower().replace("_", "-")
            metrics.gauge("capsign.drift", partial(self._count, kind), name)

    def _count(self, kind: DriftKind) -> float:
        return sum(row.difference.kind is kind for row in self.watch.state.rows)

    def look_at(self, listeners: Callable[[], list[Listener]]) -> None:
        """Which listeners there are."""
        self._own.listeners = listeners

    def moves_unwitnessed(self, unwitnessed: bool) -> None:
        """Whether leaves move under a checkpoint that no witness had to cosign."""
        self._own.moves_unwitnessed = unwitnessed

    def reload_with(self, reload: Reload) -> None:
        """How the configuration file is read again."""
        self._own.reload = reload

    def end(self) -> None:
        """This replica stops. What fails here ends by itself, minutes later."""
        try:
            self.watch.end()
        except (StoreUnavailableError, CommitUnknownError):
            logs.warning("drift.left_unsaid")

    def ticker(self) -> Ticker:
        """Looks, again and again; not yet started."""
        return Ticker("drift", LOOK_S, self.watch.look, first_after_s=LOOK_S)


def listening(config: Config, listeners: Listeners) -> list[Listener]:
    """The TLS listeners of this replica, as they are reached from here."""
    listen = config.listen
    found = [("workloads", listen.address, listeners.port, "demanded")]
    if listeners.admin is not None:
        found.append(("people", listen.admin_address, listeners.admin.port, "demanded"))
    if listeners.enrolment is not None:
        found.append(("enrolment", listen.enrolment_address, listeners.enrolment.port, "none"))
    if listeners.public is not None:
        found.append(("verifiers", listen.public_address, listeners.public.port, "none"))
    return [
        Listener(f"listener/{name}", reached(addresses.listener(address).host), port, wanted)
        for name, address, port, wanted in found
    ]
