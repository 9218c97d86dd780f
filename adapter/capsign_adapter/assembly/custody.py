"""The life of key versions on a replica: what people ask, and what is cleared away after it."""

from __future__ import annotations

from typing import Any

from capsign_wire.adapter.v1 import keys_pb2_grpc
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.custody.acts import KeyActs
from capsign_adapter.custody.clearing import Clearing
from capsign_adapter.custody.making import Author
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.key_servicer import KeyServicer
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.tickers import Ticker

LOOK_S = 2.0
"""Between looks for what is to be cleared away, seconds."""


class Custody:
    """Of one replica."""

    def __init__(self, policy: Policy, state: State, metrics: Metrics) -> None:
        def author() -> Author:
            return Author(f"spiffe://{policy.trust_domain}/adapter/custody", policy.digest)

        self._policy, self._state = policy, state
        self.acts = KeyActs(
            lambda: policy,
            state.token,
            state.store,
            state.catch_up,
            Buckets(monotonic_ms),
            now_ms,
        )
        self.clearing = Clearing(
            state.token,
            state.store,
            author,
            now_ms,
            lambda label: metrics.violated("I7", destroyed_object=label),
        )

    def register(self, registrar: Any) -> None:
        """Add the service to a server."""
        servicer = KeyServicer(lambda: self._policy, self.acts, self._state.keyring)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, registrar)

    def ticker(self) -> Ticker:
        """Clears away, again and again; not yet started."""
        return Ticker("custody", LOOK_S, self.look)

    def look(self) -> None:
        """Clear away what is to be cleared away now."""
        versions = self._state.snapshots.current.versions
        self.clearing.look([row for rows in versions.values() for row in rows])
