"""The life of key versions on a replica: what people ask, and what is cleared away after it."""

from __future__ import annotations

from typing import Any

from capsign_wire import logs
from capsign_wire.adapter.v1 import keys_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.custody.acts import KeyActs, Propose
from capsign_adapter.custody.attempts import each
from capsign_adapter.custody.clearing import Clearing
from capsign_adapter.custody.destroying import executor
from capsign_adapter.custody.erasing import PepperClearing
from capsign_adapter.custody.erasing import executor as erasing_executor
from capsign_adapter.custody.making import Author
from capsign_adapter.decide.approvals import Standing
from capsign_adapter.front.key_servicer import KeyServicer
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.failures import failure_of
from capsign_adapter.sign.tickers import Ticker
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.token.interface import TokenError

LOOK_S = 2.0
"""Between looks for what is to be cleared away, seconds."""


class Custody:
    """Of one replica."""

    def __init__(self, state: State, metrics: Metrics) -> None:
        def author(actor: str = "") -> Author:
            policy = state.snapshots.current.policy
            return Author(actor or f"spiffe://{policy.trust_domain}/adapter/custody", policy.digest)

        self._state = state
        self.acts = KeyActs(
            self._standing,
            state.token,
            state.store,
            state.epochs,
            state.refused_moves,
            now_ms,
        )
        self.clearing = Clearing(
            state.token,
            state.store,
            author,
            now_ms,
            lambda label: metrics.violated("I7", destroyed_object=label),
        )

        self.peppers = PepperClearing(
            state.token,
            state.store,
            author,
            now_ms,
            lambda label: metrics.violated("I9", destroyed_object=label),
        )
        self.executor = executor(author, lambda _: self._hasten())
        """How an approved destruction is done."""
        self.erasing_executor = erasing_executor(author, lambda _: self._hasten())
        """How a tenant is erased."""

    def register(self, registrar: Any, propose: Propose) -> None:
        """Add the service to a server; `propose` is where acts of two people go."""
        servicer = KeyServicer(
            self._standing,
            self.acts,
            self._state.keyring,
            propose,
            self._state.key_sets,
            self._state.store.key_uses,
        )
        keys_pb2_grpc.add_KeyServiceServicer_to_server(servicer, registrar)

    def _standing(self) -> Standing:
        """Who may do what now. Raises what the store raises."""
        return self._state.snapshots.standing()

    def ticker(self) -> Ticker:
        """Clears away, again and again; not yet started."""
        return Ticker("custody", LOOK_S, self.look)

    def _hasten(self) -> None:
        """Look now. What fails here the ticker does later: the act itself is done."""
        try:
            self.look()
        except (FailureError, StoreUnavailableError, CommitUnknownError, TokenError) as error:
            logs.warning("custody.later", reason=failure_of(error).row.name)

    def look(self) -> None:
        """Clear away what is to be cleared away now: a key that cannot be ended keeps no pepper
        from it. Raises what token and store raise, the last once all was tried.
        """
        each((self._keys, self._peppers), lambda do: do())

    def _keys(self) -> None:
        versions = self._state.snapshots.current.known()
        self.clearing.look([row for rows in versions.values() for row in rows])

    def _peppers(self) -> None:
        if self._state.snapshots.current.revoked.erased:
            self.peppers.look(self._state.store.erasures())
