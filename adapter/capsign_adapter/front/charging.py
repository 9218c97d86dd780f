"""Unary calls are charged by their cost before they are done, and done in turns.

Whoever is over its budget hears so only after a while: an answer at once would let it ask again at
once, and to refuse costs too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import FailureError, abort

from capsign_adapter.decide import cost
from capsign_adapter.decide.budget import Budget, UsedUpError
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.front.identity import peer_of
from capsign_adapter.sign.edge import failure_of, pause
from capsign_adapter.sign.fair import Lane, Turns, flow_of

AT_ONCE = 3
"""Unary calls of one workload that are worked on at the same time: they share Python's lock, and
the store's, with the batches of all others. Each workload has its own, so that what hangs for one
hangs for nobody else.
"""

_WAITS_ELSEWHERE = frozenset({"Renew"})
"""Methods that wait for the cluster, and have places of their own for that."""


class ChargingRegistrar:
    """Pass this to a generated `add_…_to_server`: unary methods are charged before they begin."""

    def __init__(self, registrar: Any, policy: Policy, budget: Budget, turns: Turns) -> None:
        self._registrar = registrar
        self._turns = turns
        self._policy = policy
        self._budget = budget
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Nothing: the handlers come again, by name, in the next call."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Hand the handlers on."""
        charged = {name: self._charged(name, handler) for name, handler in handlers.items()}
        self._registrar.add_registered_method_handlers(service, charged)

    def _charged(self, name: str, handler: Any) -> Any:
        if handler.unary_unary is None:
            return handler
        behaviour: Callable[[Any, grpc.ServicerContext], Any] = handler.unary_unary

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                peer = peer_of(context)
                self._charge(peer, name, request)
            except Exception as error:  # the edge: nothing passes it untyped
                if isinstance(error, UsedUpError):
                    pause(error.retry_after_ms)
                abort(context, failure_of(error))
            with self._turn(peer, name, context):
                return behaviour(request, context)

        return handler._replace(unary_unary=call)

    def _charge(self, peer: Peer, name: str, request: Any) -> None:
        """Raises FailureError."""
        self._budget.charge(
            peer, cost.CALL if isinstance(request, Unparsed) else cost.of_call(name, request)
        )

    @contextmanager
    def _turn(self, peer: Peer, name: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Wait for a turn among the calls of this workload, and some milliseconds until batches
        that are small have finished.

        Who must revoke waits for nobody. Ends the call if no turn comes.
        """
        if self._policy.roles_of(peer.spiffe_id) or name in _WAITS_ELSEWHERE:
            yield
            return
        with self._lock:
            lane = self._lanes.setdefault(peer.spiffe_id, _Lane())
            lane.users += 1
        try:
            try:
                flow = flow_of(self._policy, peer)
                lane.take(flow, cost.CALL)
            except FailureError as error:
                abort(context, error)
            try:
                self._turns.wait_for_calm(flow, cost.CALL)
                yield
            finally:
                lane.give()
        finally:
            with self._lock:
                lane.users -= 1
                if not lane.users:
                    del self._lanes[peer.spiffe_id]


class _Lane(Lane):
    """The calls of one workload, in it or waiting for it."""

    def __init__(self) -> None:
        super().__init__(AT_ONCE)
        self.users = 0
